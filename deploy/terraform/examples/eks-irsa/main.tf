terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

# owlpost on EKS with IRSA, SES and an SQS queue in the same account.

provider "aws" {
  region = var.region
}

variable "region" {
  description = "Of everything."
  type        = string
  default     = "eu-west-1"
}

variable "domain" {
  description = "Mails come from access@DOMAIN."
  type        = string
  default     = "example.com"
}

variable "zone_id" {
  description = "The domain's Route 53 zone, if it has one."
  type        = string
  default     = null
}

variable "oidc_provider_arn" {
  description = "Of the cluster's IAM OIDC provider."
  type        = string
  default     = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"
}

variable "keda_service_account" {
  description = "KEDA's operator, which asks for the queue's length."
  type        = object({ namespace = string, name = string })
  default     = { namespace = "keda", name = "keda-operator" }
}

variable "alarm_topic_arns" {
  description = "SNS topics that CloudWatch tells of trouble. Empty: no alarms."
  type        = list(string)
  default     = ["arn:aws:sns:eu-west-1:111122223333:on-call"]
}

locals {
  issuer = "https://${split("oidc-provider/", var.oidc_provider_arn)[1]}"
}

module "identity" {
  source = "../../modules/ses-identity"

  domain  = var.domain
  region  = var.region
  zone_id = var.zone_id
}

module "events" {
  source = "../../modules/ses-events"
}

module "intake" {
  source = "../../modules/event-queue"

  name = "athenz-events"
}

module "role" {
  source = "../../modules/worker-role"

  oidc = {
    provider_arn = var.oidc_provider_arn
    issuer       = local.issuer
    namespace    = "owlpost"
  }

  identity_arns          = [module.identity.arn]
  configuration_set_arns = [module.events.configuration_set_arn]
  from_addresses         = ["access@${var.domain}"]
  queue_arns             = [module.intake.arn]
}

module "keda" {
  source = "../../modules/worker-role"

  name = "keda-operator"
  oidc = {
    provider_arn    = var.oidc_provider_arn
    issuer          = local.issuer
    namespace       = var.keda_service_account.namespace
    service_account = var.keda_service_account.name
  }
  measured_queue_arns = [module.intake.arn]
}

module "alarms" {
  source = "../../modules/alarms"
  count  = length(var.alarm_topic_arns) == 0 ? 0 : 1

  queue_names             = [module.intake.name]
  dead_letter_queue_names = [module.intake.dead_letter_name]
  reputation              = {}
  actions                 = var.alarm_topic_arns
}

output "keda_role_arn" {
  description = "For the annotation eks.amazonaws.com/role-arn of KEDA's service account."
  value       = module.keda.arn
}

output "role_arn" {
  description = "For the service account's annotation eks.amazonaws.com/role-arn."
  value       = module.role.arn
}

output "queue_url" {
  description = "For source.queue_url."
  value       = module.intake.url
}

output "dns_records" {
  description = "For whoever runs the domain's DNS, where zone_id is null."
  value       = module.identity.dns_records
}

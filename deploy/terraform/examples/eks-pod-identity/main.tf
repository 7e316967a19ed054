terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

# owlpost on EKS with Pod Identity: the cluster needs the add-on eks-pod-identity-agent, the service account no annotation.

provider "aws" {
  region = var.region
}

variable "region" {
  description = "Of everything."
  type        = string
  default     = "eu-west-1"
}

variable "cluster_arn" {
  description = "The EKS cluster."
  type        = string
  default     = "arn:aws:eks:eu-west-1:111122223333:cluster/production"
}

module "identity" {
  source = "../../modules/ses-identity"

  domain = "example.com"
  region = var.region
}

module "events" {
  source = "../../modules/ses-events"
}

module "role" {
  source = "../../modules/worker-role"

  pod_identity = {
    cluster_arn = var.cluster_arn
    namespace   = "owlpost"
  }

  identity_arns          = [module.identity.arn]
  configuration_set_arns = [module.events.configuration_set_arn]
  from_addresses         = ["access@example.com"]
}

output "role_arn" {
  description = "Nothing has to be told it; for the record."
  value       = module.role.arn
}

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

# owlpost on EKS with Pod Identity: events from Amazon MSK, dead letters to a topic of it, scaled by KEDA. The cluster needs the
# add-on eks-pod-identity-agent; the topics are made by whoever runs MSK.

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

variable "msk_cluster_arn" {
  description = "The MSK cluster, with IAM as a way to sign in."
  type        = string
  default     = "arn:aws:kafka:eu-west-1:111122223333:cluster/events/a1b2c3d4-5678-90ab-cdef-EXAMPLE11111-1"
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

  msk = {
    cluster_arn       = var.msk_cluster_arn
    topics            = ["athenz-events"]
    dead_letter_topic = "owlpost-dead-letters"
  }
}

# KEDA asks with its own role (keda.aws.identityOwner: operator).
module "keda" {
  source = "../../modules/worker-role"

  name = "keda-operator"
  pod_identity = {
    cluster_arn     = var.cluster_arn
    namespace       = "keda"
    service_account = "keda-operator"
  }

  measured_msk = {
    cluster_arn = var.msk_cluster_arn
    topics      = ["athenz-events"]
  }
}

output "role_arn" {
  description = "Nothing has to be told it; for the record."
  value       = module.role.arn
}

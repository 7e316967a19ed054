terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

# owlpost on GKE, SES at AWS: no key anywhere. The cluster signs a token for the pod, AWS trusts the cluster.
#
# This only needs the names of project, location and cluster. The pods only need the role's ARN, which is known before anything
# is made. So there is no cycle, and the cluster's own Terraform does not have to know of this.

provider "aws" {
  region = var.region
}

variable "region" {
  description = "Where SES is."
  type        = string
  default     = "eu-west-1"
}

variable "cluster" {
  description = "The GKE cluster."
  type        = object({ project = string, location = string, name = string })
  default     = { project = "my-project", location = "europe-west1", name = "production" }
}

module "trust" {
  source = "../../modules/gke-oidc"

  project  = var.cluster.project
  location = var.cluster.location
  cluster  = var.cluster.name
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

  oidc                   = merge(module.trust.oidc, { namespace = "owlpost" })
  identity_arns          = [module.identity.arn]
  configuration_set_arns = [module.events.configuration_set_arn]
  from_addresses         = ["access@example.com"]
}

output "role_arn" {
  description = "AWS_ROLE_ARN of the pods; with AWS_WEB_IDENTITY_TOKEN_FILE, AWS_REGION and AWS_EC2_METADATA_DISABLED=true."
  value       = module.role.arn
}

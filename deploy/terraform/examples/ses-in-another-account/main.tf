terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

# owlpost runs in one account, SES is in another. Two ways; one is enough:
#
# identity  the worker's account sends as the other account's identity: mailer.identity_arn. Quota and bounces are the
#           worker's account's, which must be out of the sandbox too.
# chain     the worker takes on a role of the other account: mailer.assume_role_arn and external_id. Quota, bounces and
#           configuration set are the other account's. Simpler to run.

provider "aws" {
  region = var.region
}

provider "aws" {
  alias  = "mail"
  region = var.region

  assume_role {
    role_arn = "arn:aws:iam::${var.mail_account}:role/terraform"
  }
}

variable "region" {
  description = "The same for both accounts: SES looks for an identity in the Region that is called."
  type        = string
  default     = "eu-west-1"
}

variable "worker_account" {
  description = "Where the cluster is."
  type        = string
  default     = "111122223333"
}

variable "mail_account" {
  description = "Where the verified domain is."
  type        = string
  default     = "444455556666"
}

variable "external_id" {
  description = "As mailer.external_id: any text that only the two sides know of."
  type        = string
  default     = "owlpost-production"
}

variable "oidc_provider_arn" {
  description = "Of the cluster's IAM OIDC provider, in the worker's account."
  type        = string
  default     = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"
}

locals {
  # By their names, so that neither account waits for the other.
  worker_role_arn = "arn:aws:iam::${var.worker_account}:role/owlpost"
  mail_role_arn   = "arn:aws:iam::${var.mail_account}:role/owlpost-sender"
}

# ---- the mail account

module "identity" {
  source    = "../../modules/ses-identity"
  providers = { aws = aws.mail }

  domain = "example.com"
  region = var.region
}

# Way "identity". AWS looks the role up when it takes the policy, so the role comes first.
module "shared" {
  source    = "../../modules/shared-identity"
  providers = { aws = aws.mail }

  domain         = module.identity.domain
  identity_arn   = module.identity.arn
  sender_arns    = [module.role.arn]
  from_addresses = ["access@example.com"]
}

# Way "chain".
module "events" {
  source    = "../../modules/ses-events"
  providers = { aws = aws.mail }
}

module "sender" {
  source    = "../../modules/worker-role"
  providers = { aws = aws.mail }

  name                   = "owlpost-sender"
  trusted_role           = { arn = module.role.arn, external_id = var.external_id }
  identity_arns          = [module.identity.arn]
  configuration_set_arns = [module.events.configuration_set_arn]
  from_addresses         = ["access@example.com"]
}

# ---- the worker's account

# Way "identity": mailer.configuration_set is looked for where the call comes from.
module "own_events" {
  source = "../../modules/ses-events"
}

module "role" {
  source = "../../modules/worker-role"

  oidc = {
    provider_arn = var.oidc_provider_arn
    issuer       = "https://${split("oidc-provider/", var.oidc_provider_arn)[1]}"
    namespace    = "owlpost"
  }

  # Way "identity": by its name, since the identity's policy waits for this role. The configuration set is the worker's account's.
  identity_arns          = ["arn:aws:ses:${var.region}:${var.mail_account}:identity/example.com"]
  configuration_set_arns = [module.own_events.configuration_set_arn]
  from_addresses         = ["access@example.com"]
  # Way "chain".
  assume_role_arns = [local.mail_role_arn]
}

output "worker_role_arn" {
  description = "For the service account's annotation; known beforehand."
  value       = local.worker_role_arn
}

output "identity_arn" {
  description = "Way identity: mailer.identity_arn."
  value       = module.shared.identity_arn
}

output "assume_role_arn" {
  description = "Way chain: mailer.assume_role_arn."
  value       = module.sender.arn
}

variable "name" {
  description = "Of the role. Its ARN is known from that and the account, before the role is made."
  type        = string
  default     = "owlpost"
}

# ---- who: exactly one of these

variable "oidc" {
  description = "Pods with a token of their cluster: IRSA on EKS, web identity on GKE. issuer: https://…, as in the provider's URL."
  type = object({
    provider_arn    = string
    issuer          = string
    namespace       = string
    service_account = optional(string, "owlpost")
    audience        = optional(string, "sts.amazonaws.com")
  })
  default = null

  validation {
    condition     = var.oidc == null || !strcontains(try("${var.oidc.namespace}${var.oidc.service_account}", ""), "*")
    error_message = "The namespace and the service account by their names: with * any pod of the cluster could send mails."
  }
}

variable "pod_identity" {
  description = "Pods of an EKS cluster with the Pod Identity agent. cluster_arn: arn:aws:eks:REGION:ACCOUNT:cluster/NAME."
  type = object({
    cluster_arn     = string
    namespace       = string
    service_account = optional(string, "owlpost")
  })
  default = null

  validation {
    condition     = var.pod_identity == null || can(regex("^arn:[^:]+:eks:[^:]+:[0-9]{12}:cluster/[^/]+$", var.pod_identity.cluster_arn))
    error_message = "cluster_arn is arn:aws:eks:REGION:ACCOUNT:cluster/NAME: the trust policy names the account and the cluster."
  }
}

variable "trusted_role" {
  description = "A role of another account, for mailer.assume_role_arn; external_id as in mailer.external_id."
  type = object({
    arn         = string
    external_id = string
  })
  default = null
}

# ---- what

variable "identity_arns" {
  description = "SES identities to send as, also those of another account (mailer.identity_arn). In the sandbox: also the recipients'."
  type        = list(string)
  default     = []
}

variable "configuration_set_arns" {
  description = "Of mailer.configuration_set, and of the identity's default one."
  type        = list(string)
  default     = []
}

variable "from_addresses" {
  description = "Addresses that may stand in mailer.from; * is any run of characters. identity_arns needs at least one."
  type        = list(string)
  default     = []
}

variable "raw_content" {
  description = "As mailer.content: true for \"raw\", which is another right."
  type        = bool
  default     = false
}

variable "queue_arns" {
  description = "Queues to take events from."
  type        = list(string)
  default     = []
}

variable "measured_queue_arns" {
  description = "For a role of KEDA's operator: queues whose length it asks for."
  type        = list(string)
  default     = []
}

variable "msk" {
  description = "For a source with iam = true, and dead_letters likewise. cluster_arn as MSK tells it, arn:aws:kafka:REGION:ACCOUNT:cluster/NAME/UUID."
  type = object({
    cluster_arn       = string
    topics            = optional(list(string), [])
    group             = optional(string, "owlpost")
    dead_letter_topic = optional(string)
  })
  default = null

  validation {
    condition     = var.msk == null || can(regex(":cluster/[^/]+/[^/]+$", var.msk.cluster_arn))
    error_message = "cluster_arn ends in :cluster/NAME/UUID; topics and groups are named after it."
  }

  validation {
    condition     = var.msk == null || try(length(var.msk.topics) > 0 || var.msk.dead_letter_topic != null, true)
    error_message = "Give topics to read, dead_letter_topic, or both."
  }
}

variable "measured_msk" {
  description = "For a role of KEDA's operator: topics and the group whose lag it asks for."
  type = object({
    cluster_arn = string
    topics      = list(string)
    group       = optional(string, "owlpost")
  })
  default = null
}

variable "dead_letter_queue_arns" {
  description = "Queues for dead_letters.forward_to."
  type        = list(string)
  default     = []
}

variable "kms_key_arns" {
  description = "Keys of all these queues."
  type        = list(string)
  default     = []
}

variable "database_user_arns" {
  description = "For store.auth = \"iam\": arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE-ID/USER."
  type        = list(string)
  default     = []
}

variable "assume_role_arns" {
  description = "Roles of other accounts, for mailer.assume_role_arn or source.assume_role_arn."
  type        = list(string)
  default     = []
}

variable "permissions_boundary" {
  description = "ARN of the boundary that your organisation asks for."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}

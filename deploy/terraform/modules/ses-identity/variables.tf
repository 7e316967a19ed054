variable "domain" {
  description = "The domain of mailer.from, example.com."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.domain))
    error_message = "A domain name in lower case without a dot at its end, such as example.com; no mail address."
  }
}

variable "region" {
  description = "The Region that mails are sent from; the same as mailer.region."
  type        = string
}

variable "zone_id" {
  description = "The Route 53 zone of the domain; null: the records of dns_records are made elsewhere."
  type        = string
  default     = null
}

variable "mail_from_label" {
  description = "Bounces go to this label under the domain. Nothing else may use it."
  type        = string
  default     = "bounce"
}

variable "dmarc" {
  description = "The DMARC record; null if the domain has one. Begin with p=none, which only asks for reports."
  type        = string
  default     = "v=DMARC1; p=none;"

  validation {
    condition     = var.dmarc == null || startswith(coalesce(var.dmarc, "v=DMARC1;"), "v=DMARC1;")
    error_message = "A DMARC record begins with v=DMARC1;"
  }
}

variable "default_configuration_set" {
  description = "Used where the sender names none. Leave it null if other accounts send as this identity: SES refuses theirs then."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}

variable "name" {
  description = "Of the configuration set, as in mailer.configuration_set; topic and queue are named after it."
  type        = string
  default     = "owlpost"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,64}$", var.name))
    error_message = "Letters, digits, - and _, at most 64 of them."
  }
}

variable "require_tls" {
  description = "Mails to servers without TLS are not sent. With false they are, in plain text."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}

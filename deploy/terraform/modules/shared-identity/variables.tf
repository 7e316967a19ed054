variable "domain" {
  description = "The identity, example.com."
  type        = string
}

variable "identity_arn" {
  description = "Its ARN; the sender's mailer.identity_arn."
  type        = string
}

variable "sender_arns" {
  description = "Roles of other accounts. A role that is deleted and made again is another one for AWS: apply again then."
  type        = list(string)

  validation {
    condition     = length(var.sender_arns) > 0 && !contains(var.sender_arns, "*")
    error_message = "Name the roles (or accounts) that may send; with * everybody at AWS could send in your name."
  }
}

variable "from_addresses" {
  description = "Addresses that they may send as; * is any run of characters."
  type        = list(string)
}

variable "raw_content" {
  description = "As the sender's mailer.content: true for \"raw\", which is another right."
  type        = bool
  default     = false
}

variable "policy_name" {
  description = "Of the policy at the identity."
  type        = string
  default     = "owlpost"
}

variable "name" {
  description = "Of the queue; its dead-letter queue is NAME-dead."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,75}$", var.name))
    error_message = "Letters, digits, - and _, at most 75 of them; a FIFO queue is not made here."
  }
}

variable "producer_arns" {
  description = "Roles or accounts that may put events into it. Roles of the same account can have a policy of their own instead."
  type        = list(string)
  default     = []
}

variable "topic_arn" {
  description = "An SNS topic that may put messages into it."
  type        = string
  default     = null
}

variable "max_receive_count" {
  description = "So often a message may be received before it goes to the dead-letter queue. owlpost keeps bad input itself."
  type        = number
  default     = 5

  validation {
    condition     = var.max_receive_count >= 3
    error_message = "At least 3: a worker that is restarted twice would lose the message to the dead-letter queue."
  }
}

variable "kms_key_arn" {
  description = "A key of yours instead of SQS's own. SNS and the producers then need rights on it too."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}

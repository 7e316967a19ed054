variable "name" {
  description = "What the alarms' names begin with."
  type        = string
  default     = "owlpost"
}

variable "queue_names" {
  description = "Queues whose oldest message must not grow old: event-queue's name. Empty: no such alarm."
  type        = set(string)
  default     = []
}

variable "age_seconds" {
  description = "So old the oldest message may become. A worker that is scaled to zero takes its first message within a minute."
  type        = number
  default     = 900

  validation {
    condition     = var.age_seconds >= 300
    error_message = "At least 300 s: KEDA looks every 15 s, a pod starts, a node may have to start before."
  }
}

variable "dead_letter_queue_names" {
  description = "Queues that should be empty: event-queue's dead_letter_name. Empty: no such alarm."
  type        = set(string)
  default     = []
}

variable "reputation" {
  description = "Alarms on the account's bounce and complaint rates in SES, before AWS's own limits (5 % and 0.1 %). null: none."
  type = object({
    bounce_rate    = optional(number, 0.02)
    complaint_rate = optional(number, 0.0005)
  })
  default = null

  validation {
    condition     = var.reputation == null || try(max(var.reputation.bounce_rate, var.reputation.complaint_rate) < 1, true)
    error_message = "Rates are parts of 1: 0.02 is 2 %."
  }
}

variable "actions" {
  description = "ARNs that are told of it and of its end, such as an SNS topic's."
  type        = list(string)

  validation {
    condition     = length(var.actions) > 0
    error_message = "An alarm that tells nobody is none."
  }
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}

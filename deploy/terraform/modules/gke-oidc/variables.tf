variable "project" {
  description = "The Google Cloud project's id."
  type        = string
}

variable "location" {
  description = "The cluster's region or zone, europe-west1 or europe-west1-b."
  type        = string
}

variable "cluster" {
  description = "The cluster's name."
  type        = string
}

variable "audience" {
  description = "What the projected token is made for."
  type        = string
  default     = "sts.amazonaws.com"
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}

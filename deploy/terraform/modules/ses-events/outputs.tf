output "configuration_set" {
  description = "For mailer.configuration_set."
  value       = aws_sesv2_configuration_set.this.configuration_set_name
}

output "configuration_set_arn" {
  description = "For worker-role: sending needs a right on the configuration set too."
  value       = aws_sesv2_configuration_set.this.arn
}

output "topic_arn" {
  description = "Where SES publishes."
  value       = aws_sns_topic.events.arn
}

output "queue_arn" {
  description = "Where the events of the mails wait, for 14 days."
  value       = module.queue.arn
}

output "queue_url" {
  description = "The same queue by URL."
  value       = module.queue.url
}

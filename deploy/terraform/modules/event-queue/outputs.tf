output "arn" {
  description = "For worker-role, and source.queue."
  value       = aws_sqs_queue.this.arn
}

output "url" {
  description = "For source.queue_url, and KEDA's queueURL."
  value       = aws_sqs_queue.this.id
}

output "dead_letter_arn" {
  description = "Where messages go that were received too often."
  value       = aws_sqs_queue.dead.arn
}

output "name" {
  description = "For alarms."
  value       = aws_sqs_queue.this.name
}

output "dead_letter_name" {
  description = "For alarms: it should be empty."
  value       = aws_sqs_queue.dead.name
}

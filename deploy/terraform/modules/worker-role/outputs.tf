output "arn" {
  description = "IRSA: annotation eks.amazonaws.com/role-arn of the service account. GKE: AWS_ROLE_ARN. Role chain: mailer.assume_role_arn."
  value       = aws_iam_role.this.arn
}

output "name" {
  description = "To attach more to it."
  value       = aws_iam_role.this.name
}

output "policy" {
  description = "What it may do, as JSON."
  value       = aws_iam_role_policy.this.policy
}

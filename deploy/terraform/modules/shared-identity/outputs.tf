output "identity_arn" {
  description = "For mailer.identity_arn of the sender; only after the policy is there."
  value       = var.identity_arn
  depends_on  = [aws_sesv2_email_identity_policy.this]
}

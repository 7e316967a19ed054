output "arn" {
  description = "Of the identity; for worker-role, shared-identity, and mailer.identity_arn of another account."
  value       = aws_sesv2_email_identity.this.arn
}

output "domain" {
  description = "The domain, once the identity is there."
  value       = aws_sesv2_email_identity.this.email_identity
}

output "dns_records" {
  description = "All records that the domain needs."
  value = concat(local.plain_records, [
    for token in aws_sesv2_email_identity.this.dkim_signing_attributes[0].tokens :
    { name = "${token}._domainkey.${var.domain}", type = "CNAME", value = "${token}.dkim.amazonses.com" }
  ])
}

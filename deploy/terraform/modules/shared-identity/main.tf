# In the account that owns the identity: another account's role may send as it (SES's sending authorization). Quota, bounces
# and configuration set are then those of the sender's account; both have to be out of the sandbox.

resource "aws_sesv2_email_identity_policy" "this" {
  email_identity = var.domain
  policy_name    = var.policy_name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OwlpostOfAnotherAccount"
      Effect    = "Allow"
      Principal = { AWS = var.sender_arns }
      Action    = [var.raw_content ? "ses:SendRawEmail" : "ses:SendEmail"]
      Resource  = var.identity_arn
      Condition = { StringLike = { "ses:FromAddress" = var.from_addresses } }
    }]
  })
}

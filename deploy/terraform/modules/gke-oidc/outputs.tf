output "oidc" {
  description = "For worker-role, merged with namespace and service_account."
  value = {
    provider_arn = aws_iam_openid_connect_provider.this.arn
    issuer       = local.issuer
    audience     = var.audience
  }
}

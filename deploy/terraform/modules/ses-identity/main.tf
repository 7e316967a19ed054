# A domain that mails may come from: DKIM by SES, a MAIL FROM domain of its own so that SPF is aligned, and a DMARC record.
# With `zone_id` the records are made in Route 53; else `dns_records` says which somebody has to make elsewhere.

locals {
  mail_from_domain = "${var.mail_from_label}.${var.domain}"

  mail_from_records = [
    { name = local.mail_from_domain, type = "MX", value = "10 feedback-smtp.${var.region}.amazonses.com" },
    { name = local.mail_from_domain, type = "TXT", value = "v=spf1 include:amazonses.com ~all" },
  ]
  dmarc_records = var.dmarc == null ? [] : [
    { name = "_dmarc.${var.domain}", type = "TXT", value = var.dmarc },
  ]
  # Known before anything is made, so that they can be counted.
  plain_records = concat(local.mail_from_records, local.dmarc_records)
}

resource "aws_sesv2_email_identity" "this" {
  email_identity         = var.domain
  configuration_set_name = var.default_configuration_set
  tags                   = var.tags

  dkim_signing_attributes {
    next_signing_key_length = "RSA_2048_BIT"
  }
}

resource "aws_sesv2_email_identity_mail_from_attributes" "this" {
  email_identity   = aws_sesv2_email_identity.this.email_identity
  mail_from_domain = local.mail_from_domain
  # Mails leave before the records are known everywhere, then from amazonses.com.
  behavior_on_mx_failure = "USE_DEFAULT_VALUE"
}

# Three tokens, always. Their values are known after the identity is made, their number before.
resource "aws_route53_record" "dkim" {
  count = var.zone_id == null ? 0 : 3

  zone_id = var.zone_id
  name    = "${aws_sesv2_email_identity.this.dkim_signing_attributes[0].tokens[count.index]}._domainkey.${var.domain}"
  type    = "CNAME"
  ttl     = 1800
  records = ["${aws_sesv2_email_identity.this.dkim_signing_attributes[0].tokens[count.index]}.dkim.amazonses.com"]
}

resource "aws_route53_record" "plain" {
  for_each = var.zone_id == null ? {} : { for record in local.plain_records : "${record.type} ${record.name}" => record }

  zone_id = var.zone_id
  name    = each.value.name
  type    = each.value.type
  ttl     = 1800
  records = [each.value.value]
}

mock_provider "aws" {
  mock_resource "aws_sesv2_email_identity" {
    defaults = {
      dkim_signing_attributes = { tokens = ["one", "two", "three"] }
    }
  }
}

variables {
  domain = "example.com"
  region = "eu-west-1"
}

run "without_a_zone_the_records_are_told" {
  assert {
    condition     = length(aws_route53_record.dkim) == 0 && length(aws_route53_record.plain) == 0
    error_message = "There is no zone to make records in."
  }

  assert {
    condition     = contains(output.dns_records, { name = "bounce.example.com", type = "MX", value = "10 feedback-smtp.eu-west-1.amazonses.com" })
    error_message = "The MAIL FROM domain needs its MX record."
  }

  assert {
    condition     = contains([for r in output.dns_records : r.name], "_dmarc.example.com")
    error_message = "The DMARC record is missing."
  }
}

run "with_a_zone_they_are_made" {
  variables {
    zone_id = "Z0123456789"
  }

  assert {
    condition     = aws_route53_record.dkim[2].name == "three._domainkey.example.com" && aws_route53_record.dkim[2].records == toset(["three.dkim.amazonses.com"])
    error_message = "DKIM needs a record for each token."
  }

  assert {
    condition     = toset(keys(aws_route53_record.plain)) == toset(["MX bounce.example.com", "TXT bounce.example.com", "TXT _dmarc.example.com"])
    error_message = "MAIL FROM and DMARC need their records."
  }
}

run "a_domain_that_has_dmarc_keeps_it" {
  variables {
    dmarc = null
  }

  assert {
    condition     = !contains([for r in output.dns_records : r.name], "_dmarc.example.com")
    error_message = "A second DMARC record makes both count for nothing."
  }
}

run "an_address_is_no_domain" {
  command = plan

  variables {
    domain = "access@example.com"
  }

  expect_failures = [var.domain]
}

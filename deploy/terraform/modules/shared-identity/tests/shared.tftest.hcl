mock_provider "aws" {}

variables {
  domain         = "example.com"
  identity_arn   = "arn:aws:ses:eu-west-1:444455556666:identity/example.com"
  from_addresses = ["access@example.com"]
}

run "one_role_may_send_from_one_address" {
  command = plan

  variables {
    sender_arns = ["arn:aws:iam::111122223333:role/owlpost"]
  }

  assert {
    condition     = jsondecode(aws_sesv2_email_identity_policy.this.policy).Statement[0].Principal.AWS == ["arn:aws:iam::111122223333:role/owlpost"]
    error_message = "Somebody else may send."
  }

  assert {
    condition     = jsondecode(aws_sesv2_email_identity_policy.this.policy).Statement[0].Action == ["ses:SendEmail"]
    error_message = "It is more than the sender calls."
  }

  assert {
    condition     = jsondecode(aws_sesv2_email_identity_policy.this.policy).Statement[0].Condition == { StringLike = { "ses:FromAddress" = ["access@example.com"] } }
    error_message = "It may send from another address."
  }
}

run "raw_content_is_another_right" {
  command = plan

  variables {
    sender_arns = ["arn:aws:iam::111122223333:role/owlpost"]
    raw_content = true
  }

  assert {
    condition     = jsondecode(aws_sesv2_email_identity_policy.this.policy).Statement[0].Action == ["ses:SendRawEmail"]
    error_message = "mailer.content = \"raw\" is authorised as ses:SendRawEmail."
  }
}

run "everybody_is_refused" {
  command = plan

  variables {
    sender_arns = ["*"]
  }

  expect_failures = [var.sender_arns]
}

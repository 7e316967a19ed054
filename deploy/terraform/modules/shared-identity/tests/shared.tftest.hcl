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
}

run "everybody_is_refused" {
  command = plan

  variables {
    sender_arns = ["*"]
  }

  expect_failures = [var.sender_arns]
}

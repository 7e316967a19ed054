mock_provider "aws" {
  mock_resource "aws_sqs_queue" {
    defaults = {
      arn = "arn:aws:sqs:eu-west-1:111122223333:athenz-events"
    }
  }
}

variables {
  name = "athenz-events"
}

run "a_message_that_is_received_too_often_leaves" {
  assert {
    condition     = jsondecode(aws_sqs_queue.this.redrive_policy).maxReceiveCount == 5
    error_message = "5 receives, as config/sqs.toml says."
  }

  assert {
    condition     = aws_sqs_queue.this.sqs_managed_sse_enabled && aws_sqs_queue.dead.sqs_managed_sse_enabled
    error_message = "Both are encrypted."
  }

  assert {
    condition     = [for s in jsondecode(aws_sqs_queue_policy.this.policy).Statement : s.Sid] == ["NothingInPlainText"]
    error_message = "Nobody else was given a right."
  }
}

run "producers_may_send_and_not_read" {
  variables {
    producer_arns = ["arn:aws:iam::444455556666:role/zms"]
  }

  assert {
    condition = alltrue([
      for s in jsondecode(aws_sqs_queue_policy.this.policy).Statement :
      s.Effect == "Deny" || !contains(s.Action, "sqs:ReceiveMessage")
    ])
    error_message = "A producer can read."
  }
}

run "too_few_receives_are_refused" {
  command = plan

  variables {
    max_receive_count = 1
  }

  expect_failures = [var.max_receive_count]
}

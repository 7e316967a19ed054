mock_provider "aws" {}

variables {
  actions = ["arn:aws:sns:eu-west-1:111122223333:on-call"]
}

run "without_a_queue_and_reputation_there_is_no_alarm" {
  command = plan

  assert {
    condition     = length(output.names) == 0
    error_message = "Nobody asked for it."
  }
}

run "a_queue_that_nobody_empties_is_told_of" {
  command = plan

  variables {
    queue_names             = ["athenz-events"]
    dead_letter_queue_names = ["athenz-events-dead"]
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.age["athenz-events"].dimensions == tomap({ QueueName = "athenz-events" })
    error_message = "It looks at another queue."
  }

  assert {
    condition = alltrue([
      aws_cloudwatch_metric_alarm.age["athenz-events"].metric_name == "ApproximateAgeOfOldestMessage",
      aws_cloudwatch_metric_alarm.age["athenz-events"].threshold == 900,
      aws_cloudwatch_metric_alarm.age["athenz-events"].treat_missing_data == "notBreaching",
    ])
    error_message = "An empty queue must be silent, an old message not."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.dead["athenz-events-dead"].threshold == 0
    error_message = "The first dead letter is one too many."
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.reputation) == 0
    error_message = "Reputation was not asked for."
  }
}

run "reputation_is_told_of_before_aws_acts" {
  command = plan

  variables {
    reputation = {}
  }

  assert {
    condition = alltrue([
      aws_cloudwatch_metric_alarm.reputation["bounce"].metric_name == "Reputation.BounceRate",
      aws_cloudwatch_metric_alarm.reputation["bounce"].threshold < 0.05,
      aws_cloudwatch_metric_alarm.reputation["complaint"].metric_name == "Reputation.ComplaintRate",
      aws_cloudwatch_metric_alarm.reputation["complaint"].threshold < 0.001,
    ])
    error_message = "AWS reviews an account from 5 % bounces and 0.1 % complaints on."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.reputation["bounce"].alarm_actions == toset(["arn:aws:sns:eu-west-1:111122223333:on-call"])
    error_message = "Nobody is told."
  }
}

run "percents_are_refused" {
  command = plan

  variables {
    reputation = { bounce_rate = 5 }
  }

  expect_failures = [var.reputation]
}

run "an_alarm_that_tells_nobody_is_refused" {
  command = plan

  variables {
    actions = []
  }

  expect_failures = [var.actions]
}

run "an_age_that_a_start_from_zero_reaches_is_refused" {
  command = plan

  variables {
    age_seconds = 60
  }

  expect_failures = [var.age_seconds]
}

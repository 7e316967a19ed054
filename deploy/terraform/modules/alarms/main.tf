# What CloudWatch can see while no pod of owlpost runs, or none has been asked by Prometheus: queues that nobody empties, and what
# mailboxes and their owners think of the account's mails. Each alarm is optional.

resource "aws_cloudwatch_metric_alarm" "age" {
  for_each = var.queue_names

  alarm_name        = "${var.name}-${each.value}-age"
  alarm_description = "The oldest message of ${each.value} has waited for more than ${var.age_seconds} s: nobody takes any, or more is put in than is taken out. Nothing is lost before the queue's retention."
  namespace         = "AWS/SQS"
  metric_name       = "ApproximateAgeOfOldestMessage"
  dimensions        = { QueueName = each.value }

  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.age_seconds
  # SQS says nothing of a queue that has been empty for hours.
  treat_missing_data = "notBreaching"

  alarm_actions = var.actions
  ok_actions    = var.actions
  tags          = var.tags
}

resource "aws_cloudwatch_metric_alarm" "dead" {
  for_each = var.dead_letter_queue_names

  alarm_name        = "${var.name}-${each.value}-depth"
  alarm_description = "Messages lie in ${each.value}: each is an event that nobody will hear of. Look at them, mend what kept them from being taken, and redrive."
  namespace         = "AWS/SQS"
  metric_name       = "ApproximateNumberOfMessagesVisible"
  dimensions        = { QueueName = each.value }

  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"

  alarm_actions = var.actions
  ok_actions    = var.actions
  tags          = var.tags
}

# Rates of the whole account in this Region, whoever sends from it. SES counts them over what it takes for a representative
# volume, and says nothing where nothing is sent.
locals {
  reputation = var.reputation == null ? {} : {
    bounce = {
      metric    = "Reputation.BounceRate"
      threshold = var.reputation.bounce_rate
      told      = "From 5 % on AWS reviews the account, from 10 % on it may stop it: find the addresses that do not exist."
    }
    complaint = {
      metric    = "Reputation.ComplaintRate"
      threshold = var.reputation.complaint_rate
      told      = "From 0.1 % on AWS reviews the account, from 0.5 % on it may stop it: people call these mails spam."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "reputation" {
  for_each = local.reputation

  alarm_name        = "${var.name}-ses-${each.key}"
  alarm_description = "The account's ${each.key} rate in SES is above ${each.value.threshold * 100} %. ${each.value.told}"
  namespace         = "AWS/SES"
  metric_name       = each.value.metric

  statistic           = "Average"
  period              = 3600
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  # As it was, until SES says something new.
  treat_missing_data = "ignore"

  alarm_actions = var.actions
  ok_actions    = var.actions
  tags          = var.tags
}

# What became of each mail: configuration set -> SNS topic -> SQS queue. SES can't write into a queue itself.

locals {
  account_id = split(":", aws_sesv2_configuration_set.this.arn)[4]
}

resource "aws_sesv2_configuration_set" "this" {
  configuration_set_name = var.name
  tags                   = var.tags

  delivery_options {
    tls_policy = var.require_tls ? "REQUIRE" : "OPTIONAL"
  }

  reputation_options {
    reputation_metrics_enabled = true
  }

  suppression_options {
    suppressed_reasons = ["BOUNCE", "COMPLAINT"]
  }
}

resource "aws_sns_topic" "events" {
  name = "${var.name}-ses-events"
  tags = var.tags
}

resource "aws_sns_topic_policy" "events" {
  arn = aws_sns_topic.events.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyThisConfigurationSet"
      Effect    = "Allow"
      Principal = { Service = "ses.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.events.arn
      Condition = {
        StringEquals = {
          "AWS:SourceAccount" = local.account_id
          "AWS:SourceArn"     = aws_sesv2_configuration_set.this.arn
        }
      }
    }]
  })
}

module "queue" {
  source = "../event-queue"

  name      = "${var.name}-ses-events"
  topic_arn = aws_sns_topic.events.arn
  tags      = var.tags
}

resource "aws_sns_topic_subscription" "events" {
  topic_arn = aws_sns_topic.events.arn
  protocol  = "sqs"
  endpoint  = module.queue.arn
  # The event itself, without SNS's envelope around it.
  raw_message_delivery = true
}

resource "aws_sesv2_configuration_set_event_destination" "events" {
  configuration_set_name = aws_sesv2_configuration_set.this.configuration_set_name
  event_destination_name = "owlpost"

  event_destination {
    enabled = true
    # Opens and clicks are nobody's business.
    matching_event_types = ["SEND", "DELIVERY", "BOUNCE", "COMPLAINT", "REJECT", "DELIVERY_DELAY", "RENDERING_FAILURE"]

    sns_destination {
      topic_arn = aws_sns_topic.events.arn
    }
  }

  # SES tries the topic when the destination is made; nobody would read what it says before the subscription.
  depends_on = [aws_sns_topic_policy.events, aws_sns_topic_subscription.events]
}

mock_provider "aws" {
  mock_resource "aws_sesv2_configuration_set" {
    defaults = {
      arn = "arn:aws:ses:eu-west-1:111122223333:configuration-set/owlpost"
    }
  }
  mock_resource "aws_sns_topic" {
    defaults = {
      arn = "arn:aws:sns:eu-west-1:111122223333:owlpost-ses-events"
    }
  }
}

run "only_this_configuration_set_may_publish" {
  assert {
    condition = jsondecode(aws_sns_topic_policy.events.policy).Statement[0].Condition.StringEquals == {
      "AWS:SourceAccount" = "111122223333"
      "AWS:SourceArn"     = "arn:aws:ses:eu-west-1:111122223333:configuration-set/owlpost"
    }
    error_message = "Another account could publish."
  }

  assert {
    condition     = !contains(tolist(aws_sesv2_configuration_set_event_destination.events.event_destination[0].matching_event_types), "OPEN")
    error_message = "Who opens a mail is nobody's business."
  }
}

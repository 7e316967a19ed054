mock_provider "aws" {}

variables {
  identity_arns          = ["arn:aws:ses:eu-west-1:111122223333:identity/example.com"]
  configuration_set_arns = ["arn:aws:ses:eu-west-1:111122223333:configuration-set/owlpost"]
  from_addresses         = ["access@example.com"]
}

run "irsa_trusts_one_service_account_of_one_cluster" {
  command = plan

  variables {
    oidc = {
      provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"
      issuer       = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"
      namespace    = "owlpost"
    }
  }

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Sid       = "TheWorkersServiceAccount"
      Effect    = "Allow"
      Principal = { Federated = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE" }
      Action    = ["sts:AssumeRoleWithWebIdentity"]
      Condition = {
        StringEquals = {
          "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE:aud" = "sts.amazonaws.com"
          "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE:sub" = "system:serviceaccount:owlpost:owlpost"
        }
      }
    }]
    error_message = "The trust policy is another one."
  }

  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 0
    error_message = "IRSA needs no association."
  }
}

run "pod_identity_trusts_one_service_account_of_one_cluster_of_one_account" {
  command = plan

  variables {
    pod_identity = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
  }

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Sid       = "EksPodIdentity"
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:SourceAccount"                         = "111122223333"
          "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-west-1:111122223333:cluster/production"
          "aws:RequestTag/kubernetes-namespace"       = "owlpost"
          "aws:RequestTag/kubernetes-service-account" = "owlpost"
        }
      }
    }]
    error_message = "Pods of other clusters or accounts may take it on."
  }

  assert {
    condition     = aws_eks_pod_identity_association.this[0].cluster_name == "production"
    error_message = "The association is with another cluster."
  }
}

run "a_cluster_of_pod_identity_that_is_no_arn_is_refused" {
  command = plan

  variables {
    pod_identity = { cluster_arn = "production", namespace = "owlpost" }
  }

  expect_failures = [var.pod_identity]
}

run "sending_as_whoever_is_refused" {
  command = plan

  variables {
    pod_identity   = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    from_addresses = []
  }

  expect_failures = [aws_iam_role_policy.this]
}

run "a_key_is_only_opened_where_messages_are_only_taken" {
  command = plan

  variables {
    pod_identity  = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    identity_arns = []
    queue_arns    = ["arn:aws:sqs:eu-west-1:111122223333:athenz-events"]
    kms_key_arns  = ["arn:aws:kms:eu-west-1:111122223333:key/a1b2c3d4"]
  }

  assert {
    condition = [for s in jsondecode(aws_iam_role_policy.this.policy).Statement : { action = s.Action, resource = s.Resource } if s.Sid == "Keys"] == [
      { action = ["kms:Decrypt"], resource = ["arn:aws:kms:eu-west-1:111122223333:key/a1b2c3d4"] },
    ]
    error_message = "It may make data keys, and sends nothing."
  }
}

run "a_key_makes_data_keys_where_dead_letters_are_sent" {
  command = plan

  variables {
    pod_identity           = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    identity_arns          = []
    dead_letter_queue_arns = ["arn:aws:sqs:eu-west-1:111122223333:owlpost-dead-letters"]
    kms_key_arns           = ["arn:aws:kms:eu-west-1:111122223333:key/a1b2c3d4"]
  }

  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.this.policy).Statement : s.Action if s.Sid == "Keys"] == [["kms:Decrypt", "kms:GenerateDataKey"]]
    error_message = "SQS could not encrypt what it sends."
  }
}

run "sending_needs_the_configuration_set_too_and_no_other_right" {
  command = plan

  variables {
    pod_identity = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this.policy).Statement == [
      {
        Sid    = "Send"
        Effect = "Allow"
        Action = ["ses:SendEmail"]
        Resource = [
          "arn:aws:ses:eu-west-1:111122223333:identity/example.com",
          "arn:aws:ses:eu-west-1:111122223333:configuration-set/owlpost",
        ]
        Condition = { StringLike = { "ses:FromAddress" = ["access@example.com"] } }
      },
      {
        Sid      = "Quota"
        Effect   = "Allow"
        Action   = ["ses:GetAccount"]
        Resource = "*"
      },
      {
        Sid    = "Check"
        Effect = "Allow"
        Action = ["ses:GetEmailIdentity", "ses:GetConfigurationSet"]
        Resource = [
          "arn:aws:ses:eu-west-1:111122223333:identity/example.com",
          "arn:aws:ses:eu-west-1:111122223333:configuration-set/owlpost",
        ]
      },
    ]
    error_message = "The rights are others."
  }

  assert {
    condition     = aws_eks_pod_identity_association.this[0].service_account == "owlpost"
    error_message = "Pod Identity needs an association."
  }
}

run "raw_content_is_another_right" {
  command = plan

  variables {
    pod_identity = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    raw_content  = true
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[0].Action == ["ses:SendRawEmail"]
    error_message = "mailer.content = \"raw\" is authorised as ses:SendRawEmail."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[0].Condition == { StringLike = { "ses:FromAddress" = ["access@example.com"] } }
    error_message = "Any sender may stand in a raw mail."
  }
}

run "a_role_of_another_account_must_say_the_external_id" {
  command = plan

  variables {
    trusted_role = { arn = "arn:aws:iam::444455556666:role/owlpost", external_id = "production" }
  }

  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Condition.StringEquals["sts:ExternalId"] == "production"
    error_message = "Without the external id any confused deputy may come."
  }
}

run "a_role_that_nobody_may_take_on_is_refused" {
  command         = plan
  expect_failures = [aws_iam_role.this]
}

run "two_ways_at_once_are_refused" {
  command = plan

  variables {
    pod_identity = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    trusted_role = { arn = "arn:aws:iam::444455556666:role/owlpost", external_id = "production" }
  }

  expect_failures = [aws_iam_role.this]
}

run "every_pod_of_the_cluster_is_refused" {
  command = plan

  variables {
    oidc = {
      provider_arn    = "arn:aws:iam::111122223333:oidc-provider/issuer.example.com"
      issuer          = "https://issuer.example.com"
      namespace       = "owlpost"
      service_account = "*"
    }
  }

  expect_failures = [var.oidc]
}

run "a_role_without_a_right_is_refused" {
  command = plan

  variables {
    pod_identity  = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    identity_arns = []
  }

  expect_failures = [aws_iam_role_policy.this]
}

run "keda_may_look_at_a_queue_and_not_into_it" {
  command = plan

  variables {
    pod_identity        = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "keda", service_account = "keda-operator" }
    identity_arns       = []
    measured_queue_arns = ["arn:aws:sqs:eu-west-1:111122223333:athenz-events"]
  }

  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.this.policy).Statement : s.Action] == [["sqs:GetQueueAttributes"]]
    error_message = "KEDA needs no more than the queue's length."
  }
}

run "msk_gives_the_topics_and_the_group_and_no_other" {
  command = plan

  variables {
    pod_identity  = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    identity_arns = []
    msk = {
      cluster_arn = "arn:aws:kafka:eu-west-1:111122223333:cluster/events/0a1b2c"
      topics      = ["athenz-events"]
    }
  }

  assert {
    condition = [for s in jsondecode(aws_iam_role_policy.this.policy).Statement : jsonencode(s.Resource)] == [
      jsonencode("arn:aws:kafka:eu-west-1:111122223333:cluster/events/0a1b2c"),
      jsonencode(["arn:aws:kafka:eu-west-1:111122223333:topic/events/0a1b2c/athenz-events"]),
      jsonencode("arn:aws:kafka:eu-west-1:111122223333:group/events/0a1b2c/owlpost"),
    ]
    error_message = "Other topics or groups are open to it."
  }
}

run "dead_letters_are_written_to_their_topic_and_no_other" {
  command = plan

  variables {
    pod_identity  = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    identity_arns = []
    msk = {
      cluster_arn       = "arn:aws:kafka:eu-west-1:111122223333:cluster/events/0a1b2c"
      topics            = ["athenz-events"]
      dead_letter_topic = "owlpost-dead-letters"
    }
  }

  assert {
    condition = [
      for s in jsondecode(aws_iam_role_policy.this.policy).Statement : jsonencode(s.Resource)
      if contains(s.Action, "kafka-cluster:WriteData")
    ] == [jsonencode("arn:aws:kafka:eu-west-1:111122223333:topic/events/0a1b2c/owlpost-dead-letters")]
    error_message = "Other topics can be written to, or not even this one."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.this.policy).Statement[0].Action == ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"]
    error_message = "The idempotent producer is a right on the cluster."
  }
}

run "a_role_that_only_forwards_reads_nothing" {
  command = plan

  variables {
    pod_identity  = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    identity_arns = []
    msk = {
      cluster_arn       = "arn:aws:kafka:eu-west-1:111122223333:cluster/events/0a1b2c"
      dead_letter_topic = "owlpost-dead-letters"
    }
  }

  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.this.policy).Statement : s.Sid] == ["Cluster", "DeadLetters"]
    error_message = "It has a right to read."
  }
}

run "keda_may_look_at_a_groups_lag_and_read_nothing" {
  command = plan

  variables {
    pod_identity  = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "keda", service_account = "keda-operator" }
    identity_arns = []
    measured_msk = {
      cluster_arn = "arn:aws:kafka:eu-west-1:111122223333:cluster/events/0a1b2c"
      topics      = ["athenz-events"]
    }
  }

  assert {
    condition = flatten([for s in jsondecode(aws_iam_role_policy.this.policy).Statement : s.Action]) == [
      "kafka-cluster:Connect", "kafka-cluster:DescribeTopic", "kafka-cluster:DescribeGroup",
    ]
    error_message = "KEDA needs no more than to describe topic and group."
  }
}

run "a_cluster_that_is_no_arn_is_refused" {
  command = plan

  variables {
    pod_identity = { cluster_arn = "arn:aws:eks:eu-west-1:111122223333:cluster/production", namespace = "owlpost" }
    msk          = { cluster_arn = "events", topics = ["athenz-events"] }
  }

  expect_failures = [var.msk]
}

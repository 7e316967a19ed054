# The role of the worker: who may take it on, and what it may do. Nothing but what owlpost calls.

locals {
  # Without the scheme: the prefix of the token's claims in a trust policy.
  issuer = var.oidc == null ? "" : trimprefix(var.oidc.issuer, "https://")

  # A pod with a token of its cluster: IRSA on EKS, web identity on GKE and anywhere else.
  trust_oidc = var.oidc == null ? [] : [jsonencode({
    Sid       = "TheWorkersServiceAccount"
    Effect    = "Allow"
    Principal = { Federated = var.oidc.provider_arn }
    Action    = ["sts:AssumeRoleWithWebIdentity"]
    Condition = {
      StringEquals = {
        "${local.issuer}:aud" = var.oidc.audience
        "${local.issuer}:sub" = "system:serviceaccount:${var.oidc.namespace}:${var.oidc.service_account}"
      }
    }
  })]

  # What the ARN of the cluster says: arn:aws:eks:REGION:ACCOUNT:cluster/NAME.
  cluster = var.pod_identity == null ? null : {
    account = split(":", var.pod_identity.cluster_arn)[4]
    name    = split("/", var.pod_identity.cluster_arn)[1]
  }

  # The service asks for every cluster there is, in every account: the tags are what it says of the pod.
  trust_pod_identity = var.pod_identity == null ? [] : [jsonencode({
    Sid       = "EksPodIdentity"
    Effect    = "Allow"
    Principal = { Service = "pods.eks.amazonaws.com" }
    Action    = ["sts:AssumeRole", "sts:TagSession"]
    Condition = {
      StringEquals = {
        "aws:SourceAccount"                         = local.cluster.account
        "aws:RequestTag/eks-cluster-arn"            = var.pod_identity.cluster_arn
        "aws:RequestTag/kubernetes-namespace"       = var.pod_identity.namespace
        "aws:RequestTag/kubernetes-service-account" = var.pod_identity.service_account
      }
    }
  })]

  # A role of another account: mailer.assume_role_arn, with mailer.external_id.
  trust_role = var.trusted_role == null ? [] : [jsonencode({
    Sid       = "ARoleOfAnotherAccount"
    Effect    = "Allow"
    Principal = { AWS = var.trusted_role.arn }
    Action    = ["sts:AssumeRole"]
    Condition = { StringEquals = { "sts:ExternalId" = var.trusted_role.external_id } }
  })]

  trust = concat(local.trust_oidc, local.trust_pod_identity, local.trust_role)

  # Sending needs the right on the identity and on the configuration set, each by itself.
  send = length(var.identity_arns) == 0 ? [] : [jsonencode({
    Sid       = "Send"
    Effect    = "Allow"
    Action    = [var.raw_content ? "ses:SendRawEmail" : "ses:SendEmail"]
    Resource  = concat(var.identity_arns, var.configuration_set_arns)
    Condition = { StringLike = { "ses:FromAddress" = var.from_addresses } }
  })]

  # It knows no resource.
  account = length(var.identity_arns) == 0 ? [] : [jsonencode({
    Sid      = "Quota"
    Effect   = "Allow"
    Action   = ["ses:GetAccount"]
    Resource = "*"
  })]

  # For `owlpost check --live` alone.
  check = length(var.identity_arns) == 0 ? [] : [jsonencode({
    Sid      = "Check"
    Effect   = "Allow"
    Action   = ["ses:GetEmailIdentity", "ses:GetConfigurationSet"]
    Resource = concat(var.identity_arns, var.configuration_set_arns)
  })]

  consume = length(var.queue_arns) == 0 ? [] : [jsonencode({
    Sid    = "Take"
    Effect = "Allow"
    Action = [
      "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:GetQueueUrl",
    ]
    Resource = var.queue_arns
  })]

  # KEDA's own role, where it scales by a queue.
  measure = length(var.measured_queue_arns) == 0 ? [] : [jsonencode({
    Sid      = "Measure"
    Effect   = "Allow"
    Action   = ["sqs:GetQueueAttributes"]
    Resource = var.measured_queue_arns
  })]

  # Amazon MSK with iam = true: a member of a group, and nothing else; dead letters go to a topic of its own.
  kafka = var.msk == null ? [] : concat(
    [jsonencode({
      Sid    = "Cluster"
      Effect = "Allow"
      # The producer of dead letters is idempotent.
      Action   = concat(["kafka-cluster:Connect"], var.msk.dead_letter_topic == null ? [] : ["kafka-cluster:WriteDataIdempotently"])
      Resource = var.msk.cluster_arn
    })],
    length(var.msk.topics) == 0 ? [] : [
      jsonencode({
        Sid      = "Topics"
        Effect   = "Allow"
        Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"]
        Resource = [for topic in var.msk.topics : "${replace(var.msk.cluster_arn, ":cluster/", ":topic/")}/${topic}"]
      }),
      jsonencode({
        Sid      = "Group"
        Effect   = "Allow"
        Action   = ["kafka-cluster:DescribeGroup", "kafka-cluster:AlterGroup"]
        Resource = "${replace(var.msk.cluster_arn, ":cluster/", ":group/")}/${var.msk.group}"
      }),
    ],
    var.msk.dead_letter_topic == null ? [] : [jsonencode({
      Sid      = "DeadLetters"
      Effect   = "Allow"
      Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:WriteData"]
      Resource = "${replace(var.msk.cluster_arn, ":cluster/", ":topic/")}/${var.msk.dead_letter_topic}"
    })],
  )

  # KEDA's own role, where it scales by a group's lag: it looks, and reads nothing.
  measure_kafka = var.measured_msk == null ? [] : [
    jsonencode({
      Sid      = "MeasuredCluster"
      Effect   = "Allow"
      Action   = ["kafka-cluster:Connect"]
      Resource = var.measured_msk.cluster_arn
    }),
    jsonencode({
      Sid      = "MeasuredTopics"
      Effect   = "Allow"
      Action   = ["kafka-cluster:DescribeTopic"]
      Resource = [for topic in var.measured_msk.topics : "${replace(var.measured_msk.cluster_arn, ":cluster/", ":topic/")}/${topic}"]
    }),
    jsonencode({
      Sid      = "MeasuredGroup"
      Effect   = "Allow"
      Action   = ["kafka-cluster:DescribeGroup"]
      Resource = "${replace(var.measured_msk.cluster_arn, ":cluster/", ":group/")}/${var.measured_msk.group}"
    }),
  ]

  forward = length(var.dead_letter_queue_arns) == 0 ? [] : [jsonencode({
    Sid      = "ForwardDeadLetters"
    Effect   = "Allow"
    Action   = ["sqs:SendMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
    Resource = var.dead_letter_queue_arns
  })]

  # SQS asks for a new data key in the sender's name; who only takes messages opens what others have closed.
  keys = length(var.kms_key_arns) == 0 ? [] : [jsonencode({
    Sid      = "Keys"
    Effect   = "Allow"
    Action   = concat(["kms:Decrypt"], length(var.dead_letter_queue_arns) == 0 ? [] : ["kms:GenerateDataKey"])
    Resource = var.kms_key_arns
  })]

  database = length(var.database_user_arns) == 0 ? [] : [jsonencode({
    Sid      = "Database"
    Effect   = "Allow"
    Action   = ["rds-db:connect"]
    Resource = var.database_user_arns
  })]

  assume = length(var.assume_role_arns) == 0 ? [] : [jsonencode({
    Sid      = "RolesOfOtherAccounts"
    Effect   = "Allow"
    Action   = ["sts:AssumeRole"]
    Resource = var.assume_role_arns
  })]

  statements = concat(
    local.send, local.account, local.check, local.consume, local.measure, local.kafka, local.measure_kafka, local.forward,
    local.keys, local.database, local.assume,
  )
}

resource "aws_iam_role" "this" {
  name                 = var.name
  description          = "owlpost: sends mails, takes events"
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.trust : jsondecode(statement)]
  })

  lifecycle {
    precondition {
      condition     = length(local.trust) == 1
      error_message = "Give exactly one of oidc (IRSA, GKE), pod_identity and trusted_role."
    }
  }
}

resource "aws_iam_role_policy" "this" {
  name = "owlpost"
  role = aws_iam_role.this.name
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.statements : jsondecode(statement)]
  })

  lifecycle {
    precondition {
      condition     = length(local.statements) > 0
      error_message = "A role without a right: give identity_arns, queue_arns, msk, assume_role_arns, or what KEDA measures."
    }

    precondition {
      condition     = length(var.identity_arns) == 0 || length(var.from_addresses) > 0
      error_message = "identity_arns needs from_addresses: the addresses of mailer.from, or *@example.com for all of a domain."
    }
  }
}

resource "aws_eks_pod_identity_association" "this" {
  count = var.pod_identity == null ? 0 : 1

  cluster_name    = local.cluster.name
  namespace       = var.pod_identity.namespace
  service_account = var.pod_identity.service_account
  role_arn        = aws_iam_role.this.arn
  tags            = var.tags
}

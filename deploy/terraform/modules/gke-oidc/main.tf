# AWS trusts the tokens of a GKE cluster. The issuer follows from three names, so nothing of the cluster has to be there, and
# nothing at Google needs anything from here: the pods only name the role's ARN, which follows from account and name. Each side
# can be made first, and made anew without the other.

locals {
  issuer = "https://container.googleapis.com/v1/projects/${var.project}/locations/${var.location}/clusters/${var.cluster}"
}

resource "aws_iam_openid_connect_provider" "this" {
  url            = local.issuer
  client_id_list = [var.audience]
  tags           = var.tags
}

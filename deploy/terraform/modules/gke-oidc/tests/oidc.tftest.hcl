mock_provider "aws" {}

run "the_issuer_follows_from_three_names" {
  variables {
    project  = "my-project"
    location = "europe-west1"
    cluster  = "production"
  }

  assert {
    condition     = aws_iam_openid_connect_provider.this.url == "https://container.googleapis.com/v1/projects/my-project/locations/europe-west1/clusters/production"
    error_message = "The tokens of the cluster name another issuer."
  }
}

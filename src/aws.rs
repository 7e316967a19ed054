//! Who we are at AWS: region and credentials as every AWS tool finds them (environment, profile, web identity,
//! container, instance), and a role assumed on top of them.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;

use credentials::Checked;

mod credentials;
pub mod presign;
pub mod queue;
pub mod rds;
pub mod trouble;

/// What a section of the configuration says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `None`: what the environment or the profile says.
    pub region: Option<String>,
    pub assume_role_arn: Option<String>,
    pub external_id: Option<String>,
}

impl Identity {
    /// Reaches nobody yet: credentials are fetched with the first call, and again when they end.
    pub async fn load(&self) -> SdkConfig {
        // A pinned version: what an upgrade of the SDK changes must not change how calls are made.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
        if let Some(region) = &self.region {
            loader = loader.region(aws_config::Region::new(region.clone()));
        }
        let shared = checked(loader.load().await);
        let Some(arn) = &self.assume_role_arn else { return shared };
        let mut role = aws_config::sts::AssumeRoleProvider::builder(arn).session_name("owlpost").configure(&shared);
        if let Some(id) = &self.external_id {
            role = role.external_id(id);
        }
        let role = SharedCredentialsProvider::new(role.build().await);
        shared.into_builder().credentials_provider(role).build()
    }
}

fn checked(shared: SdkConfig) -> SdkConfig {
    let Some(found) = shared.credentials_provider() else { return shared };
    shared.into_builder().credentials_provider(SharedCredentialsProvider::new(Checked(found))).build()
}

//! What makes a broker take the tokens that Amazon MSK takes.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::java::jars;

/// Of OAUTHBEARER, with a check of the token that is compiled into the broker's folder.
pub const SETTINGS: &str = "\
listener.name.sasl_ssl.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class=SignedUrls
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
";

/// Who may sign in.
#[derive(Clone, Copy)]
pub struct Msk {
    pub region: &'static str,
    pub key: &'static str,
    pub secret: &'static str,
    pub session: &'static str,
}

impl Msk {
    /// Puts the check there, and what it knows.
    pub fn fill(&self, folder: &Path) {
        let Msk { region, key, secret, session } = self;
        let known = format!("region={region}\nkey={key}\nsecret={secret}\nsession={session}\n");
        fs::write(folder.join("iam.properties"), known).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/SignedUrls.java");
        let mut javac = Command::new("javac");
        javac.args(["-Xlint:all", "-Werror", "-proc:none", "-cp"]).arg(jars("kafka").join("*"));
        let out = javac.arg("-d").arg(folder).arg(source).output().expect("javac is installed");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

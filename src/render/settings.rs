//! What the renderer needs of the configuration, and what can be wrong with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// What the renderer needs of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `templates.dir`: files here replace the built-in ones of the same path.
    pub overrides: Option<PathBuf>,
    /// `templates.ui_url`: base of the Athenz UI. `None`: mails have no links.
    pub ui_url: Option<String>,
    /// `templates.unsubscribe`: where to stop mails of an optional route, `mailto:` or `https:`, with `{principal}` and
    /// `{route}`.
    pub unsubscribe: Option<String>,
    /// The routes with `optional = true`.
    pub optional: BTreeSet<String>,
    /// `mailer.from`, e.g. `Athenz <access@example.com>`.
    pub from: String,
    pub reply_to: Option<String>,
    /// What a mail calls the sender, in its first line and its footer.
    pub product: String,
    /// `schedule.zone`: for people without one of their own.
    pub zone: String,
    /// BCP 47; for people without one of their own.
    pub language: String,
    /// `limits.mail_bytes`: a whole mail, encoded, stays below.
    pub mail_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            overrides: None,
            ui_url: None,
            unsubscribe: None,
            optional: BTreeSet::new(),
            from: "Athenz <access@example.com>".into(),
            reply_to: None,
            product: "Athenz access".into(),
            zone: "UTC".into(),
            language: "en".into(),
            mail_bytes: 100_000,
        }
    }
}

/// # Errors
/// What is wrong with a value of `templates.ui_url`.
pub(super) fn check_ui_url(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Err("must start with https:// or http://") };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Err("names no host");
    }
    if host.contains('@') {
        return Err("must not hold a user name or password");
    }
    if rest.contains(['?', '#']) {
        return Err("must not have a query or fragment: paths are appended to it");
    }
    if !rest.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b)) {
        return Err("has characters that a URL can't have");
    }
    Ok(())
}

/// # Errors
/// What is wrong with a value of `templates.unsubscribe`.
pub fn check_unsubscribe(url: &str) -> Result<(), &'static str> {
    let place = url.replace("{principal}", "x").replace("{route}", "x");
    // Also what would end the header's `<...>` or start another entry of its list.
    if !place.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|},".contains(&b)) {
        return Err("has characters that such a URL can't have (only {principal} and {route} are filled in)");
    }
    if let Some(rest) = place.strip_prefix("mailto:") {
        let address = rest.split('?').next().unwrap_or_default();
        return address.parse::<lettre::Address>().map(drop).map_err(|_| "names no mail address");
    }
    let Some(rest) = place.strip_prefix("https://") else { return Err("must start with mailto: or https://") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') { Err("names no host, or a user") } else { Ok(()) }
}

//! Signed requests that are a proof of who we are: nobody sends them, a server reads them in place of a password.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;

/// For whom a request is signed, and for how long it holds.
pub struct Purpose<'a> {
    pub service: &'a str,
    pub region: &'a str,
    pub lives: Duration,
}

/// `url`, which has a query already, with the signature's parameters at its end.
///
/// # Errors
/// The URL is none, or the credentials can't sign; without either.
pub fn presign(url: &str, of: &Purpose<'_>, credentials: &Credentials, now: SystemTime) -> Result<String, String> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(of.lives);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(of.region)
        .name(of.service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|e| e.to_string())?
        .into();
    let request = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(&[]));
    let (signed, _) = request.and_then(|request| sign(request, &params)).map_err(|e| e.to_string())?.into_parts();
    let mut text = url.to_owned();
    for (name, value) in signed.params() {
        text += &format!("&{name}={}", encoded(value));
    }
    Ok(text)
}

/// When what was signed `now` ends: temporary credentials may end long before.
pub fn ends(now: SystemTime, lives: Duration, credentials: &Credentials) -> SystemTime {
    let ends = now + lives;
    credentials.expiry().map_or(ends, |of_credentials| of_credentials.min(ends))
}

/// RFC 3986, section 2.3: everything but unreserved characters.
pub fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Into a string nothing fails.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

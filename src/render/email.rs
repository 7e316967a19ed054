//! What a mail is besides its bodies: sender, subject line, and headers for threads and for those who want no more.

use super::templates::Rendered;
use super::{Renderer, text};
use crate::model::{Contents, Email, hash16};

impl Renderer {
    /// Where this person can stop mails of this route; only optional routes have such a place.
    pub(super) fn unsubscribe(&self, contents: &Contents) -> Option<String> {
        let place =
            self.settings.unsubscribe.as_deref().filter(|_| self.settings.optional.contains(&contents.route))?;
        let filled = place.replace("{principal}", &text::url_part(&contents.recipient.principal));
        Some(filled.replace("{route}", &text::url_part(&contents.route)))
    }

    pub(super) fn email(&self, contents: &Contents, rendered: Rendered) -> Email {
        let digest = contents.attempt.digest;
        // The id is the digest's, not the attempt's: if an attempt that seemed lost did arrive, clients show one mail.
        let id = format!("<owlpost.{digest}@{}>", self.domain);
        let thread =
            hash16(b"thread", &[&format!("{:08x}", digest.store), &contents.recipient.principal, &contents.route]);
        let thread: String = thread.iter().map(|b| format!("{b:02x}")).collect();
        let mut headers = vec![
            ("Message-ID".into(), id),
            ("References".into(), format!("<owlpost.thread.{thread}@{}>", self.domain)),
            ("X-Owlpost-Digest".into(), digest.to_string()),
            // RFC 3834: no out-of-office answers to this.
            ("Auto-Submitted".into(), "auto-generated".into()),
        ];
        if let Some(url) = self.unsubscribe(contents) {
            headers.push(("List-Unsubscribe".into(), format!("<{url}>")));
            // RFC 8058: a client may POST to it; only https is allowed.
            if url.starts_with("https://") {
                headers.push(("List-Unsubscribe-Post".into(), "List-Unsubscribe=One-Click".into()));
            }
        }
        Email {
            from: self.settings.from.clone(),
            reply_to: self.settings.reply_to.clone(),
            to: contents.recipient.address.clone().unwrap_or_default(),
            // An override may put anything into its subject: it becomes one line again.
            subject: text::one_line(&rendered.subject, 400),
            html: rendered.html,
            text: rendered.text,
            headers,
            date: contents.at,
        }
    }
}

//! `[[directory]]` and `[recipients]`: who people are, and which of them may be mailed.

use super::Check;
use crate::config::{Config, DirectoryKind};

pub fn validate(check: &mut Check<'_>, config: &Config) {
    for (index, directory) in config.directories.iter().enumerate() {
        let n = index.to_string();
        if let Some(name) = &directory.name {
            check.name(&["directory", &n, "name"], name);
        }
        match directory.kind {
            DirectoryKind::Rules if directory.rules.is_empty() => check.missing(
                &["directory", &n],
                "kind = \"rules\" needs rules, as in rules = [{ principal = \"user.{name}\", address = \"{name}@example.com\" }]",
            ),
            DirectoryKind::File if directory.path.as_ref().is_none_or(|path| path.as_os_str().is_empty()) => {
                check.missing(&["directory", &n], "kind = \"file\" needs a path to a TOML, JSON or CSV file");
            }
            DirectoryKind::Zms => check.not_yet(&["directory", &n, "kind"], "ZMS directory", "\"rules\" or \"file\""),
            _ => {}
        }
        if directory.kind != DirectoryKind::Rules && !directory.rules.is_empty() {
            check.error(&["directory", &n, "rules"], "belongs to kind = \"rules\" only");
        }
        if directory.kind != DirectoryKind::File && directory.path.is_some() {
            check.error(&["directory", &n, "path"], "belongs to kind = \"file\" only");
        }
        for (position, rule) in directory.rules.iter().enumerate() {
            let place = ["directory", &n, "rules", &position.to_string()];
            match (names(&rule.principal), names(&rule.address)) {
                (Ok((known, _)), Ok((used, sample))) => {
                    for name in used.iter().filter(|name| !known.contains(name)) {
                        check.error(&place, format!("the address uses {{{name}}}, which the principal has not"));
                    }
                    if sample.parse::<lettre::Address>().is_err() {
                        check.error(&place, "the address makes none: expected something like \"{name}@example.com\"");
                    }
                    if rule.principal.is_empty() {
                        check.error(&place, "the principal is empty");
                    }
                }
                _ => check.error(&place, "a name in braces has letters, digits and _, as in \"user.{name}\""),
            }
        }
    }
    if config.directories.is_empty() && !check.root.damaged {
        check.warn(&[], "no [[directory]]: nobody has an address");
    }
    for (index, domain) in config.recipients.allowed_domains.iter().enumerate() {
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if domain.len() > 253 || !domain.split('.').all(label) {
            check.error(
                &["recipients", "allowed_domains", &index.to_string()],
                "not a domain: expected one in full and in ASCII, as in \"example.com\", without @ and *",
            );
        }
    }
}

/// The names in braces, and the text with something in their place.
fn names(text: &str) -> Result<(Vec<&str>, String), ()> {
    let (mut names, mut sample, mut rest) = (Vec::new(), String::new(), text);
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(())?;
        if literal.contains('}') || name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(());
        }
        sample.push_str(literal);
        sample.push('x');
        names.push(name);
        rest = after;
    }
    if rest.contains('}') {
        return Err(());
    }
    sample.push_str(rest);
    Ok((names, sample))
}

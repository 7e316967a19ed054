//! `[store]`: where the ledger lives, and how a database is reached.

use std::time::Duration;

use super::Check;
use crate::config::{Config, StoreAuth, StoreConfig};
use crate::span::Span;

/// Events may be dated so far in the future (`events.md`): their keys must live at least as long. Of brokers that
/// redeliver for longer, `validate/source.rs` warns.
const REDELIVERY: Duration = Duration::from_secs(86_400);

pub fn validate(check: &mut Check<'_>, config: &Config) {
    let store = &config.store;
    let path = ["store", "url"];
    match store.url.split_once(':') {
        Some(("sqlite", "" | ":memory:")) => {
            check.error(&path, "expected a file: sqlite:PATH, as in \"sqlite:data/owlpost.db\"")
        }
        // It would be a path from the root of the file system.
        Some(("sqlite", rest)) if rest.starts_with("//") && !rest.starts_with("///") => check.error(
            &path,
            "expected a path and no host: sqlite:PATH, as in \"sqlite:data/owlpost.db\" or \"sqlite:/data/owlpost.db\"",
        ),
        Some(("sqlite", _)) => {}
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
            check.at_least_one(&["store", "connections"], store.connections.into());
            let url = Url::of(&store.url);
            address(check, &url);
            match store.auth {
                StoreAuth::Iam => iam(check, store, &url),
                StoreAuth::Password if store.region.is_some() => {
                    check.warn(&["store", "region"], "has no effect without store.auth = \"iam\"");
                }
                StoreAuth::Password => {}
            }
        }
        _ => check.error(
            &path,
            "not a store: expected sqlite:PATH, as in \"sqlite:data/owlpost.db\", or postgres://USER@HOST/DATABASE",
        ),
    }
    if !store.is_postgres() {
        for (key, set) in [
            ("password", store.password.is_some()),
            ("auth", store.auth != StoreAuth::Password),
            ("region", store.region.is_some()),
            ("ca_file", store.ca_file.is_some()),
            ("transaction_pooler", store.transaction_pooler),
        ] {
            if set {
                check.error(&["store", key], "of no use with a SQLite file; it belongs to postgres://");
            }
        }
    }
    let patience = config.routes.iter().filter_map(|r| r.give_up_after).chain([config.delivery.give_up_after]);
    let longest = patience.map(|span| span.0).fold(REDELIVERY, Duration::max);
    if store.retention.0 < longest {
        let message = format!(
            "shorter than {}, the longest time after which a message may come again or be sent: it would count as new",
            Span(longest)
        );
        check.error(&["store", "retention"], message);
    }
}

/// The parts of `postgres://USER@HOST:PORT/DATABASE?QUERY`.
struct Url<'a> {
    user: &'a str,
    hosts: &'a str,
    database: &'a str,
    query: &'a str,
}

impl Url<'_> {
    fn of(url: &str) -> Url<'_> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let rest = base.split_once("://").map_or("", |(_, rest)| rest);
        let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
        Url { user, hosts, database, query }
    }

    /// What the query says of it.
    fn said<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s str> {
        self.query.split('&').filter_map(move |pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

fn address(check: &mut Check<'_>, url: &Url<'_>) {
    let path = ["store", "url"];
    if url.user.contains(':') || url.said("password").next().is_some() {
        check.error(&path, "a password has no place in a URL, which stands in messages: set store.password");
    }
    if url.hosts.is_empty() || url.database.is_empty() {
        check.error(&path, "expected postgres://USER@HOST:PORT/DATABASE");
    }
    for mode in url.said("sslmode").filter(|mode| !matches!(*mode, "disable" | "verify-full")) {
        check.error(&path, format!("sslmode={mode}: expected verify-full (the default off loopback) or disable"));
    }
}

/// A token is for one user of one server, and worth as much as a password while it holds.
fn iam(check: &mut Check<'_>, store: &StoreConfig, url: &Url<'_>) {
    let path = ["store", "url"];
    if store.password.is_some() {
        check.error(&["store", "password"], "of no use with store.auth = \"iam\": the token is the password");
    }
    if url.user.is_empty() && url.said("user").next().is_none() {
        check.error(&path, "store.auth = \"iam\" needs a user: its token is for one role of the database");
    }
    let others = url.said("host").chain(url.said("hostaddr")).next().is_some();
    if url.hosts.contains(',') || url.hosts.starts_with('%') || others {
        check.error(
            &path,
            "store.auth = \"iam\" needs one host, by the name that RDS gave it: its token is for that one",
        );
    }
    if url.said("sslmode").any(|mode| mode == "disable") {
        check.error(&path, "sslmode=disable: store.auth = \"iam\" sends its token to a verified server only");
    }
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if store.region.as_deref().is_some_and(|region| region.is_empty() || !region.chars().all(part)) {
        check.error(&["store", "region"], "not a region: expected a name as in \"eu-west-1\"");
    }
}

//! The sections of the configuration: plain values with their defaults. `config/owlpost.toml` says what each one is for.
//! The sections of pure modules stand beside those ([`crate::route::RouteConfig`], [`crate::schedule::Cadence`]).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::span::Span;

const fn seconds(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

const DAY_S: u64 = 86_400;

/// A text that stands in no log: `Debug` hides it, and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The listener: `/v1/events`, `/livez`, `/readyz`, `/metrics`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port; port 0 takes any free one.
    pub listen: String,
    /// The bearer token that `/v1/events` requires.
    pub token: Option<Secret>,
    /// Another token that is taken as well, until all producers have the new one.
    pub previous_token: Option<Secret>,
    /// Lets a listener that others can reach go without a token.
    pub allow_anonymous: bool,
    /// The longest body of one request.
    pub body_max_bytes: u64,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            listen: "127.0.0.1:8080".into(),
            token: None,
            previous_token: None,
            allow_anonymous: false,
            body_max_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Where the ledger lives.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `sqlite:PATH`, or `postgres://USER@HOST:PORT/DATABASE`.
    pub url: String,
    /// Of PostgreSQL: the password; the URL has none.
    pub password: Option<Secret>,
    /// Of PostgreSQL: what a connection proves itself with.
    pub auth: StoreAuth,
    /// Of PostgreSQL with `auth = "iam"`: the database's region. Default: what the environment or the profile says.
    pub region: Option<String>,
    /// Of PostgreSQL: authorities of the server's certificate, in PEM form; without it, the system's.
    pub ca_file: Option<String>,
    /// Of PostgreSQL: most connections of one worker.
    pub connections: u32,
    /// Of PostgreSQL: a pooler stands before it that gives each transaction another connection and knows no prepared
    /// statements.
    pub transaction_pooler: bool,
    /// Bring the schema up to date at start.
    pub migrate: bool,
    /// How long proof, dedupe keys and dead letters are kept.
    pub retention: Span,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            url: "sqlite:data/owlpost.db".into(),
            password: None,
            auth: StoreAuth::Password,
            region: None,
            ca_file: None,
            connections: 8,
            transaction_pooler: false,
            migrate: true,
            retention: seconds(90 * DAY_S),
        }
    }
}

impl StoreConfig {
    /// The SQLite file. `None`: another kind of store.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        self.url.strip_prefix("sqlite:").map(PathBuf::from)
    }

    pub fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")
    }

    /// For messages: a password may stand in the URL.
    pub fn shown(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((kind, _)), Some((_, place))) => format!("{kind}://{place}"),
            _ => self.url.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreAuth {
    /// `store.password`, if the server asks for one.
    Password,
    /// A token of Amazon RDS, signed by our AWS identity.
    Iam,
}

/// How many mails the account may send. Accepted, and without effect on `outbox` and `discard`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    pub per_second: Allowance,
    /// In any 24 hours.
    pub per_day: Allowance,
    /// So many mails may leave at once after a silence; at most what a second allows.
    pub burst: u32,
    /// The part of `per_day` that only urgent routes may use, from 0 to 1.
    pub urgent_reserve: f64,
}

impl Default for QuotaConfig {
    fn default() -> QuotaConfig {
        QuotaConfig { per_second: Allowance::Account, per_day: Allowance::Account, burst: 1, urgent_reserve: 0.1 }
    }
}

/// `"account"` (what the sending account tells), or a number above 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Allowance {
    #[default]
    Account,
    Mails(f64),
}

impl<'de> Deserialize<'de> for Allowance {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Allowance, D::Error> {
        struct Reader;
        const WANTED: &str = "expected \"account\" or a number above 0";
        impl Visitor<'_> for Reader {
            type Value = Allowance;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"account\" or a number above 0")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Allowance, E> {
                if text == "account" { Ok(Allowance::Account) } else { Err(E::custom(WANTED)) }
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Allowance, E> {
                if number > 0.0 { Ok(Allowance::Mails(number)) } else { Err(E::custom(WANTED)) }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Allowance, E> {
                self.visit_f64(number as f64)
            }
        }
        d.deserialize_any(Reader)
    }
}

impl JsonSchema for Allowance {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Allowance".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"const": "account"}, {"type": "number", "exclusiveMinimum": 0}]})
    }
}

/// Who may be mailed at all.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecipientsConfig {
    /// Domains of addresses, without subdomains; checked last, just before the send. Empty: every domain.
    pub allowed_domains: Vec<String>,
}

/// Who people are and where they get mail. Several are asked in order.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// For files and environment variables that override this one.
    pub name: Option<String>,
    pub kind: DirectoryKind,
    /// Of kind `rules`: the first that fits gives the address.
    #[serde(default)]
    pub rules: Vec<AddressRule>,
    /// Of kind `file`: people, roles and groups (TOML, JSON or CSV).
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryKind {
    Rules,
    File,
    Zms,
}

/// `user.{name}` -> `{name}@example.com`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressRule {
    /// A principal, with names in braces for what varies.
    pub principal: String,
    /// An address made of those names.
    pub address: String,
}

/// The words of a mail, and where its links lead.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TemplatesConfig {
    /// A folder whose files replace the built-in ones of the same name.
    pub dir: Option<PathBuf>,
    /// The Athenz UI, for links.
    pub ui_url: Option<String>,
    /// Where people stop the mails of optional routes: `mailto:` or `https:`, with `{principal}` and `{route}`.
    pub unsubscribe: Option<String>,
}

/// Bounds; what goes over them is refused or held, never silently cut.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    pub event_bytes: u64,
    pub batch_events: u32,
    pub recipients_per_event: u32,
    /// Above it, an item is `dead(too_many_open)`.
    pub open_items_per_recipient: u32,
    /// Items a mail; the others go to the next digest.
    pub max_listed: u32,
    pub mail_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            event_bytes: 1024 * 1024,
            batch_events: 10_000,
            recipients_per_event: 500,
            open_items_per_recipient: 10_000,
            max_listed: 50,
            mail_bytes: 100_000,
        }
    }
}

/// How patiently a mail is sent.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// Mails in a call at the same time.
    pub in_flight: u32,
    /// How long a claimed digest is ours.
    pub lease: Span,
    /// No call starts later than this after its begin.
    pub send_within: Span,
    /// The longest that a call may take.
    pub call_timeout: Span,
    /// How far the clocks of the workers and the store may be apart.
    pub clock_error: Span,
    /// How long a doubt waits for evidence before `on_in_doubt` ends it.
    pub doubt_grace: Span,
    /// How long sends in flight may take to finish at a stop.
    pub drain: Span,
    pub attempts_max: u32,
    /// Bound on the sum of the waits between attempts.
    pub give_up_after: Span,
    pub backoff_first: Span,
    pub backoff_max: Span,
}

impl Default for DeliveryConfig {
    fn default() -> DeliveryConfig {
        DeliveryConfig {
            in_flight: 32,
            lease: seconds(90),
            send_within: seconds(15),
            call_timeout: seconds(10),
            clock_error: seconds(60),
            doubt_grace: seconds(0),
            drain: seconds(20),
            attempts_max: 12,
            give_up_after: seconds(DAY_S),
            backoff_first: seconds(10),
            backoff_max: seconds(3_600),
        }
    }
}

/// The calendar of those whose directory entry has none.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// IANA time zone.
    pub zone: String,
    /// `mon` to `sun`: what `days = ["workdays"]` means.
    pub workdays: Vec<String>,
    /// Dates that are no workdays, `"2026-12-25"`.
    pub holidays: Vec<String>,
}

impl Default for ScheduleConfig {
    fn default() -> ScheduleConfig {
        let workdays = ["mon", "tue", "wed", "thu", "fri"].map(String::from).to_vec();
        ScheduleConfig { zone: "UTC".into(), workdays, holidays: Vec::new() }
    }
}

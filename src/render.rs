//! A digest becomes a mail: subject, HTML and text. Pure: the same contents give the same bytes, without clock or chance;
//! files are read once, at start.
//!
//! Values come from strangers. [`text`] makes them harmless to read, the HTML registry escapes them, views hold ready
//! strings only, and a budget keeps the mail below [`Settings::mail_bytes`] whatever is in it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use lettre::message::Mailbox;

use crate::model::{Contents, Email, Listed, hash16};

mod data;
mod engine;
pub mod index;
mod item;
mod kind;
pub mod samples;
mod subject;
mod templates;
pub mod text;
pub mod view;
mod when;

use data::Bounds;
use item::Reader;
use kind::Kind;
use templates::{Fault, Rendered, Templates};
pub use templates::{NAMES, Problem};
use view::{Item, Mail, Recipient};
use when::Zone;

/// The route that tells people what somebody else settled meanwhile.
const HANDLED: &str = "handled";

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

/// Below it, a mail could not even list its items in short form.
pub const MAIL_BYTES_MIN: usize = 40_000;

/// What an item with names of ordinary length takes in its shortest form, with its share of the frame (a test tries). The
/// longest names of the worst characters take up to three times as much; what then has no room is counted in the mail.
pub const LISTED_BYTES: usize = 400;

/// Headers and MIME parts around the two bodies; a long subject in base64 included.
const ENVELOPE_BYTES: usize = 3_000;

/// From the most generous to the tightest: bounds of values, and how many items are told in full (`rows` is one line
/// each). The last one fits 50 items of the worst characters into 100,000 bytes (a test tries); if the budget is smaller
/// or an override's layout heavier, fewer rows are shown.
const STEPS: [(Bounds, usize); 8] = [
    (Bounds { name_bytes: 256, prose_bytes: 500, pairs: 20, links: true }, usize::MAX),
    (Bounds { name_bytes: 256, prose_bytes: 160, pairs: 10, links: true }, usize::MAX),
    (Bounds { name_bytes: 200, prose_bytes: 120, pairs: 6, links: true }, 30),
    (Bounds { name_bytes: 160, prose_bytes: 120, pairs: 6, links: true }, 12),
    (Bounds { name_bytes: 120, prose_bytes: 80, pairs: 4, links: true }, 4),
    (Bounds { name_bytes: 64, prose_bytes: 60, pairs: 4, links: true }, 1),
    (Bounds { name_bytes: 32, prose_bytes: 40, pairs: 2, links: true }, 0),
    (Bounds { name_bytes: 32, prose_bytes: 40, pairs: 2, links: false }, 0),
];

/// These items can't be rendered: they fail alone, too, so the others are not held up by them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct RenderError {
    pub event_numbers: Vec<i64>,
    /// Template, line, column, reason; never a value.
    pub detail: String,
}

pub struct Renderer {
    templates: Templates,
    settings: Settings,
    ui_url: Option<String>,
    zone: Zone,
    /// What stands behind the `@` of message ids.
    domain: String,
    /// The address in `reply_to`, and a link to it; or `""`.
    contact: String,
    contact_url: String,
}

impl Renderer {
    /// Checks everything that could go wrong later, with an override folder down to a render of every template with every
    /// sample. All problems at once.
    pub fn new(settings: Settings) -> Result<Renderer, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut domain = "owlpost.invalid".to_owned();
        match settings.from.parse::<Mailbox>() {
            Ok(from) => domain = from.email.domain().to_owned(),
            Err(e) => problems
                .push(Problem::new(format!("mailer.from is no mail address ({e}): write \"Name <user@domain>\""))),
        }
        let (mut contact, mut contact_url) = (String::new(), String::new());
        match settings.reply_to.as_deref().map(str::parse::<Mailbox>) {
            Some(Ok(to)) => {
                contact = to.email.to_string();
                contact_url =
                    format!("mailto:{}@{}", text::url_part(to.email.user()), text::url_part(to.email.domain()));
            }
            Some(Err(e)) => {
                problems.push(Problem::new(format!("mailer.reply_to is no mail address ({e}): write \"user@domain\"")));
            }
            None => {}
        }
        match settings.unsubscribe.as_deref().map(check_unsubscribe) {
            Some(Err(why)) => problems.push(Problem::new(format!(
                "templates.unsubscribe {why}; write e.g. \"mailto:access@example.com?subject=stop%20{{route}}\" or \
                 \"https://access.example.com/stop?who={{principal}}&route={{route}}\""
            ))),
            None if !settings.optional.is_empty() => problems.push(Problem::new(
                "a route is optional, but templates.unsubscribe does not say where its mails can be stopped",
            )),
            _ => {}
        }
        let ui_url = settings.ui_url.as_deref().filter(|u| !u.is_empty());
        if let Some(Err(why)) = ui_url.map(check_ui_url) {
            problems.push(Problem::new(format!("templates.ui_url {why}; write e.g. \"https://athenz.example.com\"")));
        }
        let zone = Zone::known(&settings.zone).unwrap_or_else(|| {
            let name = text::name(&settings.zone, 60);
            problems.push(Problem::new(format!(
                "schedule.zone: no time zone {name:?}; write an IANA name, e.g. \"Europe/Berlin\""
            )));
            Zone::utc()
        });
        if settings.mail_bytes < MAIL_BYTES_MIN {
            let least = MAIL_BYTES_MIN;
            problems.push(Problem::new(format!(
                "limits.mail_bytes is below {least}: 50 items would not fit in short form"
            )));
        }
        let templates = match Templates::load(settings.overrides.as_deref()) {
            Ok(templates) => templates,
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        let ui_url = ui_url.map(|u| u.trim_end_matches('/').to_owned());
        let renderer = Renderer { templates, settings, ui_url, zone, domain, contact, contact_url };
        // The built-in templates have tests; the start need not spend 300 renders on them.
        if renderer.settings.overrides.is_some() {
            problems.extend(renderer.trial());
        }
        if problems.is_empty() { Ok(renderer) } else { Err(problems) }
    }

    /// The templates there are: the built-in ones and the override folder's own.
    pub fn templates(&self) -> &[String] {
        self.templates.names()
    }

    /// # Errors
    /// [`RenderError`] names the items that fail, so that the caller can go on without them.
    pub fn render(&self, contents: &Contents, template: &str) -> Result<Email, RenderError> {
        let fault = match self.fit(contents, template) {
            Ok(rendered) => return Ok(self.email(contents, rendered)),
            Err(fault) => fault,
        };
        let detail = self.templates.problem(&fault).to_string();
        let fails = |items: &[Listed]| self.fit(&with_items(contents, items), template).is_err();
        let items = &contents.items;
        let mut event_numbers: Vec<i64> =
            items.iter().filter(|item| fails(std::slice::from_ref(item))).map(|item| item.event_number).collect();
        if event_numbers.is_empty() {
            // Each is fine alone: blame the one whose coming breaks the mail, so that every attempt gets further.
            let breaks = items.iter().enumerate().find(|(n, _)| fails(&items[..=*n]));
            event_numbers.extend(breaks.map(|(_, item)| item.event_number));
        }
        Err(RenderError { event_numbers, detail })
    }

    /// Renders every template with every sample, and reports what an override asks for that is not there.
    fn trial(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let all = samples::all();
        for template in self.templates.names() {
            let sets = all.iter().map(std::slice::from_ref).chain([all.as_slice()]);
            for items in sets {
                for route in ["trial", HANDLED] {
                    let contents = samples::contents(items.to_vec(), route);
                    match self.fit(&contents, template) {
                        Ok(_) => {}
                        // A template for a type of its own may ask for data that no sample has.
                        Err(fault) if fault.of_data => {}
                        Err(fault) => problems.push(self.templates.problem(&fault)),
                    }
                }
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// Takes the first step that fits the budget. The last resort drops rows, never the mail.
    fn fit(&self, contents: &Contents, template: &str) -> Result<Rendered, Fault> {
        // Cleaning it is a good part of the work, and the built-in templates don't look at it.
        let with_data = self.templates.use_data(template);
        for (bounds, in_full) in STEPS {
            let rendered =
                self.templates.render(template, &self.view(contents, bounds, in_full, usize::MAX, with_data))?;
            if self.fits(&rendered) {
                return Ok(rendered);
            }
        }
        let (tightest, in_full) = STEPS[STEPS.len() - 1];
        let mut rows = contents.items.len();
        // Halving ends at zero rows: at most 6 turns for 50 items.
        loop {
            rows /= 2;
            let rendered = self.templates.render(template, &self.view(contents, tightest, in_full, rows, with_data))?;
            if rows == 0 || self.fits(&rendered) {
                return Ok(rendered);
            }
        }
    }

    fn fits(&self, rendered: &Rendered) -> bool {
        let all = |encoded: fn(&str) -> usize| encoded(&rendered.html) + encoded(&rendered.text) + ENVELOPE_BYTES;
        // The second takes a look at every byte; most mails are far from the limit.
        all(base64_bytes) <= self.settings.mail_bytes || all(encoded_bytes) <= self.settings.mail_bytes
    }

    fn view(&self, contents: &Contents, bounds: Bounds, in_full: usize, rows_max: usize, with_data: bool) -> Mail {
        let person = &contents.recipient;
        let zone = person.zone.as_deref().and_then(Zone::known).unwrap_or_else(|| self.zone.clone());
        let handled = contents.route == HANDLED;
        let reader = Reader {
            principal: &person.principal,
            zone: &zone,
            now: contents.at,
            ui_url: self.ui_url.as_deref().filter(|_| bounds.links),
            handled,
            with_data,
            bounds,
        };
        let mut told: Vec<Item> =
            collapse(&contents.items).into_iter().map(|(item, times)| reader.tell(item, times)).collect();
        let counts = subject::counts(&contents.items, handled);
        let title = subject::title(&reader, &contents.items, &counts);
        let subject = subject::subject(&reader, &contents.items, &told, &title, contents.open_total);
        // What asks comes before what tells; among each stays the order given, most urgent first.
        // A reminder that names nothing comes after what is named.
        told.sort_by_key(|item| (item.asks.is_empty(), Kind::of(&item.kind) == Kind::Reminder));
        let first_told = told.iter().position(|item| item.asks.is_empty());
        if let Some(at @ 1..) = first_told {
            told[0].section = "Needs you".into();
            told[at].section = "For your information".into();
        }
        let several = told.len() > 1;
        let deadline = match contents.items.iter().filter_map(|i| i.deadline).min() {
            Some(first) if several && !handled => reader.dated(first),
            _ => String::new(),
        };
        let asks = told.first().is_some_and(|item| !item.asks.is_empty());
        let preheader = preheader(&told);
        let mut items = told;
        let mut rows = if items.len() > in_full { items.split_off(in_full) } else { Vec::new() };
        let unseen = rows.len().saturating_sub(rows_max);
        rows.truncate(rows_max);
        let listed = contents.items.len() as u64;
        let shown = text::name(&person.principal, bounds.name_bytes);
        let route = text::name(&contents.route, 60);
        let product = text::name(&self.settings.product, 80);
        Mail {
            subject,
            title,
            preheader,
            deadline,
            several: if several { "yes" } else { "" }.into(),
            asks: if asks { "yes" } else { "" }.into(),
            why: why(contents, &shown, &route, handled),
            contact: self.contact.clone(),
            contact_url: self.contact_url.clone(),
            unsubscribe: self.unsubscribe(contents).unwrap_or_default(),
            recipient: Recipient {
                principal: shown,
                language: text::name(person.language.as_deref().unwrap_or(&self.settings.language), 40),
            },
            product,
            route,
            handled: if handled { "yes" } else { "" }.into(),
            counts,
            shortened: shortened(rows.len(), unseen),
            items,
            rows,
            more: match contents.open_total.saturating_sub(listed) {
                0 => String::new(),
                more => format!(
                    "These are {listed} of {}; {more} more wait and come with the next mail.",
                    contents.open_total
                ),
            },
            ui_url: self.ui_url.clone().unwrap_or_default(),
            zone: zone.name.clone(),
            digest: contents.attempt.digest.to_string(),
        }
    }

    /// Where this person can stop mails of this route; only optional routes have such a place.
    fn unsubscribe(&self, contents: &Contents) -> Option<String> {
        let place =
            self.settings.unsubscribe.as_deref().filter(|_| self.settings.optional.contains(&contents.route))?;
        let filled = place.replace("{principal}", &text::url_part(&contents.recipient.principal));
        Some(filled.replace("{route}", &text::url_part(&contents.route)))
    }

    fn email(&self, contents: &Contents, rendered: Rendered) -> Email {
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

/// Of a single item what its headline leaves out; of several the first two.
fn preheader(told: &[Item]) -> String {
    let words = match told {
        [] => return String::new(),
        [only] => {
            let quote = Some(only.quote.as_str()).filter(|q| !q.is_empty()).map(|q| format!("\u{201C}{q}\u{201D}"));
            let facts = only.facts.iter().map(|f| format!("{}: {}", f.name, f.value));
            quote.into_iter().chain(facts).take(3).collect::<Vec<_>>().join(" \u{B7} ")
        }
        [first, second, ..] => format!("{} \u{B7} {}", first.headline, second.headline),
    };
    text::cut(&words, 160)
}

fn why(contents: &Contents, principal: &str, route: &str, handled: bool) -> String {
    let own = |item: &Listed| {
        ["member", "requester"].iter().any(|k| data::raw(&item.data, k).as_ref() == Some(&contents.recipient.principal))
    };
    let decides = |item: &Listed| matches!(Kind::of(&item.kind), Kind::Requested | Kind::ReviewDue | Kind::Reminder);
    let why = if handled {
        "you had been asked to act on it before it was settled"
    } else if contents.items.iter().all(own) {
        "it is about your own access"
    } else if contents.items.iter().any(decides) {
        "you are one of those who decide here"
    } else {
        "you are named in it, or in a role or group that is"
    };
    format!("You get this as {principal}, because {why} (route \"{route}\").")
}

fn shortened(rows: usize, unseen: usize) -> String {
    let more = text::counted(rows as u64, "more in short form", "more in short form");
    match (rows, unseen) {
        (0, 0) => String::new(),
        (_, 0) => format!("{more}:"),
        (0, n) => format!("{n} more do not fit into this mail; Athenz lists them."),
        (_, n) => format!("{more}, and {n} that do not fit into this mail; Athenz lists them:"),
    }
}

/// Of several informing events about one subject only the last is told, where the first one stood, with their number.
fn collapse(items: &[Listed]) -> Vec<(&Listed, u64)> {
    let mut out: Vec<(&Listed, u64)> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for item in items {
        let kind = Kind::of(&item.kind);
        let key = match (&item.subject_key, kind) {
            (Some(key), kind) if kind.collapses() => key.as_str(),
            // Athenz's reminder names nothing, so all of them say the same.
            (None, Kind::Reminder) => "",
            _ => {
                out.push((item, 1));
                continue;
            }
        };
        let place = *places.entry((&item.kind, key)).or_insert(out.len());
        match out.get_mut(place) {
            Some((last, times)) => {
                *times += 1;
                if (item.time, &item.id, &item.source) > (last.time, &last.id, &last.source) {
                    *last = item;
                }
            }
            None => out.push((item, 1)),
        }
    }
    out
}

/// What a body takes in base64, in lines of 76 (RFC 2045, section 6.8): the most that a mailer spends on it.
fn base64_bytes(body: &str) -> usize {
    // LF becomes CRLF first.
    let raw = body.len() + body.bytes().filter(|b| *b == b'\n').count();
    let base64 = raw.div_ceil(3) * 4;
    base64 + base64.div_ceil(76) * 2
}

/// What it takes in the better of base64 and quoted-printable, which mailers choose; rounded up.
fn encoded_bytes(body: &str) -> usize {
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    let quoted: usize = body.bytes().map(|b| if plain(b) { 1 } else { 3 }).sum();
    (quoted + quoted / 70 * 3 + 100).min(base64_bytes(body))
}

fn check_ui_url(url: &str) -> Result<(), &'static str> {
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

/// The same mail with other items.
fn with_items(contents: &Contents, items: &[Listed]) -> Contents {
    Contents {
        attempt: contents.attempt,
        route: contents.route.clone(),
        recipient: contents.recipient.clone(),
        items: items.to_vec(),
        open_total: contents.open_total,
        at: contents.at,
        call_at: contents.call_at,
    }
}

//! A digest in words: what its items say together, in which order, to whom and why.

use std::collections::HashMap;

use super::data::{self, Bounds};
use super::item::Reader;
use super::kind::Kind;
use super::view::{Item, Mail, Recipient};
use super::when::Zone;
use super::{HANDLED, Renderer, subject, text};
use crate::model::{Contents, Listed};

impl Renderer {
    pub(super) fn view(
        &self,
        contents: &Contents,
        bounds: Bounds,
        in_full: usize,
        rows_max: usize,
        with_data: bool,
    ) -> Mail {
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
        // What has ended already comes first, with a deadline or without.
        told.sort_by_key(|item| {
            (item.asks.is_empty(), Kind::of(&item.kind) == Kind::Reminder, item.asks.is_empty() || !item.overdue)
        });
        let first_told = told.iter().position(|item| item.asks.is_empty());
        if let Some(at @ 1..) = first_told {
            told[0].section = "Needs you";
            told[at].section = "For your information";
            told.iter_mut().for_each(|item| item.heading = "h3");
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
            several: if several { "yes" } else { "" },
            asks: if asks { "yes" } else { "" },
            why: why(contents, &shown, handled),
            contact: self.contact.clone(),
            contact_url: self.contact_url.clone(),
            unsubscribe: self.unsubscribe(contents).unwrap_or_default(),
            recipient: Recipient {
                principal: shown,
                language: text::name(person.language.as_deref().unwrap_or(&self.settings.language), 40),
            },
            product,
            route,
            handled: if handled { "yes" } else { "" },
            counts,
            shortened: shortened(rows.len(), unseen),
            items,
            rows,
            more: match contents.open_total.saturating_sub(listed) {
                0 => String::new(),
                1 => {
                    format!("These are {listed} of {}; 1 more waits and comes with the next mail.", contents.open_total)
                }
                more => format!(
                    "These are {listed} of {}; {more} more wait and come with the next mails.",
                    contents.open_total
                ),
            },
            ui_url: self.ui_url.clone().unwrap_or_default(),
            zone: zone.name.clone(),
            digest: contents.attempt.digest.to_string(),
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

fn why(contents: &Contents, principal: &str, handled: bool) -> String {
    let own = |item: &Listed| {
        let principal = Some(contents.recipient.principal.as_str());
        ["member", "requester"].iter().any(|k| data::raw(&item.data, k).as_deref() == principal)
    };
    let decides = |item: &Listed| matches!(Kind::of(&item.kind), Kind::Requested | Kind::ReviewDue | Kind::Reminder);
    let why = if handled {
        "you had been asked about it"
    } else if contents.items.iter().all(own) {
        "it is about your own access"
    } else if contents.items.iter().any(decides) {
        "you are one of those who decide here"
    } else {
        "it names you, or a role or group of yours"
    };
    format!("You get this as {principal}, because {why}.")
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

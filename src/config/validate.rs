//! What the values mean together: everything that types alone don't say. Looks at no file and calls nobody; that is
//! `check --live`.

use std::net::SocketAddr;
use std::time::Duration;

use super::tree::Node;
use super::{Config, Problem};
use crate::render::{LISTED_BYTES, MAIL_BYTES_MIN};
use crate::span::Span;

mod dead_letters;
mod directory;
mod mailer;
mod route;
mod source;
mod store;

const DRAIN_MAX: Duration = Duration::from_secs(3_600);
const IN_FLIGHT_MAX: u32 = 1_000;

pub fn validate(config: &Config, root: &Node, problems: &mut Vec<Problem>) {
    let mut check = Check { root, problems };
    check.http(config);
    store::validate(&mut check, config);
    source::validate(&mut check, config);
    dead_letters::validate(&mut check, config);
    mailer::validate(&mut check, config);
    directory::validate(&mut check, config);
    route::validate(&mut check, config);
    check.limits(config);
    check.delivery(config);
    check.schedule(config);
    check.rest(config);
}

/// Collects problems at the places where the values stand.
pub struct Check<'a> {
    root: &'a Node,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn error(&mut self, path: &[&str], message: impl Into<String>) {
        self.problems.push(Problem::error(self.root.locate(path), message));
    }

    fn warn(&mut self, path: &[&str], message: impl Into<String>) {
        self.problems.push(Problem::warning(self.root.locate(path), message));
    }

    /// Something is not there. Says nothing where something unreadable was: that has been reported.
    fn missing(&mut self, path: &[&str], message: impl Into<String>) {
        let node = path.iter().try_fold(self.root, |node, step| node.child(step));
        if !node.is_some_and(|node| node.damaged) {
            self.error(path, message);
        }
    }

    fn at_least_one(&mut self, path: &[&str], number: u64) {
        if number == 0 {
            self.error(path, "must be at least 1");
        }
    }

    fn at_least_a_moment(&mut self, path: &[&str], span: Span) {
        if span.0.is_zero() {
            self.error(path, "must be longer than 0s");
        }
    }

    /// Names stand in metrics, file names and environment variables.
    fn name(&mut self, path: &[&str], name: &str) {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !plain || name.len() > 64 || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            self.error(path, "a name has 1 to 64 letters, digits, '-', '_' and '.', and starts with a letter or digit");
        }
    }

    fn mailbox(&mut self, path: &[&str], text: &str) {
        match text.parse::<lettre::message::Mailbox>() {
            // It stands in message ids, and most servers take no other.
            Ok(mailbox) if !mailbox.email.to_string().is_ascii() => self.error(
                path,
                "the address has letters beyond ASCII: write its domain as xn--…, as it stands in the DNS; before the @ there can \
                 be none",
            ),
            Ok(_) if !text.chars().any(char::is_control) => {}
            _ => self.error(path, "not an address: expected \"Name <name@example.com>\" or \"name@example.com\""),
        }
    }

    fn not_yet(&mut self, path: &[&str], what: &str, instead: &str) {
        self.error(path, format!("this version has no {what} yet, a later one will; use {instead}"));
    }

    fn http(&mut self, config: &Config) {
        let http = &config.http;
        let loopback = match http.listen.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) if local_name(&http.listen) => true,
            Err(_) => {
                self.error(
                    &["http", "listen"],
                    "not an address to listen on: expected IP:PORT, as in \"127.0.0.1:8080\" or \"[::]:8080\"",
                );
                true
            }
        };
        for (key, token) in [("token", &http.token), ("previous_token", &http.previous_token)] {
            if token.as_ref().is_some_and(|t| t.0.is_empty() || !t.0.bytes().all(|b| b.is_ascii_graphic())) {
                self.error(
                    &["http", key],
                    "can't be sent as a bearer token: expected visible ASCII characters without spaces, at least one",
                );
            }
        }
        match &http.token {
            None if http.previous_token.is_some() => self.error(
                &["http", "previous_token"],
                "goes with http.token: the token that producers change to",
            ),
            None if !loopback && !http.allow_anonymous => self.missing(
                &["http", "listen"],
                "others can reach this address, and anybody could publish: set http.token, or http.allow_anonymous = true if something in front checks them",
            ),
            _ => {}
        }
        self.at_least_one(&["http", "body_max_bytes"], http.body_max_bytes);
        if http.body_max_bytes < config.limits.event_bytes {
            self.warn(
                &["http", "body_max_bytes"],
                "less than limits.event_bytes: the largest events can't come by HTTP",
            );
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        for (key, number) in [
            ("event_bytes", limits.event_bytes),
            ("batch_events", limits.batch_events.into()),
            ("recipients_per_event", limits.recipients_per_event.into()),
            ("open_items_per_recipient", limits.open_items_per_recipient.into()),
            ("max_listed", limits.max_listed.into()),
        ] {
            self.at_least_one(&["limits", key], number);
        }
        if limits.mail_bytes < MAIL_BYTES_MIN as u64 {
            self.error(
                &["limits", "mail_bytes"],
                format!("must be at least {MAIL_BYTES_MIN}: a mail's frame needs room"),
            );
        } else if u64::from(limits.max_listed) > limits.mail_bytes / LISTED_BYTES as u64 {
            let most = limits.mail_bytes / LISTED_BYTES as u64;
            let message = format!(
                "at most {most} with limits.mail_bytes = {}: a mail must have room to name each of its items, \
                 {LISTED_BYTES} bytes each",
                limits.mail_bytes
            );
            self.error(&["limits", "max_listed"], message);
        }
    }

    fn delivery(&mut self, config: &Config) {
        let delivery = &config.delivery;
        let needed = delivery.send_within.0 + delivery.call_timeout.0 + delivery.clock_error.0;
        if delivery.lease.0 <= needed {
            let message = format!(
                "must be longer than send_within + call_timeout + clock_error ({}): else another worker sends what this one is sending",
                Span(needed)
            );
            self.error(&["delivery", "lease"], message);
        }
        for (key, span) in [
            ("send_within", delivery.send_within),
            ("call_timeout", delivery.call_timeout),
            ("give_up_after", delivery.give_up_after),
            ("backoff_first", delivery.backoff_first),
        ] {
            self.at_least_a_moment(&["delivery", key], span);
        }
        if delivery.drain.0 < delivery.call_timeout.0 || delivery.drain.0 > DRAIN_MAX {
            self.error(
                &["delivery", "drain"],
                "must be at least call_timeout, so that a send in flight can finish, and at most 1h",
            );
        }
        if delivery.backoff_max.0 < delivery.backoff_first.0 {
            self.error(&["delivery", "backoff_max"], "must be at least backoff_first");
        }
        if !(1..=IN_FLIGHT_MAX).contains(&delivery.in_flight) {
            self.error(&["delivery", "in_flight"], format!("must be from 1 to {IN_FLIGHT_MAX}"));
        }
        self.at_least_one(&["delivery", "attempts_max"], delivery.attempts_max.into());
    }

    fn schedule(&mut self, config: &Config) {
        let schedule = &config.schedule;
        if jiff::tz::TimeZone::get(&schedule.zone).is_err() {
            self.error(
                &["schedule", "zone"],
                "not a time zone: expected an IANA name, as in \"Europe/Berlin\" or \"UTC\"",
            );
        }
        if schedule.workdays.is_empty() {
            self.missing(&["schedule", "workdays"], "a week needs at least one workday");
        }
        route::days(self, &["schedule", "workdays"], &schedule.workdays, &route::WEEKDAYS);
        for (index, date) in schedule.holidays.iter().enumerate() {
            if date.len() != "2026-12-25".len() || date.parse::<jiff::civil::Date>().is_err() {
                self.error(
                    &["schedule", "holidays", &index.to_string()],
                    "not a date: expected year-month-day, as in \"2026-12-25\"",
                );
            }
        }
    }

    fn rest(&mut self, config: &Config) {
        if config.realm.chars().any(char::is_control) {
            self.error(&["realm"], "holds control characters");
        }
        if let Some(url) = &config.templates.ui_url {
            let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let clean = url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '\\'));
            if !clean || host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
                self.error(&["templates", "ui_url"], "not a web address: expected https://HOST or http://HOST");
            }
        }
        match &config.templates.unsubscribe {
            Some(url) => {
                if let Err(why) = crate::render::check_unsubscribe(url) {
                    self.error(&["templates", "unsubscribe"], format!("{why}: expected a mailto: or https: address"));
                }
            }
            None => {
                for (index, _) in config.routes.iter().enumerate().filter(|(_, route)| route.optional) {
                    self.error(
                        &["route", &index.to_string(), "optional"],
                        "needs templates.unsubscribe, which says where people stop these mails",
                    );
                }
            }
        }
        if config.log.problem().is_some() {
            self.error(
                &["log", "level"],
                "not a log level: expected error, warn, info, debug, trace, or directives as in \"info,owlpost=debug\"",
            );
        }
    }
}

fn local_name(listen: &str) -> bool {
    listen.strip_prefix("localhost:").is_some_and(|port| port.parse::<u16>().is_ok())
}

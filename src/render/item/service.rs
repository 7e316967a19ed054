//! What happens to domains, services and servers, and what nobody described, in words.

use super::{Reader, capital, fact, fact_if, readable};
use crate::model::Listed;
use crate::render::data;
use crate::render::text;
use crate::render::view::{Fact, Item};

impl Reader<'_> {
    pub(super) fn changed(&self, listed: &Listed, item: &mut Item) {
        let domain = self.or_unknown(listed, &["domain"], "domain");
        let kind = self.field(listed, "object.kind").or_else(|| self.field(listed, "kind"));
        let name = self.field(listed, "object.name").or_else(|| self.field(listed, "name"));
        let kind = kind.map(|k| k.to_lowercase());
        item.headline = match (kind, name) {
            (Some(kind), Some(name)) if kind != "domain" => format!("{domain}: {kind} {name} was changed"),
            _ => format!("Domain {domain} was changed"),
        };
        fact_if(item, "Operation", self.field(listed, "api"));
        fact_if(item, "By", self.field(listed, "actor"));
        fact(item, "Last change", self.dated(listed.time));
        self.link(item, "Open the domain in Athenz", listed, |domain| {
            Some(format!("/domain/{}/role", text::url_part(domain)))
        });
    }

    pub(super) fn certificate(&self, listed: &Listed, item: &mut Item) {
        let service = self.or_unknown(listed, &["service"], "service");
        let full = match self.field(listed, "domain") {
            Some(domain) if !service.contains('.') => format!("{domain}.{service}"),
            _ => service,
        };
        let on = self.field(listed, "instance").map(|i| format!(" on {i}")).unwrap_or_default();
        let what = format!("{full}{on}: certificate not refreshed");
        let keys = ["expires_at", "expiry_time"];
        self.says_end(listed, item, what, &keys, [", ends on", ", ended on"], ["ends", "ended"]);
        fact_if(item, "Provider", self.field(listed, "provider"));
        fact_if(item, "Host", self.field(listed, "host").or_else(|| self.field(listed, "hostname")));
        fact_if(item, "Last refreshed", ["updated_at", "update_time"].iter().find_map(|key| self.when(listed, key)));
        item.note = if item.overdue {
            "What uses it has stopped working. Check its agent, or remove the instance."
        } else {
            "Check that its agent still runs there, or remove the instance if it is gone."
        };
        self.link(item, "Open its services in Athenz", listed, |domain| {
            Some(format!("/domain/{}/service", text::url_part(domain)))
        });
    }

    pub(super) fn zts(&self, listed: &Listed, item: &mut Item) {
        let server = self.or_unknown(listed, &["server", "zts"], "server");
        let role = match (self.field(listed, "domain"), self.field(listed, "role")) {
            (Some(domain), Some(role)) if !role.contains(':') => format!("{domain}:role.{role}"),
            (_, Some(role)) => role,
            (Some(domain), None) => domain,
            (None, None) => "a role".into(),
        };
        let what = format!("ZTS {server}: no new credentials for {role}");
        let verbs = ["credentials end", "credentials ended"];
        self.says_end(listed, item, what, &["expires_at"], [", the old ones end on", ", the old ones ended on"], verbs);
        fact(item, "Reported", self.dated(listed.time));
        if let Some(message) = data::raw(&listed.data, "message") {
            item.quote = text::prose(&message, self.bounds.prose_bytes);
            item.quote_by = server;
        }
        item.note = if item.overdue {
            "What uses them has stopped working; check that ZTS reaches their issuer."
        } else {
            "What uses them stops when they end; check that ZTS reaches their issuer."
        };
        self.link(item, "Open the role in Athenz", listed, |domain| {
            let role = data::raw(&listed.data, "role").filter(|r| r.len() <= self.bounds.name_bytes)?;
            let name = match role.split_once(":role.") {
                Some((of, name)) if of == domain => name,
                None if !role.contains(':') => &*role,
                // Of another domain, or no role at all.
                _ => return None,
            };
            Some(format!("/domain/{}/role/{}/members", text::url_part(domain), text::url_part(name)))
        });
    }

    /// The headline with the end that the event names, if it does; the end as a fact, and how far away it is. Of `words`,
    /// for the headline, and `verbs` the first is for an end to come, the second for one that is past.
    fn says_end(
        &self,
        listed: &Listed,
        item: &mut Item,
        what: String,
        keys: &[&str],
        words: [&str; 2],
        verbs: [&str; 2],
    ) {
        let Some(end) = keys.iter().find_map(|key| data::time(&listed.data, key)).or(listed.deadline) else {
            item.says(what, String::new());
            // One that no calendar here can say stands as it was written.
            if let Some(written) = keys.iter().find_map(|key| self.when(listed, key)) {
                fact(item, capital(verbs[0]), written);
            }
            return;
        };
        item.overdue = end < self.now;
        let [word, verb] = if item.overdue { [words[1], verbs[1]] } else { [words[0], verbs[0]] };
        item.says(what, format!("{word} {}", self.zone.day(end, self.now)));
        fact(item, capital(verb), self.dated(end));
        item.due_in = self.until(verbs, end);
        // The headline and the fact say it.
        item.due.clear();
        item.due_full.clear();
    }

    /// A type nobody described: its name, what it is about, and its data as pairs.
    pub(super) fn other(&self, listed: &Listed, item: &mut Item) {
        let title = ["title", "summary"].iter().find_map(|k| data::raw(&listed.data, k));
        item.headline = match (title, &listed.subject_key) {
            (Some(title), _) => text::prose(&title, self.bounds.name_bytes),
            (None, Some(key)) => format!("{}: {}", readable(&item.kind), text::name(key, self.bounds.name_bytes)),
            (None, None) => readable(&item.kind),
        };
        fact(item, "Type", item.kind.clone());
        fact(item, "When", self.dated(listed.time));
        for (name, value) in data::pairs(&listed.data, listed.data_cut, self.bounds) {
            item.facts.push(Fact { name: name.into(), value: value.into() });
        }
    }
}

//! What is looked up for a digest between its claim and its begin.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::Deliver;
use crate::directory::audience;
use crate::model::Person;
use crate::store::{Intent, Leased};

impl Deliver {
    /// What the directory says now: addresses, and who is in each audience.
    pub(super) async fn intents(&self, claimed: &[Leased]) -> Result<Vec<Intent>, String> {
        let mut names: BTreeSet<&str> = claimed.iter().map(|l| l.recipient.as_str()).collect();
        names.extend(claimed.iter().flat_map(|l| &l.audiences).flat_map(|n| n.references.iter().map(String::as_str)));
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let found = self.directory.resolve(&names, self.patience.directory_age).await.map_err(|e| e.to_string())?;
        let people: HashMap<&str, &[Person]> =
            found.iter().map(|audience| (audience.reference.as_str(), audience.people.as_slice())).collect();
        let intent = |leased: &Leased| {
            let unknown = || Person { principal: leased.recipient.clone(), address: None, zone: None, language: None };
            let itself =
                people.get(leased.recipient.as_str()).and_then(|p| p.iter().find(|p| p.principal == leased.recipient));
            let recipient = itself.cloned().unwrap_or_else(unknown);
            let audiences = leased.audiences.iter().map(|named| {
                let all = named.references.iter().filter_map(|r| people.get(r.as_str())).flat_map(|p| p.iter());
                (named.event_number, audience(all, named.except.as_deref()))
            });
            Intent {
                lease: leased.lease,
                domain_allowed: self.is_allowed(recipient.address.as_deref()),
                audiences: audiences.collect(),
                recipient,
                // Of the whole call: a lease that ends in its middle would be taken for a doubt, and the mail sent again.
                send_within: self.patience.send_within + self.patience.call_timeout,
                lead: Duration::ZERO,
                waits: false,
            }
        };
        Ok(claimed.iter().map(intent).collect())
    }

    fn is_allowed(&self, address: Option<&str>) -> bool {
        let domain = address.and_then(|a| a.rsplit_once('@')).map(|(_, domain)| domain.to_ascii_lowercase());
        self.allowed_domains.is_empty() || domain.is_some_and(|d| self.allowed_domains.contains(&d))
    }
}

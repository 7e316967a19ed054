//! owlpost is the notification worker for Athenz, and for anything else that speaks CloudEvents: events come in, are told
//! apart from their copies, are gathered into one digest for each person, and leave as mails.
//!
//! # The picture
//! Two straight halves that meet only in the store; each has one acknowledgement.
//!
//! ```text
//!  Source --Batch--> decode --Event--> route --Entry--> Store.accept --Receipt--> Source.ack
//!                      \------- Refused ------------------^   (one transaction: dedupe key, event, items, closures, due time, dead letters)
//!  Store.claim --Leased--> directory --Intent--> Store.begin --Contents--> render --Email--> Mailer.send --Evidence--> Store.learn
//!  (a share of the day)                     (a permit for its moment)              (at its pace)            (share used, or back)
//!       ^------ upkeep: ended leases and doubts, due times after a changed cadence, purge, gauges ------'
//!  Store.unforwarded --Letter--> Outlet.send --confirmed--> Store.forwarded   (dead letters, to a broker)
//! ```
//!
//! An *item* is one event for one person by one route. It is in exactly one state: pending, in doubt, delivered,
//! withdrawn, suppressed or dead. A *digest* is what one mail to one person by one route lists.
//!
//! # The promises
//! 1. **The ledger balances**: every item ends in exactly one place, over every crash and restart.
//! 2. **Ack after durable**: a message is acknowledged when the store has committed all that follows from it.
//! 3. **A window belongs to the store**, not to a process: a restart never resets, splits, repeats or loses a digest.
//! 4. **No order is assumed**: a decision before its request gives the same digests.
//! 5. **A send is settled, not guessed**: the intent is written before the call, a timeout is *in doubt*.
//! 6. **The quota is the account's**: permits and shares of the day stand in the store. (`outbox` has none.)
//! 7. **A bad input costs nobody else anything**: it is kept with its reason, and can be replayed.
//! 8. **Nobody is mailed who should not be**: allowed domains are checked last; values are escaped; no address, subject or
//!    payload is logged.
//!
//! # The modules
//! Imports go downwards only; adapters (`source/*`, `store/*`, `mailer/*`, `directory/*`) know their trait, the nouns, spans
//! and metrics.
//!
//! | layer | modules |
//! | --- | --- |
//! | commands, one file each | [`cli`] |
//! | builds everything, orders the stop | [`app`] |
//! | the loops | [`ingest`], [`deliver`], [`upkeep`], [`forward`], [`account`]; the listener: [`http`] |
//! | traits with their adapters | [`source`], [`store`], [`mailer`], [`directory`], [`outlet`] |
//! | pure: no clock, no I/O | [`decode`], [`route`], [`schedule`], [`policy`], [`quota`], [`zone`] |
//! | mails | [`render`] |
//! | what the operator writes | [`config`] |
//! | what the clients of a broker share | [`kafka`], [`aws`] |
//! | what the process shows | [`metrics`], [`telemetry`], [`vitals`]; its pace: [`pace`] |
//! | the nouns | [`model`], [`span`], [`clock`] |

pub mod account;
pub mod app;
pub mod aws;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decode;
pub mod deliver;
pub mod directory;
pub mod forward;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod mailer;
pub mod metrics;
pub mod model;
pub mod outlet;
pub mod pace;
pub mod phase;
pub mod policy;
pub mod quota;
pub mod render;
pub mod route;
pub mod schedule;
pub mod source;
pub mod span;
pub mod store;
pub mod telemetry;
pub mod upkeep;
pub mod vitals;
pub mod zone;

//! Random walks: every move of the model, in any order, on small worlds. After each move the oracle looks at all rows.
//!
//! `OWLPOST_SEEDS` sets how many seeds are walked, `OWLPOST_SEED` walks one again; a failure prints its seed and trace.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use owlpost::store::{Answer, Begun, Learned, Leased};

use crate::bench::{LEASE, Setup};
use crate::events::{Ev, decision, expiring, news, renewed, request};
use crate::oracle::{Known, PENDING, Truth};
use crate::world::{Mail, World, some_worlds};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        if of.is_empty() { None } else { Some(&of[self.below(of.len())]) }
    }
}

fn setup(dice: &mut Dice) -> Setup {
    Setup {
        attempts_max: 1 + dice.below(3) as u32,
        resend: !dice.one_in(3),
        max_listed: [1, 2, 9][dice.below(3)],
        hold: dice.one_in(6),
        window: Duration::from_secs([0, 300][dice.below(2)]),
        grace: Duration::from_secs([0, 3_600][dice.below(2)]),
        ..Setup::default()
    }
}

/// 3 to 6 events of a few topics, for two people.
fn events(dice: &mut Dice) -> Vec<Ev> {
    (0..3 + dice.below(4))
        .map(|i| {
            let time = 1 + dice.below(5) as i64;
            let id = format!("e{i}");
            let event = match dice.below(10) {
                0..=2 => request(&id),
                3 => decision(&id),
                4 | 5 => expiring(&id, ["A", "B"][dice.below(2)]),
                6 => expiring(&id, "A").about(["m/review"]),
                7 => renewed(&id),
                8 => decision(&id).to(["ann"]),
                _ => news(&id),
            };
            let event = match dice.below(4) {
                0 if event.does == crate::events::Does::Opens => event.to(["ann"]),
                1 if event.does == crate::events::Does::Opens => event.to(["bob"]),
                2 if event.does == crate::events::Does::Opens => event.by(["ask", "copy"]),
                _ => event,
            };
            event.at(time)
        })
        .collect()
}

struct Walk {
    events: Vec<Ev>,
    leases: Vec<Leased>,
}

fn step(w: &mut World, walk: &mut Walk, dice: &mut Dice) {
    match dice.below(100) {
        0..=17 => {
            let batch: Vec<Ev> = (0..1 + dice.below(2)).filter_map(|_| dice.pick(&walk.events).cloned()).collect();
            w.accept_all(batch);
        }
        18..=31 => {
            let limit = 1 + dice.below(3) as u32;
            walk.leases.extend(w.claim_up_to(limit));
        }
        32..=47 => {
            let Some(leased) = dice.pick(&walk.leases).cloned() else { return };
            if w.begin(&leased) == Begun::Lost {
                walk.leases.retain(|l| l.lease != leased.lease);
            }
        }
        48..=67 => answer(w, dice),
        68..=72 => {
            w.pass(LEASE);
            w.expire();
        }
        73..=76 => {
            let grace = w.setup().grace;
            w.pass(grace);
            w.expire();
        }
        77..=79 => w.retry_is_due(),
        80..=84 => evidence(w, dice),
        85..=86 => {
            let who = ["ann", "bob"][dice.below(2)].to_owned();
            if !w.role.remove(&who) {
                w.role.insert(who);
            }
        }
        87 => w.suppress(["ann", "bob"][dice.below(2)]),
        88 => {
            if w.paused {
                w.resume();
            } else {
                w.pause();
            }
        }
        89..=91 => {
            let items: Vec<_> = w.before.items.iter().filter(|(_, r)| r.state == 5).map(|(k, _)| k.clone()).collect();
            if let Some(item) = dice.pick(&items) {
                w.replay(item);
            }
        }
        92 | 93 => {
            w.act(owlpost::store::Command::Release { digest: None, route: None });
        }
        94 | 95 => {
            if let Some(leased) = dice.pick(&walk.leases).cloned() {
                w.send_now(&leased);
            }
        }
        96 => {
            if let Some(leased) = dice.pick(&walk.leases).cloned() {
                w.release(&leased).unwrap();
            }
        }
        97 => w.restart(),
        98 => w.compact(),
        _ => {
            w.purge();
        }
    }
}

/// An answer to a call that is under way: perhaps long after its lease or its doubt.
fn answer(w: &mut World, dice: &mut Dice) {
    let open: Vec<Mail> = w.mails.iter().filter(|m| m.truth == Truth::Uncalled).cloned().collect();
    let Some(mail) = dice.pick(&open).cloned() else { return };
    let digest = w.before.digests.get(&mail.attempt.digest.number);
    let doubted = digest.is_none_or(|d| d.state != 3 || d.attempts != i64::from(mail.attempt.number));
    if doubted {
        // No call starts after its doubt (`send_by`): either it was under way before, or it says that it was too late.
        // Whether it was is decided here; what was sent counts against the item's one mail from now on.
        w.not_called(&mail);
        return;
    }
    match dice.below(9) {
        0..=2 => w.accepted(&mail),
        3 => w.lost_sent(&mail),
        4 => w.lost_unsent(&mail),
        5 => w.refused(&mail),
        6 => w.throttled(&mail),
        7 if dice.one_in(2) => w.permanent(&mail),
        // The call goes through, its answer comes when it likes: `evidence` below.
        _ => {
            w.taken(&mail);
            Learned::Known
        }
    };
}

/// A late answer, or an event from the mail server, about any attempt that was really sent; the truth, again and again.
fn evidence(w: &mut World, dice: &mut Dice) {
    let sent: Vec<Mail> = w.mails.iter().filter(|m| matches!(m.truth, Truth::Sent | Truth::Bounced)).cloned().collect();
    let unsent: Vec<Mail> =
        w.mails.iter().filter(|m| m.truth == Truth::Unsent && m.known == Known::Unknown).cloned().collect();
    if dice.one_in(4)
        && let Some(mail) = dice.pick(&unsent).cloned()
    {
        let answer = if dice.one_in(2) {
            Answer::Throttled { retry_in: Duration::from_secs(1), share: None, detail: "late".into() }
        } else {
            Answer::Retryable { detail: "late".into() }
        };
        w.learn(&mail, answer);
        return;
    }
    let Some(mail) = dice.pick(&sent).cloned() else { return };
    if dice.one_in(3) {
        w.bounced(&mail)
    } else {
        w.evidence(&mail)
    };
}

/// What was sent and bounced without a word stays as it is; all else must come to its end.
fn walk(seed: u64) {
    let mut dice = Dice::new(seed);
    let setup = setup(&mut dice);
    for mut w in some_worlds(setup, seed) {
        let mut dice = Dice::new(seed ^ 0x5eed);
        if dice.one_in(2) {
            w.role.insert("bob".into());
        }
        let mut walk = Walk { events: events(&mut dice), leases: vec![] };
        let moves = 30 + dice.below(40);
        let walked = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..moves {
                step(&mut w, &mut walk, &mut dice);
            }
            w.finish();
        }));
        if let Err(why) = walked {
            let events: Vec<String> = walk.events.iter().map(|e| format!("{e:?}")).collect();
            eprintln!("OWLPOST_SEED={seed} {:?}\n{}\n{}", w.setup(), events.join("\n"), w.story());
            resume_unwind(why);
        }
        assert!(w.before.items.values().all(|row| row.state != PENDING));
    }
}

#[test]
fn no_walk_through_any_faults_breaks_a_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OWLPOST_SEED") {
        Some(seed) => walk(seed),
        None => (0..number("OWLPOST_SEEDS").unwrap_or(300)).for_each(walk),
    }
}

//! The traffic of one seed: what happened in the world, and what it means, told without owlpost's help.

use std::collections::BTreeSet;

/// A small generator (SplitMix64); every stream of a seed has a name of its own, so that no draw moves another.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, stream: &str) -> Dice {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
        for byte in stream.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut dice = Dice(state);
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in `percent` of 100 throws.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Opens,
    Closes,
    Informs,
}

/// An event as the world knows it.
#[derive(Clone, Debug)]
pub struct Fact {
    pub id: String,
    pub source: String,
    pub does: Does,
    /// What it is about; the same text is the same topic.
    pub topics: Vec<String>,
    pub time_s: i64,
    pub date: Option<String>,
    pub json: String,
    /// Virtual milliseconds from the start at which it first reaches the source, and how often it is handed out.
    pub arrives_ms: u64,
    pub copies: u64,
}

impl Fact {
    pub fn rank(&self) -> (i64, bool, &str, &str) {
        (self.time_s, self.does == Does::Closes, &self.id, &self.source)
    }

    pub fn shares_topic(&self, other: &Fact) -> bool {
        self.topics.iter().any(|t| other.topics.contains(t))
    }
}

pub const PEOPLE: [&str; 3] = ["user.ann", "user.bob", "user.cid"];
pub const ROLE: &str = "sports:role.admin";

/// Seconds of the first event; the clock of the run starts a little later.
pub const BASE_S: i64 = 1_795_000_000;

pub fn traffic(seed: u64) -> Vec<Fact> {
    let mut dice = Dice::new(seed, "traffic");
    let n = 6 + dice.below(18);
    let span_ms = 60_000 * (5 + dice.below(120));
    let mut facts: Vec<Fact> = (0..n).map(|i| fact(&mut dice, i, span_ms)).collect();
    // Some ids come from two sources: equal in everything but the source.
    if dice.chance(30) {
        let mut twin = facts[0].clone();
        twin.source = "zms/b".into();
        twin.json = twin.json.replace("\"zms/a\"", "\"zms/b\"");
        twin.arrives_ms = dice.below(span_ms);
        facts.push(twin);
    }
    facts
}

/// What producers send that is no event.
pub fn poison(seed: u64) -> Vec<String> {
    let mut dice = Dice::new(seed, "poison");
    let n = if dice.chance(50) { 1 + dice.below(3) } else { 0 };
    (0..n)
        .map(|i| match dice.below(4) {
            0 => format!("no event {i}"),
            1 => format!(r#"{{"specversion":"1.0","id":"p{i}","source":"zms/a","data":{{}}}}"#),
            2 => {
                format!(r#"{{"specversion":"9.9","id":"p{i}","source":"zms/a","type":"io.athenz.domain.changed.v1"}}"#)
            }
            _ => format!(r#"{{"specversion":"1.0","id":"p{i}","source":"zms/a","type":"io.athenz.domain.changed.v1""#),
        })
        .collect()
}

fn fact(dice: &mut Dice, i: u64, span_ms: u64) -> Fact {
    // Few subjects and few moments, so that things meet.
    let member = *dice.pick(&["user.dan", "user.eve"]);
    let time_s = BASE_S + dice.below(8) as i64 * 60;
    let role = format!(r#""domain":"sports","collection":{{"kind":"role","name":"readers"}},"member":"{member}""#);
    let date = *dice.pick(&["2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"]);
    let (kind, does, topics, data, dated, named): (&'static str, Does, Vec<String>, String, bool, bool) =
        match dice.below(11) {
            0..=2 => (
                "io.athenz.membership.requested.v1",
                Does::Opens,
                vec![format!("request {member}")],
                format!(r#"{role},"change":"add","requester":"{member}","reason":"work""#),
                false,
                true,
            ),
            3..=4 => (
                "io.athenz.membership.decided.v1",
                Does::Closes,
                vec![format!("request {member}")],
                format!(r#"{role},"change":"add","requester":"{member}","decision":"approve","actor":"user.boss""#),
                false,
                false,
            ),
            5 => (
                "io.athenz.membership.withdrawn.v1",
                Does::Closes,
                vec![format!("request {member}")],
                format!(r#"{role},"change":"add","requester":"{member}""#),
                false,
                false,
            ),
            6..=7 => (
                "io.athenz.membership.expiring.v1",
                Does::Opens,
                vec![format!("expiring {member}")],
                format!(r#"{role},"expires_at":"{date}""#),
                true,
                true,
            ),
            8 => (
                "io.athenz.membership.review_due.v1",
                Does::Opens,
                vec![format!("review {member}")],
                format!(r#"{role},"review_by":"{date}""#),
                true,
                true,
            ),
            9 => (
                "io.athenz.membership.renewed.v1",
                Does::Closes,
                vec![format!("expiring {member}"), format!("review {member}")],
                role.clone(),
                false,
                false,
            ),
            _ => (
                "io.athenz.domain.changed.v1",
                Does::Informs,
                vec![],
                r#""domain":"sports","object":{"kind":"role","name":"readers"},"api":"putrole""#.to_owned(),
                false,
                true,
            ),
        };
    let recipients = if named { recipients(dice) } else { String::new() };
    let id = format!("e{i}");
    let time = jiff::Timestamp::from_second(time_s).unwrap();
    let json = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"zms/a","type":"{kind}","time":"{time}","data":{{{data}{recipients}}}}}"#
    );
    Fact {
        id,
        source: "zms/a".into(),
        does,
        topics,
        time_s,
        date: dated.then(|| date.to_owned()),
        json,
        arrives_ms: dice.below(span_ms),
        copies: 1 + if dice.chance(25) { 1 + dice.below(2) } else { 0 },
    }
}

/// A role half of the time: who that is, is decided when the mail leaves.
fn recipients(dice: &mut Dice) -> String {
    if dice.chance(50) {
        return format!(r#","recipients":["{ROLE}"]"#);
    }
    let mut who = BTreeSet::new();
    for _ in 0..1 + dice.below(2) {
        who.insert(*dice.pick(&PEOPLE));
    }
    let list: Vec<String> = who.iter().map(|p| format!("\"{p}\"")).collect();
    format!(r#","recipients":[{}]"#, list.join(","))
}

//! Rows that a stranger holds: somebody's long transaction, a console that was left open. What needs them waits; nothing else
//! does, no answer is lost, and no mail goes twice because of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use owlpost::cli::demo::endpoint::{Account, Endpoint, Fault};
use owlpost::model::{Effect, Entry, Time, Topic};
use owlpost::quota::Terms;
use owlpost::store::postgres::Postgres;
use owlpost::store::{
    ANSWERS_FIRST, Answer, Ask, Begun, Command, Delivery as _, Desk as _, Evidence, Intent, Learned, Leased, Opening,
    Upkeep as _,
};

use crate::failover::configure;
use crate::postgres::{Admin, Database, Server, Value};
use crate::process::{Worker, owlpost, post, until};
use crate::store::{NOW, accept, ask, news, open, runtime, settings, try_open, verified};
use crate::traffic::{accepted, intent};

/// Far less than the 20 seconds of one lock, and far more than what is to be done costs on a loaded machine.
const SOON: Duration = Duration::from_secs(10);

const HELD: &str = "SELECT 1 FROM mailbox WHERE recipient = 'bob' FOR UPDATE";
const HELD_DIGEST: &str =
    "SELECT 1 FROM digest WHERE mailbox_no = (SELECT no FROM mailbox WHERE recipient = 'bob') FOR UPDATE";

/// Three people have a mail to come; gives who else looks at the database.
fn three(database: &Database) -> (Arc<Postgres>, Admin) {
    let store = open(database.url());
    accept(&store, vec![news("n1", "ann"), news("n2", "bob"), news("n3", "kim")]).unwrap();
    (store, database.admin())
}

fn claim(store: &Postgres, now: Time) -> Vec<Leased> {
    let mut leased = runtime().block_on(store.claim(now, &ask())).unwrap();
    leased.sort_by(|a, b| a.recipient.cmp(&b.recipient));
    leased
}

fn begin(store: &Postgres, now: Time, leased: &[Leased]) -> Vec<Begun> {
    runtime().block_on(store.begin(now, Arc::new(leased.iter().map(intent).collect()))).unwrap()
}

fn learn(store: &Postgres, now: Time, evidence: Vec<Evidence>) -> Vec<Learned> {
    runtime().block_on(store.learn(now, Arc::new(evidence))).unwrap()
}

fn answers(begun: Vec<Begun>) -> Vec<Evidence> {
    let mail = |begun| match begun {
        Begun::Send(mail) => accepted(mail.attempt),
        other => panic!("it may leave, not {other:?}"),
    };
    begun.into_iter().map(mail).collect()
}

/// One person is to decide.
fn request(id: usize, who: &str) -> Entry {
    let mut entry = news(id, who);
    if let Entry::Event(arrival) = &mut entry {
        arrival.event.effect = Effect::Opens { topic: Topic::of(&["test", who]), date: None };
    }
    entry
}

fn after(seconds: u64) -> Time {
    NOW.plus(Duration::from_secs(seconds))
}

fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    assert!(begun.elapsed() < SOON, "{what} took {:?}", begun.elapsed());
    done
}

fn count(admin: &Admin, what: &str) -> i64 {
    match admin.rows(&format!("SELECT count(*) FROM {what}"))[0][0] {
        Value::Int(n) => n,
        ref other => panic!("no count: {other:?}"),
    }
}

#[test]
fn what_a_stranger_holds_begins_later_and_the_others_now() {
    for held in [HELD, HELD_DIGEST] {
        let database = Server::shared().database(None);
        let (store, other) = three(&database);
        let terms = Terms { per_second: Some(1_000.0), burst: 10, ..Terms::default() };
        runtime().block_on(store.account(NOW, terms, None)).unwrap();
        let leased = claim(&store, NOW);
        other.run(&format!("BEGIN; {held}"));
        for turn in 0..2 {
            let begun = in_time("a begin", || begin(&store, NOW, &leased[if turn == 0 { 0..3 } else { 1..2 }]));
            let bobs = if turn == 0 { &begun[1] } else { &begun[0] };
            assert_eq!(*bobs, Begun::Later);
            assert!(turn > 0 || [&begun[0], &begun[2]].iter().all(|one| matches!(one, Begun::Send(_))), "{begun:?}");
        }
        let look = database.admin();
        assert_eq!(count(&look, "attempt"), 2, "nothing of it is written");
        assert_eq!(count(&look, "digest WHERE state = 2 AND attempts = 0"), 1, "its lease goes on");
        let permits = || look.rows("SELECT tat FROM quota");
        let before = permits();
        assert_eq!(begin(&store, NOW, &leased[1..2]), [Begun::Later]);
        assert_eq!(permits(), before, "it takes no permit");
        // It goes back, as far as that is possible.
        in_time("a release", || runtime().block_on(store.release(NOW, Arc::new(vec![leased[1].lease])))).unwrap();
        other.run("ROLLBACK");
        let begun = begin(&store, NOW, &leased[1..2]);
        assert!(matches!(&begun[0], Begun::Send(mail) if mail.attempt.number == 1), "{begun:?}");
        assert_ne!(permits(), before, "and now it does");
    }
}

#[test]
fn what_is_not_to_wait_is_busy_at_once_and_the_others_begin() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    let leased = claim(&store, NOW);
    other.run(&format!("BEGIN; {HELD}"));
    let hasty = |leased: &[Leased]| {
        let intents = leased.iter().map(|one| Intent { waits: false, ..intent(one) }).collect();
        let begun = Instant::now();
        let all = runtime().block_on(store.begin(NOW, Arc::new(intents))).unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "one that waits takes two seconds, this took {:?}",
            begun.elapsed()
        );
        all
    };
    let begun = hasty(&leased);
    assert!(matches!(&begun[..], [Begun::Send(_), Begun::Busy, Begun::Send(_)]), "{begun:?}");
    assert_eq!(count(&database.admin(), "attempt"), 2, "nothing of it is written");
    assert_eq!(hasty(&leased[1..2]), [Begun::Busy]);
    other.run("ROLLBACK");
    assert!(matches!(&hasty(&leased[1..2])[..], [Begun::Send(mail)] if mail.attempt.number == 1));
}

#[test]
fn what_a_stranger_holds_is_not_claimed_and_the_others_are() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    other.run(&format!("BEGIN; {HELD_DIGEST}"));
    let leased = in_time("a claim", || claim(&store, NOW));
    assert_eq!(leased.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["ann", "kim"]);
    accept(&store, vec![news("n4", "lou")]).unwrap();
    let leased = in_time("another claim", || claim(&store, NOW));
    assert_eq!(leased.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["lou"]);
    other.run("ROLLBACK");
    assert_eq!(claim(&store, NOW).len(), 1);
}

/// However many of what is due first are somebody's.
#[test]
fn what_strangers_hold_takes_no_place_in_a_claim() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    other.run("BEGIN; SELECT 1 FROM digest FOR UPDATE");
    accept(&store, (0..3).map(|n| news(format!("m{n}"), &format!("late{n}"))).collect()).unwrap();
    let few = Ask { limit: 3, ..ask() };
    let leased = in_time("a claim", || runtime().block_on(store.claim(after(1), &few))).unwrap();
    assert_eq!(leased.len(), 3, "{leased:?}");
    assert!(leased.iter().all(|one| one.recipient.starts_with("late")), "{leased:?}");
}

/// An index in the making lets mails begin and keeps their answers out, as does a row that only an answer needs. Another
/// worker's upkeep, which finds their leases over, must not take that for a doubt: whoever called knows better.
#[test]
fn answers_that_are_kept_out_come_before_the_end_of_their_leases_whatever_keeps_them_out() {
    // More than one turn finds held one by one, where a table is held.
    let tables = ["item", "attempt", "standing", "mail_delta", "ledger_delta"];
    let holds = tables.map(|table| (format!("LOCK TABLE {table} IN SHARE MODE"), 60)).into_iter();
    let rows = ["item", "attempt"].map(|table| (format!("SELECT 1 FROM {table} FOR UPDATE"), 3));
    for (hold, mails) in holds.chain(rows) {
        let database = Server::shared().database(None);
        let one = open(database.url());
        // (Where somebody waits for a decision, it is noted who was told.)
        accept(&one, (0..mails).map(|n| request(n, &format!("user{n}"))).collect()).unwrap();
        let answers = answers(begin(&one, NOW, &claim(&one, NOW)));
        assert_eq!(answers.len(), mails);
        let another = open(database.url());
        let index = database.admin();
        index.run(&format!("BEGIN; {hold}"));
        let held = in_time("the answers", || learn(&one, NOW, answers.clone()));
        assert!(held.iter().all(|one| *one == Learned::Held), "{hold}: {held:?}");
        // Leases are over, and upkeep comes by once.
        let tidied = in_time("upkeep", || runtime().block_on(another.expire(after(3_600), false))).unwrap();
        assert_eq!((tidied.leases_ended, tidied.doubts_ended), (0, 0), "{hold}");
        index.run("ROLLBACK");
        let at = after(3_601);
        let tidied = runtime().block_on(another.expire(at, false)).unwrap();
        assert_eq!(
            (tidied.leases_ended, tidied.doubts_ended),
            (0, 0),
            "{hold}: whoever called has a moment to say how it went"
        );
        let told = learn(&one, at, answers);
        assert!(told.iter().all(|one| *one == Learned::Settled), "{hold}: {told:?}");
        assert_eq!(verified(&one)["delivered"], mails as u64, "{hold}");
        assert_eq!(count(&database.admin(), "attempt"), mails as i64, "{hold}: nobody was told twice");
    }
}

/// Of a window with more than a mail lists, somebody has the most urgent: the others leave, and no other mail waits.
#[test]
fn an_item_that_a_stranger_holds_stays_in_its_window_and_holds_up_no_claim() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    accept(&store, (0..120).map(|n| news(format!("b{n}"), "bob")).collect()).unwrap();
    other.run("BEGIN; SELECT 1 FROM item WHERE mailbox_no = (SELECT no FROM mailbox WHERE recipient = 'bob') ORDER BY event_no LIMIT 10 FOR UPDATE");
    let leased = in_time("a claim", || claim(&store, NOW));
    assert_eq!(leased.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["ann", "bob", "kim"]);
    other.run("SELECT 1 FROM item FOR UPDATE");
    accept(&store, vec![news("n9", "lou")]).unwrap();
    let leased = in_time("another claim", || claim(&store, after(1)));
    assert!(leased.iter().any(|one| one.recipient == "lou"), "{leased:?}");
    other.run("ROLLBACK");
}

/// `late_finish_counts`, before it is late: whoever knows the answer lets nothing else become of the digest.
#[test]
fn an_answer_that_a_stranger_keeps_out_is_said_again_and_its_lease_is_no_doubt_meanwhile() {
    for held in [HELD, HELD_DIGEST] {
        let database = Server::shared().database(None);
        let (store, other) = three(&database);
        let answers = answers(begin(&store, NOW, &claim(&store, NOW)));
        other.run(&format!("BEGIN; {held}"));
        let learned = in_time("the answers", || learn(&store, NOW, answers.clone()));
        assert_eq!(learned, [Learned::Settled, Learned::Held, Learned::Settled]);
        let learned = in_time("the answer again", || learn(&store, NOW, vec![answers[1].clone()]));
        assert_eq!(learned, [Learned::Held]);
        for hours in 1..3 {
            let tidied = in_time("upkeep", || runtime().block_on(store.expire(after(3_600 * hours), true))).unwrap();
            assert_eq!((tidied.leases_ended, tidied.doubts_ended), (0, 0));
        }
        other.run("ROLLBACK");
        // Free by now, and the answer is still on its way.
        let tidied = runtime().block_on(store.expire(after(36_000), true)).unwrap();
        assert_eq!((tidied.leases_ended, tidied.doubts_ended), (0, 0));
        assert_eq!(learn(&store, after(36_000), vec![answers[1].clone()]), [Learned::Settled]);
        assert_eq!(verified(&store)["delivered"], 3);
        assert_eq!(count(&database.admin(), "attempt"), 3, "nobody was told twice");
    }
}

/// An outage of the store keeps an answer out as well: what this worker knows, its upkeep does not take for lost.
#[test]
fn an_answer_that_failed_keeps_its_lease_from_becoming_a_doubt() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    let answers = answers(begin(&store, NOW, &claim(&store, NOW)));
    other.run("CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'away' USING ERRCODE = '53100'; END $$; \
               CREATE TRIGGER away BEFORE UPDATE ON attempt FOR EACH ROW EXECUTE FUNCTION away()");
    runtime().block_on(store.learn(NOW, Arc::new(answers.clone()))).unwrap_err();
    let tidied = runtime().block_on(store.expire(after(36_000), true)).unwrap();
    assert_eq!((tidied.leases_ended, tidied.doubts_ended), (0, 0));
    other.run("DROP TRIGGER away ON attempt");
    assert_eq!(learn(&store, after(36_000), answers), [Learned::Settled; 3]);
    assert_eq!(verified(&store)["delivered"], 3);
}

/// The answer is another worker's, and nobody here knows of it.
#[test]
fn a_lease_that_ended_in_a_strangers_hands_is_left_to_the_worker_that_has_its_answer() {
    let database = Server::shared().database(None);
    let (one, other) = three(&database);
    let two = try_open(settings(database.url(), Opening::Worker)).unwrap();
    let answers = answers(begin(&one, NOW, &claim(&one, NOW)));
    other.run(&format!("BEGIN; {HELD}"));
    learn(&one, NOW, answers.clone());
    let ends = |seconds: u64| {
        let tidied = in_time("upkeep", || runtime().block_on(two.expire(after(seconds), false))).unwrap();
        (tidied.leases_ended, tidied.doubts_ended, claim(&two, after(seconds)).len())
    };
    assert_eq!(ends(100), (0, 0, 0), "held");
    other.run("ROLLBACK");
    let free = 200;
    assert_eq!(ends(free), (0, 0, 0), "free now, and who has its answer comes first");
    let respite = ANSWERS_FIRST.as_secs();
    assert_eq!(ends(free + respite - 1), (0, 0, 0));
    assert_eq!(learn(&one, after(free + respite - 1), vec![answers[1].clone()]), [Learned::Settled]);
    assert_eq!(ends(36_000), (0, 0, 0));
    assert_eq!(verified(&one)["delivered"], 3);
    assert_eq!(count(&database.admin(), "attempt"), 3);
}

/// He lets go at the very end of the lease: the other worker looks first, and is not to be quicker than the one with the answer.
#[test]
fn a_stranger_who_lets_go_when_the_lease_ends_makes_no_doubt() {
    let database = Server::shared().database(None);
    let (one, other) = three(&database);
    let two = try_open(settings(database.url(), Opening::Worker)).unwrap();
    let answers = answers(begin(&one, NOW, &claim(&one, NOW)));
    other.run(&format!("BEGIN; {HELD}"));
    learn(&one, NOW, answers.clone());
    // Leases end after 90 seconds, and upkeep comes by at least every 5.
    let ends = |seconds: u64| runtime().block_on(two.expire(after(seconds), false)).unwrap().leases_ended;
    assert_eq!(in_time("upkeep", || ends(85)), 0);
    other.run("ROLLBACK");
    assert_eq!([ends(89), ends(90), ends(90 + ANSWERS_FIRST.as_secs() - 1)], [0; 3]);
    assert_eq!(learn(&one, after(91), vec![answers[1].clone()]), [Learned::Settled]);
    assert_eq!(verified(&one)["delivered"], 3);
}

#[test]
fn a_lease_of_a_dead_worker_ends_although_a_stranger_held_it_once() {
    let database = Server::shared().database(None);
    let (one, other) = three(&database);
    begin(&one, NOW, &claim(&one, NOW));
    drop(one);
    let two = try_open(settings(database.url(), Opening::Worker)).unwrap();
    other.run(&format!("BEGIN; {HELD}"));
    let ends = |seconds: u64| runtime().block_on(two.expire(after(seconds), false)).unwrap().leases_ended;
    // What had to wait with it gets the same moment for an answer: nobody knows what kept it waiting.
    assert_eq!([in_time("upkeep", || ends(100)), in_time("upkeep", || ends(101))], [0; 2]);
    assert_eq!(in_time("upkeep", || ends(100 + ANSWERS_FIRST.as_secs())), 2, "the others are not held up longer");
    other.run("ROLLBACK");
    assert_eq!([ends(200), ends(200 + ANSWERS_FIRST.as_secs()), ends(36_000)], [0, 1, 0]);
}

/// The real worker, with a server that takes its mails.
fn sends(
    database: &Database,
    per_second: f64,
    faults: impl IntoIterator<Item = Fault>,
) -> (Endpoint, Worker, tempfile::TempDir) {
    let account = Account { per_second: 1_000.0, per_day: -1.0, enforced: false, ..Account::default() };
    let endpoint = runtime().block_on(Endpoint::start(account)).unwrap();
    endpoint.then(faults);
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &database.url());
    let file = folder.path().join("owlpost.toml");
    let mailer = format!(
        "kind = \"ses\"\nregion = \"eu-west-1\"\nendpoint_url = \"{}\"\n[quota]\nper_second = {per_second}\n\
         per_day = 1000\n[recipients]\nallowed_domains = [\"example.com\"]",
        endpoint.url()
    );
    let text = std::fs::read_to_string(&file).unwrap().replace("kind = \"outbox\"\ndir = \"outbox\"", &mailer);
    std::fs::write(&file, text).unwrap();
    let mut command = owlpost(folder.path());
    command.args(["run", "-c", "owlpost.toml"]);
    let keys =
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let worker = Worker::spawn(folder.path(), {
        command.envs(keys);
        command
    });
    (endpoint, worker, folder)
}

fn event(n: usize) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"e{n}","source":"zms/test","type":"io.athenz.domain.changed.v1","data":{{"domain":"sports","object":{{"kind":"role","name":"r"}},"recipients":["user.p{n}"]}}}}"#
    )
}

/// At a stop, as long as sends in flight would have: then it is stored, and no doubt.
#[test]
fn an_answer_that_a_stranger_keeps_out_is_kept_over_a_stop_until_the_drain_time() {
    let database = Server::shared().database(None);
    let (endpoint, mut worker, _folder) = sends(&database, 100.0, [Fault::Hang(Duration::from_secs(2))]);
    let address = worker.address();
    until("an acknowledgement", || post(&address, &[event(1)]).then_some(()));
    let (look, other) = (database.admin(), database.admin());
    until("a call", || (count(&look, "digest WHERE state = 3") == 1).then_some(()));
    other.run("BEGIN; SELECT 1 FROM mailbox FOR UPDATE");
    until("the answer", || worker.log().contains("somebody else's transaction holds").then_some(()));
    worker.signal("TERM");
    until("the stop", || worker.log().contains("answers are kept until it is back").then_some(()));
    assert!(worker.is_running());
    other.run("ROLLBACK");
    worker.ends_with(0);
    assert_eq!((endpoint.count(), count(&look, "attempt WHERE outcome = 2")), (1, 1));
    assert_eq!(count(&look, "digest WHERE state = 6"), 1);
}

/// The real worker: what it has leased and can not begin waits in its hands, the others leave, and it leaves under the same
/// lease when the stranger lets go.
#[test]
fn a_worker_begins_later_what_a_stranger_holds_and_sends_the_others() {
    const PEOPLE: usize = 12;
    let database = Server::shared().database(None);
    // So slow that what is leased waits for its permit, and can be held meanwhile.
    let (endpoint, mut worker, _folder) = sends(&database, 2.0, []);
    let address = worker.address();
    let events: Vec<String> = (0..PEOPLE).map(event).collect();
    until("an acknowledgement", || post(&address, &events).then_some(()));
    let (look, other) = (database.admin(), database.admin());
    let held = until("one that is leased and has not begun", || {
        let leased = look.rows("SELECT no, mailbox_no FROM digest WHERE state = 2 LIMIT 1");
        let [Value::Int(digest), Value::Int(mailbox)] = leased.first()?[..] else { return None };
        other.run(&format!("BEGIN; SELECT 1 FROM mailbox WHERE no = {mailbox} FOR UPDATE"));
        if look.rows(&format!("SELECT state FROM digest WHERE no = {digest}")) == [[Value::Int(2)]] {
            return Some(digest);
        }
        other.run("ROLLBACK");
        None
    });
    until("all the others", || (endpoint.count() as usize == PEOPLE - 1).then_some(()));
    let row = || look.rows(&format!("SELECT state, token, attempts FROM digest WHERE no = {held}"));
    assert_eq!(row(), [[Value::Int(2), Value::Int(1), Value::Int(0)]], "leased, and nothing is burned");
    other.run("ROLLBACK");
    let free = Instant::now();
    until("its mail", || (endpoint.count() as usize == PEOPLE).then_some(()));
    assert!(free.elapsed() < SOON, "{:?}", free.elapsed());
    until("its end", || (row() == [[Value::Int(6), Value::Int(1), Value::Int(1)]]).then_some(()));
    assert_eq!(count(&look, "attempt WHERE outcome <> 2 AND free = 0"), 0, "no doubt, nothing burned");
    worker.signal("TERM");
    worker.ends_with(0);
}

/// At a start: what is waited for there would keep a worker from beginning.
#[test]
fn a_worker_begins_and_plans_its_windows_although_a_stranger_holds_some() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    let leased = claim(&store, NOW);
    let nobody_knows = |one: Evidence| Evidence { answer: Answer::Ambiguous { detail: "?".into() }, ..one };
    learn(&store, NOW, answers(begin(&store, NOW, &leased)).into_iter().map(nobody_knows).collect());
    // In doubt, and a window behind it.
    accept(&store, vec![news("m1", "ann"), news("m2", "bob"), news("m3", "kim")]).unwrap();
    other.run(&format!("BEGIN; {HELD}"));
    let new = in_time("a start", || try_open(settings(database.url(), Opening::Worker))).unwrap();
    for limit in [2, 500] {
        let mut cursor = Some(0);
        let mut turns = 0;
        while let Some(from) = cursor {
            cursor = in_time("a plan", || runtime().block_on(new.replan(NOW, from, limit))).unwrap();
            turns += 1;
        }
        assert!(turns <= 3, "{turns} turns");
    }
    other.run("ROLLBACK");
}

/// Each worker that starts looks at all windows: what it would plan as it is planned it neither waits for nor holds.
#[test]
fn a_window_whose_plan_stands_is_only_looked_at() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    other.run(&format!("BEGIN; {HELD}"));
    let before = other.rows(
        "SELECT no, CAST(CAST(xmin AS text) AS bigint), CAST(CAST(xmax AS text) AS bigint) FROM mailbox ORDER BY no",
    );
    assert_eq!(in_time("a plan", || runtime().block_on(store.replan(NOW, 0, 500))).unwrap(), None);
    let after = other.rows(
        "SELECT no, CAST(CAST(xmin AS text) AS bigint), CAST(CAST(xmax AS text) AS bigint) FROM mailbox ORDER BY no",
    );
    assert_eq!(before, after);
    other.run("ROLLBACK");
}

/// All workers want the account's row: with enough room in the day, a claim only looks at it.
#[test]
fn a_claim_with_room_waits_for_nobody_who_changes_the_quota() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    let terms = Terms { per_second: Some(1_000.0), per_day: Some(1_000_000), burst: 1, ..Terms::default() };
    runtime().block_on(store.account(NOW, terms, None)).unwrap();
    other.run("BEGIN; SELECT 1 FROM quota FOR UPDATE");
    assert_eq!(in_time("a claim", || claim(&store, NOW)).len(), 3);
    other.run("ROLLBACK");
}

#[test]
fn an_operators_list_is_done_but_for_what_a_stranger_holds() {
    let database = Server::shared().database(None);
    let (store, other) = three(&database);
    let begun = begin(&store, NOW, &claim(&store, NOW));
    let refused = |one: Evidence| Evidence { answer: Answer::Permanent { detail: "no such user".into() }, ..one };
    learn(&store, NOW, answers(begun).into_iter().map(refused).collect());
    let look = database.admin();
    let ids: Vec<String> = look
        .rows("SELECT 'it-' || event_no || '-' || mailbox_no FROM item JOIN mailbox m ON m.no = mailbox_no ORDER BY m.recipient")
        .into_iter()
        .map(|row| match &row[0] {
            Value::Text(id) => id.clone(),
            other => panic!("no id: {other:?}"),
        })
        .collect();
    other.run(&format!("BEGIN; {HELD}"));
    let replay = Command::ReplayItems { ids: ids.clone() };
    let report = in_time("a replay", || runtime().block_on(store.act(NOW, &replay))).unwrap();
    assert_eq!((report.changed, report.refused.len()), (2, 1));
    assert!(report.refused[0].starts_with(&ids[1]) && report.refused[0].contains("somebody else"), "{report:?}");
    other.run("ROLLBACK");
    let replay = Command::ReplayItems { ids: vec![ids[1].clone()] };
    assert_eq!(runtime().block_on(store.act(NOW, &replay)).unwrap().changed, 1);
    assert_eq!(verified(&store)["pending"], 3);
}

/// Of a purge: it waits for hardly anybody, so that nobody waits for it longer than its few milliseconds.
#[test]
fn what_a_stranger_holds_leaves_with_a_later_purge_and_the_rest_now() {
    const EVENT: &str = "SELECT event_no FROM item JOIN mailbox ON no = mailbox_no WHERE recipient = 'bob'";
    const DIGEST: &str = "SELECT digest_no FROM item JOIN mailbox ON no = mailbox_no WHERE recipient = 'bob'";
    let one = (2, [1; 5]);
    for (held, (leave, stay)) in [
        (format!("item WHERE event_no = ({EVENT})"), one),
        (format!("subject WHERE topic = (SELECT topic FROM event WHERE no = ({EVENT}))"), one),
        (format!("event WHERE no = ({EVENT})"), one),
        (format!("digest WHERE no = ({DIGEST})"), (3, [0, 0, 0, 1, 1])),
        // It is no use looking at each of these: what is with it stays until the next walk.
        (format!("attempt WHERE digest_no = ({DIGEST})"), (0, [3; 5])),
    ] {
        let database = Server::shared().database(None);
        let store = open(database.url());
        let other = database.admin();
        accept(&store, vec![request(1, "ann"), request(2, "bob"), request(3, "kim")]).unwrap();
        let leased = claim(&store, NOW);
        assert_eq!(leased.len(), 3);
        assert_eq!(learn(&store, NOW, answers(begin(&store, NOW, &leased))).len(), 3);
        other.run(&format!("BEGIN; SELECT 1 FROM {held} FOR UPDATE"));
        let old = after(400 * 86_400);
        let purge = || in_time("a purge", || runtime().block_on(store.purge(old)).unwrap().purged_items);
        let look = database.admin();
        assert_eq!(purge(), leave, "{held}");
        assert_eq!(["item", "event", "subject", "digest", "attempt"].map(|table| count(&look, table)), stay, "{held}");
        other.run("ROLLBACK");
        assert_eq!(purge(), 3 - leave, "{held}");
        let tables = ["item", "event", "subject", "standing", "digest", "attempt", "mailbox"];
        assert_eq!(tables.map(|table| count(&look, table)), [0; 7], "{held}");
        verified(&store);
    }
}

/// A paused route may have a million of them, and intake adds to each: a claim that looks for what is not paused takes
/// nobody's row but of what it claims.
#[test]
fn a_claim_locks_nothing_of_what_is_paused() {
    let database = Server::shared().database(None);
    let (store, admin) = three(&database);
    admin.run("UPDATE mailbox SET route = 'other' WHERE recipient <> 'ann'; INSERT INTO pause (route, since) VALUES ('other', 0)");
    // Whoever locks a row leaves its mark there.
    let marks = || {
        admin.rows(
            "SELECT m.xmax::text || '/' || d.xmax::text FROM mailbox m JOIN digest d ON d.mailbox_no = m.no \
             WHERE m.route = 'other' ORDER BY m.no",
        )
    };
    let before = marks();
    assert_eq!(before.len(), 2);
    let leased = claim(&store, NOW);
    assert_eq!(leased.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["ann"]);
    assert_eq!(marks(), before);
    learn(&store, NOW, answers(begin(&store, NOW, &leased)));
    admin.run("DELETE FROM pause");
    let leased = claim(&store, NOW);
    assert_eq!(leased.len(), 2);
    learn(&store, NOW, answers(begin(&store, NOW, &leased)));
    assert_eq!(verified(&store)["delivered"], 3);
}

/// What a stranger holds is passed over also where only some routes flow, and however little a claim has room for.
#[test]
fn a_claim_beside_a_paused_route_passes_over_what_a_stranger_holds() {
    let database = Server::shared().database(None);
    let (store, admin) = three(&database);
    admin.run("UPDATE mailbox SET route = 'other' WHERE recipient = 'ann'; INSERT INTO pause (route, since) VALUES ('other', 0)");
    let stranger = database.admin();
    stranger.run(&format!("BEGIN; {HELD}"));
    let one = Ask { limit: 1, ..ask() };
    let leased = runtime().block_on(store.claim(NOW, &one)).unwrap();
    assert_eq!(leased.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["kim"]);
    assert_eq!(runtime().block_on(store.claim(NOW, &one)).unwrap(), []);
    stranger.run("ROLLBACK");
    let leased = runtime().block_on(store.claim(NOW, &one)).unwrap();
    assert_eq!(leased.iter().map(|one| one.recipient.as_str()).collect::<Vec<_>>(), ["bob"]);
}

//! The one number that an autoscaler sees, against one that is computed; and what it costs at any size.

use owlpost::store::Delivery as _;

use crate::postgres::{Admin, Server, Value};
use crate::process::{Random, until};
use crate::store::{NOW, ask, open, runtime};

/// The view counts no further, each kind for itself.
const CAP: u64 = 5_000;

fn due(admin: &Admin) -> u64 {
    match admin.rows("SELECT due FROM owlpost_keda_backlog")[0][0] {
        Value::Int(n) => n.try_into().unwrap(),
        ref other => panic!("not a number: {other:?}"),
    }
}

/// Microseconds of the server's clock, so many seconds from now.
fn moment(seconds: i64) -> String {
    format!("CAST(extract(epoch FROM now() + interval '{seconds} seconds') * 1000000 AS bigint)")
}

/// Soon enough, or much too late, however slow the test is.
const MOMENTS: [(i64, bool); 4] = [(-86_400, true), (-1, true), (10, true), (3_600, false)];
const ROUTES: [&str; 3] = ["news", "approvals", "alarms"];

#[test]
fn it_counts_what_can_leave_now_or_soon_and_what_has_to_be_ended() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    let admin = database.admin();
    let mut random = Random(7);
    let (mut leaving, mut ending) = ([0; ROUTES.len()], 0);
    let mut sql = String::new();
    for no in 1..=400 {
        let (state, route) = (random.below(7), random.below(3) as usize);
        let (seconds, soon) = MOMENTS[random.below(4) as usize];
        let (until, until_soon) = MOMENTS[random.below(4) as usize];
        let until = if matches!(state, 2 | 3 | 5) { moment(until) } else { "NULL".into() };
        sql += &format!(
            "INSERT INTO mailbox (recipient, route) VALUES ('p{no}', '{}'); \
             INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, token, until, attempts, \
             waited_us, opened_at) VALUES ({no}, lastval(), {state}, {}, {}, 1, 0, 0, 1, {until}, 0, 0, 0);",
            ROUTES[route],
            random.below(3),
            moment(seconds)
        );
        match state {
            0 | 4 if soon => leaving[route] += 1,
            2 | 3 | 5 if until_soon => ending += 1,
            _ => {}
        }
    }
    admin.run(&sql);
    let all: u64 = leaving.iter().sum();
    assert!(all > 50 && ending > 50, "{leaving:?} {ending}");
    assert_eq!(due(&admin), all + ending);
    // A worker that can do something about them is wanted; one that can't is not.
    admin.run("INSERT INTO pause (route, since) VALUES ('news', 0)");
    assert_eq!(due(&admin), all - leaving[0] + ending);
    admin.run("INSERT INTO pause (route, since) VALUES ('alarms', 0)");
    assert_eq!(due(&admin), leaving[1] + ending);
    admin.run("INSERT INTO pause (route, since) VALUES ('*', 0)");
    assert_eq!(due(&admin), ending, "a lease ends all the same");
    admin.run("DELETE FROM pause");
    // Dead letters wake somebody if there is somebody who forwards them.
    admin.run(
        "INSERT INTO dead_letter (no, key, source, position, reason, detail, first_at, last_at, count, bytes, sha256, headers, body, \
         discarded_at, forwarded_at, forward_error) SELECT n, CAST(CAST(n AS text) AS bytea), 's', 'p', 'r', 'd', 0, 0, 1, 0, '', '[]', '', \
         CASE n % 4 WHEN 1 THEN 0 END, CASE n % 4 WHEN 2 THEN 0 END, CASE n % 4 WHEN 3 THEN 'too large' END FROM generate_series(1, 40) n; \
         INSERT INTO item (event_no, mailbox_no, state, urgency, forwarded_at) SELECT n, 1, n % 6, 0, CASE n % 2 WHEN 0 THEN 0 END \
         FROM generate_series(1, 60) n",
    );
    assert_eq!(due(&admin), all + ending);
    admin.run(
        "INSERT INTO condition (part, name, state, detail, since, at) VALUES ('forwarding', 'k', 'ready', '', 0, 0)",
    );
    assert_eq!(due(&admin), all + ending + 10 + 10, "each fourth letter, and each sixth item");
}

/// (rows that the plan read, plan): every scan's rows, and those that it looked at for nothing.
fn rows_read(admin: &Admin) -> (u64, String) {
    // As the function has it.
    for row in admin.rows("SELECT unnest(proconfig) FROM pg_proc WHERE proname = 'owlpost_backlog'") {
        let Value::Text(set) = &row[0] else { panic!("no setting") };
        let (name, value) = set.split_once('=').unwrap();
        if name.starts_with("enable_") || name == "jit" {
            admin.run(&format!("SET {name} = {value}"));
        }
    }
    let Value::Text(body) = &admin.rows("SELECT prosrc FROM pg_proc WHERE proname = 'owlpost_backlog'")[0][0] else {
        panic!("no such function");
    };
    let plan = admin.rows(&format!("EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, SUMMARY OFF) {body}"));
    let mut read = 0.0;
    let mut lines = Vec::new();
    for row in plan {
        let Value::Text(line) = &row[0] else { panic!("no plan") };
        let after = |mark: &str| -> Option<f64> {
            let (_, rest) = line.split_once(mark)?;
            rest.split([' ', ')']).next()?.parse().ok()
        };
        if line.contains(" Scan ") && !line.contains("Subquery") {
            read += after("actual rows=").unwrap_or(0.0) * after("loops=").unwrap_or(0.0);
            assert!(!line.contains("Seq Scan on digest") && !line.contains("Seq Scan on item"), "{line}");
        }
        read += after("Rows Removed by Filter: ").unwrap_or(0.0);
        lines.push(line.clone());
    }
    (read as u64, lines.join("\n"))
}

#[test]
fn it_costs_the_same_at_any_size() {
    let database = Server::shared().database(None);
    drop(open(database.url()));
    let admin = database.admin();
    admin.run(
        "INSERT INTO mailbox (recipient, route) SELECT 'p' || n, 'news' FROM generate_series(1, 100000) n; \
         INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, token, attempts, waited_us, opened_at) \
         SELECT no, no, 0, no % 3, 9000000000000000, 1, 0, 0, 1, 0, 0, 0 FROM mailbox",
    );
    // Before the server has looked at the tables, and after.
    for looked in [false, true] {
        if looked {
            admin.run("ANALYZE");
        }
        assert_eq!(due(&admin), 0);
        let (read, plan) = rows_read(&admin);
        assert!(read < 20, "nothing is due, and {read} rows are read:\n{plan}");
    }
    admin.run("UPDATE digest SET due_at = 0");
    admin.run("VACUUM digest");
    assert_eq!(due(&admin), CAP);
    let (read, plan) = rows_read(&admin);
    assert!(read <= CAP + 20, "{read} rows are read:\n{plan}");
    // A pause of something else: one look at the mailbox of each.
    admin.run("INSERT INTO pause (route, since) VALUES ('alarms', 0)");
    assert_eq!(due(&admin), CAP);
    let (read, plan) = rows_read(&admin);
    assert!(read <= 4 * CAP, "{read} rows are read:\n{plan}");
    admin.run("DELETE FROM pause; UPDATE digest SET state = 2, until = 0");
    admin.run("VACUUM digest");
    assert_eq!(due(&admin), CAP);
    let (read, plan) = rows_read(&admin);
    assert!(read <= CAP + 20, "{read} rows are read:\n{plan}");
}

/// While more is due than a claim takes, domains take turns. What a planner makes of a table of which it knows nothing is not to
/// be that all that is due is gone through for each of them.
#[test]
fn a_claim_from_a_store_that_was_never_analyzed_reads_no_more_than_it_has_to() {
    const DUE: i64 = 50_000;
    let database = Server::shared().database(None);
    let (store, admin) = (open(database.url()), database.admin());
    admin.run(&format!(
        "ALTER TABLE digest SET (autovacuum_enabled = off); ALTER TABLE mailbox SET (autovacuum_enabled = off); \
         INSERT INTO mailbox (no, recipient, route) OVERRIDING SYSTEM VALUE SELECT n, 'p' || n, 'tell' FROM generate_series(1, {DUE}) n; \
         INSERT INTO digest (no, mailbox_no, state, priority, due_at, open, first_at, last_at, token, attempts, waited_us, opened_at, lane) \
         SELECT n, n, 0, 1, n, 1, 0, 0, 0, 0, 0, 0, 1 + n % 300 FROM generate_series(1, {DUE}) n"
    ));
    for _ in 0..3 {
        assert_eq!(runtime().block_on(store.claim(NOW, &ask())).unwrap().len(), 100);
    }
    drop(store);
    let read = "SELECT CAST(sum(idx_tup_read) AS bigint) FROM pg_stat_user_indexes WHERE relname = 'digest'";
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // Who leaves tells what it has read.
    until("the worker's connections are gone", || (admin.rows(sessions)[0][0] == Value::Int(0)).then_some(()));
    let Value::Int(read) = admin.rows(read)[0][0] else { panic!("no number") };
    assert!(read >= 300, "nobody has told: {read}");
    assert!(read < DUE / 5, "for 300 digests of {DUE} in 300 domains {read} entries of indexes were read");
}

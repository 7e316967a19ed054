//! `owlpost demo`: what a newcomer runs first, through the real binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn owlpost(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
    command.env_remove("OWLPOST_CONFIG").env_remove("RUST_LOG").args(args).output().unwrap()
}

fn demo(dir: &Path) -> Output {
    owlpost(&["demo", "--dir", dir.to_str().unwrap()])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `owlpost -c DIR/owlpost.toml …` prints.
fn ask(dir: &Path, args: &[&str]) -> String {
    let config = dir.join("owlpost.toml");
    let out = owlpost(&[&["-c", config.to_str().unwrap()], args].concat());
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn ledger(dir: &Path) -> Vec<Value> {
    ask(dir, &["ledger", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `id route state reason`, of one person.
fn told(ledger: &[Value], who: &str) -> BTreeSet<String> {
    let of = |row: &&Value| row["recipient"] == who;
    let word = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    ledger.iter().filter(of).map(|r| [&r["id"], &r["route"], &r["state"], &r["reason"]].map(word).join(" ")).collect()
}

/// Subjects of a person's mails, from the pages in the outbox: the title.
fn subjects(dir: &Path, address: &str) -> Vec<String> {
    let mut subjects = Vec::new();
    for entry in fs::read_dir(dir.join("outbox")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "eml") {
            let mail = fs::read_to_string(&path).unwrap();
            let to = mail.lines().find(|line| line.starts_with("To: ")).unwrap();
            let page = fs::read_to_string(path.with_extension("html")).unwrap();
            let title = page.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0.to_owned();
            if to.contains(address) {
                subjects.push(title);
            }
        }
    }
    subjects.sort();
    subjects
}

#[test]
fn the_demo_ends_with_a_ledger_that_balances_and_mails_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = demo(dir.path());
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "");
    assert!(!said.contains('\u{1b}'), "no colours where no terminal is");
    assert!(said.contains("✓ the sum, and counted again: no difference"), "{said}");
    for id in ["kim-writers", "zoe-editors", "kim-auditors", "alice-uploaders", "sync-000", "backup-1", "joe-archive"] {
        assert!(said.contains(&format!("  {id} ")), "{id} in:\n{said}");
    }

    let status: Value = serde_json::from_str(&ask(dir.path(), &["status", "--verify", "--json"])).unwrap();
    let n = |state: &str| status["ledger"][state].as_u64().unwrap();
    assert_eq!((n("pending"), n("in_doubt"), n("suppressed"), n("dead")), (0, 0, 1, 1));
    assert_eq!(n("items"), n("delivered") + n("withdrawn") + n("suppressed") + n("dead"));
    assert_eq!(status["dead_letters"], 1, "the broken line came twice and is one");

    let page = fs::read_to_string(dir.path().join("index.html")).unwrap();
    let mut mails = 0;
    for part in page.split("href=\"./").skip(1) {
        let file = part.split('"').next().unwrap();
        assert!(dir.path().join(file).is_file(), "{file}");
        mails += usize::from(file.ends_with(".eml"));
    }
    assert_eq!(mails as u64, status["mails"]["sent"].as_u64().unwrap());
    // What is worth a look leads to the mail, where there is one.
    for (name, has_mail) in [("kim-writers", true), ("zoe-editors", true), ("sync-000", true), ("kim-auditors", false)]
    {
        assert_eq!(page.contains(&format!("\">{name}</a></dt>")), has_mail, "{name}");
        assert_eq!(page.contains(&format!("<dt>{name}</dt>")), !has_mail, "{name}");
    }
    assert!(!page.contains("<script"));
}

#[test]
fn the_real_samples_and_the_written_ones_reach_whom_they_should_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    assert!(demo(dir.path()).status.success());
    let ledger = ledger(dir.path());

    // What a real ZMS handed out: joe's requests were decided before alice's mail left; joe hears all three decisions.
    let from_zms = |r: &&Value| r["source"] == "zms/demo" && r["route"] == "approvals";
    let requests: Vec<_> = ledger.iter().filter(from_zms).collect();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r["recipient"] == "user.alice" && r["reason"] == "decided"), "{requests:?}");
    assert_eq!(
        subjects(dir.path(), "joe@example.com"),
        ["3 decisions in sports", "Added by user.bob: you (user.joe) are now in media:role.viewers"]
    );
    let alice = subjects(dir.path(), "alice@example.com");
    for subject in [
        "2 approvals in sports",
        "3 approvals in sports",
        "Rejected by user.lee: user.joe does not join sports:role.writers",
        "Already approved by user.lee: user.kim is now in sports:role.writers",
        "13 changes in sports",
    ] {
        assert!(alice.iter().any(|s| s == subject), "{subject} in {alice:?}");
    }
    assert_eq!(alice.len(), 9);

    let alice = told(&ledger, "user.alice");
    assert!(
        alice.contains("kim-writers approvals delivered -")
            && alice.contains("kim-writers-decided handled delivered -")
    );
    assert!(alice.contains("kim-auditors approvals withdrawn decided"));
    assert!(!alice.iter().any(|t| t.starts_with("alice-uploaders")), "nobody approves their own request");
    let lee = told(&ledger, "user.lee");
    assert!(lee.contains("alice-uploaders approvals delivered -"));
    assert!(lee.contains("kim-writers-decided handled withdrawn decided"), "who decided needs no mail about it");
    let bob = told(&ledger, "user.bob");
    assert!(bob.contains("zoe-editors approvals withdrawn decided"), "the decision came first");
    assert!(bob.contains("bob-publishers-ends expiries withdrawn decided"));
    assert!(bob.contains("backup-1 alarms withdrawn replaced") && bob.contains("backup-2 alarms delivered -"));
    let bulk: BTreeSet<_> = ledger
        .iter()
        .filter(|r| r["id"].as_str().unwrap().starts_with("sync-"))
        .map(|r| (r["recipient"].as_str().unwrap(), r["digest"].as_str().unwrap(), r["state"].as_str().unwrap()))
        .collect();
    assert_eq!(bulk.len(), 1, "200 changes, one mail: {bulk:?}");
    assert_eq!(
        told(&ledger, "user.guest"),
        ["guest-viewers decisions suppressed domain_not_allowed".to_owned()].into()
    );
    assert!(ledger.iter().any(|r| r["id"] == "joe-archive" && r["reason"] == "unreachable"));
    assert!(!ledger.iter().any(|r| r["id"] == "backup-paused"), "it had expired");
    assert_eq!(subjects(dir.path(), "partner.example").len(), 0);
}

#[test]
fn a_strangers_markup_is_text() {
    let dir = tempfile::tempdir().unwrap();
    assert!(demo(dir.path()).status.success());
    let pages = fs::read_dir(dir.path().join("outbox")).unwrap().map(|e| e.unwrap().path());
    let pages: Vec<String> =
        pages.filter(|p| p.extension().is_some_and(|e| e == "html")).map(|p| fs::read_to_string(p).unwrap()).collect();
    assert!(pages.iter().any(|p| p.contains("&lt;script&gt;alert(")));
    assert!(!pages.iter().any(|p| p.contains("<script") || p.contains("<b>please")));
}

#[test]
fn a_folder_with_other_things_in_it_is_refused_and_nothing_is_touched() {
    let foreign = |dir: &Path, file: &str| {
        fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        fs::write(dir.join(file), "mine").unwrap();
        let out = demo(dir);
        assert_eq!(out.status.code(), Some(2), "{file}");
        let said = text(&out.stderr);
        assert!(said.contains(file) && said.contains("--dir DIR"), "{said}");
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), "mine");
    };
    for file in ["notes.txt", "owlpost.toml", "outbox/letter.txt"] {
        foreign(tempfile::tempdir().unwrap().path(), file);
    }
    let used = tempfile::tempdir().unwrap();
    assert!(demo(used.path()).status.success());
    foreign(used.path(), "outbox/letter.txt");
    assert!(used.path().join("index.html").is_file());

    let file = used.path().join("index.html");
    let out = demo(&file);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
}

#[test]
fn a_second_demo_in_the_same_folder_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let states = || {
        let states: Vec<String> =
            ledger(dir.path()).iter().map(|r| format!("{} {} {}", r["id"], r["recipient"], r["state"])).collect();
        states.into_iter().collect::<BTreeSet<_>>()
    };
    assert!(demo(dir.path()).status.success());
    let (first, mails) = (states(), fs::read_dir(dir.path().join("outbox")).unwrap().count());
    assert!(demo(dir.path()).status.success());
    assert_eq!(states().len(), first.len());
    assert_eq!(fs::read_dir(dir.path().join("outbox")).unwrap().count(), mails, "the mails of the first are gone");
}

#[test]
fn a_folder_on_which_a_worker_runs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(demo(dir.path()).status.success());
    let lock = fs::OpenOptions::new().write(true).open(dir.path().join("owlpost.db.lock")).unwrap();
    lock.try_lock().unwrap();
    let out = demo(dir.path());
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("a worker is running"), "{}", text(&out.stderr));
    assert!(dir.path().join("owlpost.db").is_file());
}

#[test]
fn a_proxy_of_the_environment_does_not_come_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        // Nobody listens there.
        command.env(name, "http://127.0.0.1:1");
    }
    let out = command.env_remove("NO_PROXY").env_remove("no_proxy").args(["demo", "--dir"]).arg(dir.path()).output();
    let out = out.unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn check_has_nothing_against_the_demos_configuration_but_names_what_is_spoilt_in_it() {
    let dir = tempfile::tempdir().unwrap();
    assert!(demo(dir.path()).status.success());
    let config = dir.path().join("owlpost.toml");
    let check = || owlpost(&["-c", config.to_str().unwrap(), "check"]);
    let out = check();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));

    fs::write(dir.path().join("people.toml"), "[[people]]\nprincipal = 5\n").unwrap();
    fs::create_dir_all(dir.path().join("mine/approvals")).unwrap();
    fs::write(dir.path().join("mine/approvals/subject.hbs"), "{{nobody.knows}}").unwrap();
    let changed = fs::read_to_string(&config).unwrap();
    let mine = format!("[templates]\ndir = \"{}\"", dir.path().join("mine").display());
    fs::write(&config, changed.replace("[templates]", &mine)).unwrap();
    let out = check();
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("people.toml") && said.contains("approvals/subject.hbs"), "{said}");
}

#[test]
fn a_route_takes_a_template_of_ones_own_and_one_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(demo(dir.path()).status.success());
    let config = dir.path().join("owlpost.toml");
    let text_of = fs::read_to_string(&config).unwrap();
    let mine = format!("[templates]\ndir = \"{}\"", dir.path().join("mine").display());
    let changed = text_of.replace("[templates]", &mine).replace("template = \"health\"", "template = \"sirens\"");
    fs::write(&config, changed).unwrap();
    fs::create_dir_all(dir.path().join("mine/sirens")).unwrap();
    let check = || owlpost(&["-c", config.to_str().unwrap(), "check"]);
    let out = check();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stdout).contains("sirens"), "{}", text(&out.stdout));
    for file in ["subject.hbs", "body.html.hbs", "body.txt.hbs"] {
        fs::write(dir.path().join("mine/sirens").join(file), "{{subject}}").unwrap();
    }
    assert_eq!(check().status.code(), Some(0), "{}", text(&check().stdout));
}

#[test]
fn preview_reads_what_a_worker_takes() {
    let dir = tempfile::tempdir().unwrap();
    let line = r#"{"type":"ROLE_MEMBER_APPROVAL","consolidatedBy":"PRINCIPAL","recipients":["user.alice"],"details":{"domain":"sports","member":"user.joe","reason":"need the scores","requester":"user.joe","role":"readers"}}"#;
    let file = dir.path().join("events.ndjson");
    fs::write(&file, format!("{line}\n{}\n", line.replace("joe", "kim"))).unwrap();
    let out = owlpost(&["preview", "approvals", "--events", file.to_str().unwrap()]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("Subject: 2 approvals in sports"), "{}", text(&out.stdout));

    fs::write(&file, format!("{line}\n{{\"type\":\n")).unwrap();
    let out = owlpost(&["preview", "approvals", "--events", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("line 2"), "{}", text(&out.stderr));
}

/// The same day through the real SES client: what the endpoint took is what the ledger says, throttling killed nothing, and
/// the mail whose reply was lost came twice, which the demo tells.
#[test]
fn the_demo_through_ses_says_what_the_receiving_side_says() {
    let dir = tempfile::tempdir().unwrap();
    let out = owlpost(&["demo", "--ses", "--dir", dir.path().to_str().unwrap()]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    assert!(said.contains("✓ the sum, and counted again: no difference"), "{said}");
    assert_eq!(said.matches("came twice: the reply to its first attempt was lost").count(), 1, "{said}");
    let ledger = ledger(dir.path());
    let count = |state: &str| ledger.iter().filter(|row| row["state"] == state).count();
    assert_eq!((count("pending"), count("in_doubt"), count("dead")), (0, 0, 1), "only the unreachable one is dead");
    let delivered: BTreeSet<&str> =
        ledger.iter().filter(|r| r["state"] == "delivered").map(|r| r["digest"].as_str().unwrap()).collect();
    let arrived: BTreeSet<String> = fs::read_dir(dir.path().join("outbox"))
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().unwrap().strip_suffix(".eml").map(str::to_owned))
        .collect();
    let digests: BTreeSet<&str> = arrived.iter().map(|name| name.rsplit_once('.').unwrap().0).collect();
    assert_eq!(digests, delivered);
    assert_eq!(arrived.len(), delivered.len() + 1, "one digest stands there twice, as it arrived");
}

//! What every directory promises, and what each kind of them does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use owlpost::directory::{
    Audience, ChainDirectory, Directory, DirectoryError, FileDirectory, Rule, RulesDirectory, is_plausible_address,
};
use owlpost::model::{Person, is_collection};
use proptest::prelude::*;

const FRESH: Duration = Duration::from_secs(60);

const TOML: &str = include_str!("../config/people.example.toml");
const JSON: &str = r#"{
  "people": [
    {"principal": "user.alice", "address": "alice@example.com", "time_zone": "Europe/Berlin", "language": "en"},
    {"principal": "user.joe", "zone": "America/New_York"},
    {"principal": "user.zoe", "address": "zoe.reads.mail@example.com"}
  ],
  "members": {
    "sports:role.admin": ["user.alice", "sports:group.leads"],
    "sports:group.leads": ["user.joe", "user.zoe"],
    "media:role.admin": []
  }
}"#;
const CSV: &str = "\u{feff}principal,address,time_zone,language,members\r\n\
    user.alice,alice@example.com,Europe/Berlin,en\r\n\
    \"user.joe\",,America/New_York,,\r\n\
    \r\n\
    user.zoe,zoe.reads.mail@example.com,,,\r\n\
    sports:role.admin,,,,\"user.alice, sports:group.leads\"\r\n\
    sports:group.leads,,,,user.joe\r\n\
    sports:group.leads,,,,user.zoe\r\n\
    media:role.admin,,,,";

fn rules(rules: &[(&str, &str)]) -> Result<RulesDirectory, Vec<String>> {
    let rule =
        |(principal, address): &(&str, &str)| Rule { principal: (*principal).into(), address: (*address).into() };
    RulesDirectory::new(&rules.iter().map(rule).collect::<Vec<_>>())
}

fn user_rules() -> RulesDirectory {
    rules(&[("user.{name}", "{name}@example.com")]).unwrap()
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    // As the documentation asks: beside it, then renamed over it.
    let (new, path) = (dir.join("new"), dir.join(name));
    fs::write(&new, content).unwrap();
    // Left alone for a while, so that it counts at the next look.
    changed_at(&new, SystemTime::now() - Duration::from_secs(60));
    fs::rename(&new, &path).unwrap();
    path
}

fn changed_at(path: &Path, at: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

fn open(name: &str, content: impl AsRef<[u8]>) -> Result<FileDirectory, String> {
    let dir = tempfile::tempdir().unwrap();
    FileDirectory::open(write(dir.path(), name, content))
        .map_err(|e| e.to_string().replace(dir.path().to_str().unwrap(), "."))
}

fn names(people: &[Person]) -> Vec<&str> {
    people.iter().map(|p| p.principal.as_str()).collect()
}

async fn one(directory: &dyn Directory, reference: &str) -> Audience {
    directory.resolve(&[reference.into()], FRESH).await.unwrap().remove(0)
}

// ---- what every directory promises ----

/// Runs the promises of the trait on a directory, whatever it knows.
async fn keeps_its_promises(directory: &dyn Directory) {
    assert_eq!(directory.resolve(&[], FRESH).await.unwrap(), []);

    let long = "x".repeat(1_000_000);
    let who: Vec<String> = [
        "user.alice",
        "sports:role.admin",
        "nobody:role.none",
        "user.alice",
        "stranger",
        "user.a\r\nBcc: eve@example.org",
        "user.eve@example.org,bob",
        "user.",
        "",
        ":",
        "sports:role.",
        "user.{name}",
        "user.\0",
        "user.\u{202e}moc",
        &long,
    ]
    .map(String::from)
    .to_vec();
    for max_age in [FRESH, Duration::ZERO] {
        let answers = directory.resolve(&who, max_age).await.unwrap();
        assert_eq!(answers.iter().map(|a| &a.reference).collect::<Vec<_>>(), who.iter().collect::<Vec<_>>());
        for answer in &answers {
            holds_for(answer);
        }
        assert_eq!(answers[0], answers[3], "the same reference means the same");
        assert!(!answers[2].known && answers[2].people.is_empty(), "a collection nobody knows is empty");
        for answer in &answers[5..=9] {
            assert!(answer.people.iter().all(|p| p.address.is_none()), "{answer:?}");
        }
    }
}

/// What holds for any answer to any reference.
fn holds_for(answer: &Audience) {
    let principals = names(&answer.people);
    if !is_collection(&answer.reference) {
        assert!(answer.known);
        assert_eq!(principals, [answer.reference.as_str()], "a principal means itself");
    }
    assert!(answer.known || answer.people.is_empty());
    let mut once = principals.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), principals.len(), "each person once");
    assert!(!principals.iter().any(|p| is_collection(p)), "only principals become people");
    for address in answer.people.iter().filter_map(|p| p.address.as_deref()) {
        assert!(is_plausible_address(address));
    }
}

fn every_kind() -> Vec<Arc<dyn Directory>> {
    let file = |name, content: &str| Arc::new(open(name, content).unwrap()) as Arc<dyn Directory>;
    vec![
        Arc::new(user_rules()),
        Arc::new(rules(&[]).unwrap()),
        file("people.toml", TOML),
        file("people.json", JSON),
        file("people.csv", CSV),
        file("empty.toml", "[members]\n"),
        file("empty.json", "{}"),
        file("empty.csv", "principal"),
        Arc::new(ChainDirectory::new(vec![])),
        Arc::new(ChainDirectory::new(vec![file("people.csv", CSV), Arc::new(user_rules()), file("people.json", JSON)])),
    ]
}

#[tokio::test]
async fn every_directory_keeps_the_promises_of_the_trait() {
    for directory in every_kind() {
        keeps_its_promises(directory.as_ref()).await;
    }
}

proptest! {
    #[test]
    fn any_reference_has_an_answer_and_any_address_is_plausible(
        who in prop::collection::vec(prop_oneof!["(user|sports)[.:](role.)?\\PC{0,12}", ".*", "user\\.[ -~]{1,70}"], 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for directory in every_kind() {
            let answers = runtime.block_on(directory.resolve(&who, FRESH)).unwrap();
            prop_assert_eq!(answers.len(), who.len());
            answers.iter().for_each(holds_for);
        }
    }
}

// ---- rules ----

#[test]
fn the_first_rule_that_fits_makes_the_address() {
    let directory = rules(&[
        ("user.root", "ops@example.com"),
        ("{team}.robot.{name}", "{name}.{team}@robots.example.com"),
        ("user.{name}", "{name}@example.com"),
        ("{domain}:{name}", "{name}@{domain}.example.com"),
        ("{any}", "other@example.com"),
    ])
    .unwrap();
    for (principal, address) in [
        ("user.alice", Some("alice@example.com")),
        ("user.alice.smith", Some("alice.smith@example.com")),
        ("user.root", Some("ops@example.com")),
        ("user.roots", Some("roots@example.com")),
        ("media.robot.bob", Some("bob.media@robots.example.com")),
        ("a.robot.b.robot.c", Some("b.robot.c.a@robots.example.com")),
        ("sports:joe", Some("joe@sports.example.com")),
        ("sports:joe:x", None),
        ("sports", Some("other@example.com")),
        ("", None),
        // The rule for users fits and makes no address; no later rule is asked.
        ("user.a b", None),
        ("user.a@b", None),
    ] {
        assert_eq!(directory.address(principal).as_deref(), address, "{principal}");
    }
}

#[test]
fn a_placeholder_finds_another_way_around_a_colon() {
    let directory = rules(&[("{a}x{b}:y{c}", "{a}.{b}.{c}@example.com")]).unwrap();
    assert_eq!(directory.address("1x2:yx3").as_deref(), Some("1.2.x3@example.com"));
    assert_eq!(directory.address("1xx:y3").as_deref(), Some("1.x.3@example.com"));
    assert_eq!(directory.address("x2:y3"), None);
}

#[test]
fn names_cannot_inject_headers_or_further_recipients() {
    let directory = user_rules();
    for name in [
        "a\r\nBcc: x",
        "a\nBcc: x@example.org\n",
        "a@example.org",
        "a@example.org,b",
        "a@example.org>\r\n",
        "\"a@example.org\"",
        "a b",
        "a\tb",
        "a,b",
        "a;b",
        "<a",
        "(a)",
        "a\u{0}",
        "a\u{85}b",
        "a\u{2028}b",
        "\u{202e}a",
        "а", // Cyrillic
        ".a",
        "a.",
        "=?utf-8?q?a=40example.org?= ",
        // Relays that take routes in a local part would send it on.
        "a%example.org",
        "example.org!a",
    ] {
        assert_eq!(directory.address(&format!("user.{name}")), None, "{name:?}");
    }
    assert_eq!(directory.address(&format!("user.{}", "a".repeat(65))), None);
    assert_eq!(directory.address(&format!("user.{}", "a".repeat(1_000_000))), None);
}

#[test]
fn a_rule_says_what_is_wrong_with_it() {
    for (principal, address, says) in [
        ("", "x@example.com", "rules[1].principal: is empty"),
        ("user.{name", "x@example.com", "rules[1].principal: a brace"),
        ("user.name}", "x@example.com", "rules[1].principal: a brace"),
        ("user.{}", "x@example.com", "rules[1].principal: the name in a placeholder"),
        ("user.{a b}", "x@example.com", "rules[1].principal: the name in a placeholder"),
        ("{a}{b}", "x@example.com", "rules[1].principal: {b} follows another placeholder"),
        ("{a}.{a}", "x@example.com", "rules[1].principal: {a} stands there twice"),
        ("{a}.{b}.{c}.{d}.{e}.{f}.{g}.{h}.{i}", "x@example.com", "rules[1].principal: 9 placeholders"),
        ("user.{name}", "{nmae}@example.com", "rules[1].address: {nmae} does not stand in the principal"),
        ("user.{name}", "{name}", "rules[1].address: can never become an address"),
        ("user.{name}", "{name}@{name}@example.com", "rules[1].address: can never become an address"),
        ("user.{name}", "A <{name}@example.com>", "rules[1].address: can never become an address"),
    ] {
        let problems = rules(&[("user.{name}", "{name}@example.com"), (principal, address)]).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(says), "{problems:?}");
    }
    assert_eq!(rules(&[("", "x"), ("{", "x")]).unwrap_err().len(), 2, "all problems at once");
}

#[test]
fn a_hostile_principal_costs_a_long_rule_little() {
    let directory = rules(&[("{a}a{b}a{c}a{d}a{e}a{f}a{g}a{h}b", "{a}@example.com")]).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(directory.address(&"a".repeat(512)), None);
    // Without remembered dead ends this takes longer than the universe has.
    assert!(began.elapsed() < Duration::from_secs(5));
}

// ---- file ----

#[tokio::test]
async fn toml_json_and_csv_say_the_same() {
    for (name, content) in [("p.toml", TOML), ("p.json", JSON), ("p.csv", CSV)] {
        let directory = open(name, content).unwrap();
        assert_eq!(directory.problems(), Vec::<String>::new(), "{name}");
        let person = |principal: &str, address: Option<&str>, zone: Option<&str>, language: Option<&str>| Person {
            principal: principal.into(),
            address: address.map(String::from),
            zone: zone.map(String::from),
            language: language.map(String::from),
        };
        let alice = person("user.alice", Some("alice@example.com"), Some("Europe/Berlin"), Some("en"));
        let joe = person("user.joe", None, Some("America/New_York"), None);
        let zoe = person("user.zoe", Some("zoe.reads.mail@example.com"), None, None);
        assert_eq!(one(&directory, "sports:role.admin").await.people, [alice, joe.clone(), zoe.clone()], "{name}");
        assert_eq!(one(&directory, "sports:group.leads").await.people, [joe, zoe], "{name}");
        let empty = one(&directory, "media:role.admin").await;
        assert!(empty.known && empty.people.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn one_person_in_five_roles_is_one_person_and_a_circle_of_roles_ends() {
    let directory = open(
        "people.toml",
        r#"
        [members]
        "a:role.1" = ["user.joe", "a:role.2", "a:role.1", "user.joe", "b:group.unknown"]
        "a:role.2" = ["a:role.3", "user.joe", "user.lee"]
        "a:role.3" = ["a:role.1", "user.kim", "user.joe", "a:role.2"]
        "#,
    )
    .unwrap();
    assert_eq!(names(&one(&directory, "a:role.1").await.people), ["user.joe", "user.kim", "user.lee"]);
    assert_eq!(names(&one(&directory, "a:role.3").await.people), ["user.joe", "user.lee", "user.kim"]);
}

#[tokio::test]
async fn expansion_is_bounded_in_people_and_in_depth() {
    let mut text = String::from("principal,members\nbig:role.all,");
    (0..20_000).for_each(|n| text += &format!("user.u{n} "));
    (0..1_000).for_each(|n| text += &format!("\ndeep:role.r{n},user.d{n} deep:role.r{}", n + 1));
    let directory = open("people.csv", text).unwrap();
    assert_eq!(one(&directory, "big:role.all").await.people.len(), 10_000);
    assert_eq!(one(&directory, "deep:role.r0").await.people.len(), 32);
}

#[test]
fn a_file_that_cannot_be_read_says_where_and_what_to_do() {
    for (name, content, says) in [
        ("p.toml", "[[people]]\nprincipal = ", "./p.toml line 2, column 13: "),
        (
            "p.toml",
            "[[people]]\nprincipal = 7",
            "./p.toml line 2, column 13: found a value of another type, expected a string",
        ),
        (
            "p.toml",
            "[[people]]\nprincipal = \"x\"\nmail = \"y\"",
            "./p.toml line 3, column 1: unknown key `mail`, expected one of `principal`",
        ),
        ("p.toml", "[[people]]\naddress = \"y\"", "./p.toml line 1, column 1: missing field `principal`"),
        (
            "p.toml",
            "[members]\n\"a:role.b\" = \"user.x\"",
            "./p.toml line 2, column 14: found a value of another type, expected a sequence",
        ),
        ("p.toml", "[members]\n\"a:role.b\" = []\n\"a:role.b\" = []", "./p.toml line 3, column 1: duplicate key"),
        ("p.json", "{\"people\": [}", "./p.json line 1, column 13: expected value"),
        ("p.json", "[]", "./p.json line 1, column 0: found a value of another type, expected a table"),
        (
            "p.json",
            r#"{"people": [["user.x", "x@example.com"]]}"#,
            "./p.json line 1, column 12: found a value of another type, expected a table",
        ),
        (
            "p.json",
            "{\"people\": [{\"principal\": 7}]}",
            "./p.json line 1, column 27: found a value of another type, expected a string",
        ),
        (
            "p.json",
            "{\n\"persons\": []}",
            "./p.json line 2, column 9: unknown key `persons`, expected `people` or `members`",
        ),
        ("p.json", "", "./p.json line 1, column 0: EOF while parsing a value"),
        ("p.csv", "", "./p.csv line 1: expected a header with `principal`"),
        ("p.csv", "user.alice,alice@example.com", "./p.csv line 1: expected a header with `principal`"),
        ("p.csv", "principal,principal", "./p.csv line 1: expected a header"),
        ("p.csv", "principal,zone\na,b\n\nuser.x,UTC,z", "./p.csv line 4: 3 cells, but the header has 2"),
        ("p.csv", "principal\n\"user.x", "./p.csv line 2, column 1: this quote is never closed"),
        ("p.csv", "principal\n\"user.x\"y", "./p.csv line 2, column 9: expected a comma"),
        ("p.csv", "principal\nuser.\"x\"", "./p.csv line 2, column 6: a quote inside of a cell"),
        ("p.yaml", "", "./p.yaml: unknown kind of file; its name must end in .toml, .json or .csv"),
        ("people", "", "./people: unknown kind of file"),
    ] {
        let problem = open(name, content).err().unwrap_or_else(|| panic!("{content:?} was read"));
        assert!(problem.starts_with(says), "{content:?}: {problem}");
    }
    for name in ["p.toml", "p.json", "p.csv"] {
        let problem = open(name, b"principal\n\xc3\xa4\xff\n").err().unwrap();
        assert_eq!(problem, format!("./{name} line 2, column 2: not UTF-8; save the file as UTF-8"));
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(FileDirectory::open(dir.path().join("none.toml")).is_err());
    fs::create_dir(dir.path().join("folder.toml")).unwrap();
    let problem = FileDirectory::open(dir.path().join("folder.toml")).err().unwrap().to_string();
    assert!(problem.ends_with("is not a regular file"), "{problem}");
}

#[test]
fn no_message_shows_an_address() {
    let deep = format!("{{\"people\": {}", "[".repeat(100_000));
    for (name, content) in [
        ("p.toml", "members = \"secret@example.com\""),
        ("p.toml", "people = \"secret@example.com\""),
        ("p.toml", "\"secret@example.com\" = 1"),
        ("p.toml", "[[people]]\nprincipal = \"a\"\naddress = [\"secret@example.com\"]"),
        ("p.toml", "[[people]]\nprincipal = \"a\"\naddress = secret@example.com"),
        ("p.json", r#"{"people": "secret@example.com"}"#),
        ("p.json", r#"{"secret@example.com": 1}"#),
        (
            "p.json",
            r#"{"people": [{"principal": "a", "address": "secret@example.com", "address": "secret@example.com"}]}"#,
        ),
        ("p.json", r#""secret@example.com""#),
        ("p.csv", "principal,secret@example.com"),
        ("p.csv", "principal\nuser.x,secret@example.com"),
        ("p.json", deep.as_str()),
    ] {
        let problem = open(name, content).err().unwrap_or_else(|| panic!("{content:.99} was read"));
        assert!(!problem.contains("secret"), "{problem}");
    }
    let left_out = open(
        "p.toml",
        r#"
        people = [
            { principal = "secret@example.com x" },
            { principal = "user.a", address = "secret example.com" },
            { principal = "user.b", zone = "secret", language = "secret@" },
        ]
        members = { "secret@example.com" = [], "a:role.b" = ["secret @example.com"] }
        "#,
    )
    .unwrap();
    let problems = left_out.problems();
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert!(!problems.join(" ").contains("secret"), "{problems:?}");
}

#[tokio::test]
async fn a_value_that_cannot_be_is_left_out_and_the_rest_counts() {
    let long = "x".repeat(1_000_000);
    let text = format!(
        "principal,address,zone,language,members\n\
         user.alice,alice at example.com,Moon/Base,e_n,\n\
         user.alice,twice@example.com\n\
         {long},long@example.com\n\
         user.bob,{long}@example.com\n\
         user.joe,joe@example.com,,,user.lee\n\
         a:role.b,x@example.com,,,user.joe {long} user.lee\n"
    );
    let directory = open("people.csv", text).unwrap();
    let problems = directory.problems();
    let starts = [
        "line 2: \"user.alice\" has an address that is none",
        "line 2: \"user.alice\" has an unknown time zone",
        "line 2: \"user.alice\" has a language that is none",
        "line 3: \"user.alice\" stands there twice",
        "line 4: \"xxxxxxxx",
        "line 5: \"user.bob\" has an address that is none",
        "line 6: only a role or group",
        "line 7: a role or group has only members",
        "line 7: \"xxxxxxxx",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start) && problem.len() < 300, "{problem}");
    }
    let people = one(&directory, "a:role.b").await.people;
    assert_eq!(names(&people), ["user.joe", "user.lee"]);
    assert_eq!(people[0].address.as_deref(), Some("joe@example.com"));
    assert_eq!(one(&directory, "user.alice").await.people[0].address, None);
}

#[test]
fn a_thousand_bad_values_are_counted_not_listed() {
    let mut text = String::from("principal,zone\n");
    (0..1_000).for_each(|n| text += &format!("user.u{n},Moon/Base\n"));
    let problems = open("people.csv", text).unwrap().problems();
    assert_eq!(problems.len(), 51);
    assert_eq!(problems[50], "and 950 more");
}

#[test]
fn a_large_csv_is_read_in_time_that_grows_with_its_size() {
    let mut text = String::from("principal,address\n");
    (0..200_000).for_each(|n| text += &format!("user.u{n},u{n}@example.com\n"));
    let began = std::time::Instant::now();
    assert!(open("people.csv", text).unwrap().problems().is_empty());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String, csv in "[a:.@,;\"\r\n ]{0,60}") {
        for name in ["p.toml", "p.json", "p.csv"] {
            let _ = open(name, &bytes);
            let _ = open(name, &text);
        }
        let _ = open("p.csv", format!("principal,address,members\n{csv}"));
    }

    #[test]
    fn a_csv_cell_in_quotes_holds_anything(cell in "[^\\p{Cc}\\s@]{1,40}") {
        let text = format!("\"principal\",zone\n\"{}\",UTC\n", cell.replace('"', "\"\""));
        let directory = open("p.csv", text).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let person = runtime.block_on(one(&directory, &cell)).people.remove(0);
        prop_assume!(!is_collection(&cell));
        prop_assert_eq!(person.zone.as_deref(), Some("UTC"));
    }
}

// ---- file, while it changes ----

fn with_alice_at(address: &str) -> String {
    format!("[[people]]\nprincipal = \"user.alice\"\naddress = \"{address}\"\n")
}

async fn alice(directory: &dyn Directory, max_age: Duration) -> String {
    let answer = directory.resolve(&["user.alice".into()], max_age).await.unwrap().remove(0);
    answer.people[0].address.clone().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_counts_within_a_second_and_at_once_for_who_cannot_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "people.toml", with_alice_at("one@example.com"));
    let directory = FileDirectory::open(&path).unwrap();
    assert_eq!(alice(&directory, FRESH).await, "one@example.com");

    write(dir.path(), "people.toml", with_alice_at("two@example.com"));
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(alice(&directory, FRESH).await, "one@example.com");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(alice(&directory, FRESH).await, "two@example.com");

    write(dir.path(), "people.toml", with_alice_at("three@example.com"));
    assert_eq!(alice(&directory, FRESH).await, "two@example.com");
    assert_eq!(alice(&directory, Duration::ZERO).await, "three@example.com");
}

/// All lines that any test of this file logs: a subscriber of one thread alone may miss what another thread logged first.
#[derive(Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> Log {
        let log = Log(Arc::default());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    /// The lines about files in this folder.
    fn about(&self, dir: &Path) -> String {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(dir.to_str().unwrap())).collect::<Vec<_>>().join("\n")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_keeps_what_was_known_and_is_logged_once_with_its_place() {
    let log = Log::begin();
    let dir = tempfile::tempdir().unwrap();
    let logged = |what: &str, times: usize| {
        let lines = log.about(dir.path());
        assert_eq!(lines.matches(what).count(), times, "{what}:\n{lines}");
    };

    let path = write(dir.path(), "people.toml", with_alice_at("one@example.com"));
    let directory = FileDirectory::open(&path).unwrap();
    let ask_often = async || {
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(alice(&directory, FRESH).await, "one@example.com");
        }
    };

    write(dir.path(), "people.toml", "[[people]]\nprincipal = \"user.alice\"\naddress = two@example.com\n");
    ask_often().await;
    logged("is broken", 1);
    logged("people.toml line 3, column ", 1);
    logged("two@example.com", 0);

    fs::remove_file(&path).unwrap();
    ask_often().await;
    logged("is broken", 2);

    // Broken again in the same way is a new problem, since the one before was another.
    write(dir.path(), "people.toml", b"\xff");
    ask_often().await;
    logged("not UTF-8", 1);

    write(dir.path(), "people.toml", with_alice_at("three@example.com"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(alice(&directory, FRESH).await, "three@example.com");
    logged("was read again", 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_counts_when_it_was_left_alone_for_a_second_and_an_empty_one_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "people.toml", with_alice_at("one@example.com"));
    let directory = FileDirectory::open(&path).unwrap();
    // In place; a clock that is ahead must not make it count for ever as just changed.
    let mut ahead = SystemTime::now() + Duration::from_secs(3_600);
    let mut write_in_place = |content: String| {
        fs::write(&path, content).unwrap();
        ahead += Duration::from_secs(1);
        changed_at(&path, ahead);
    };
    let mut seen = Vec::new();
    let look = async |seen: &mut Vec<String>| {
        tokio::time::advance(Duration::from_secs(1)).await;
        seen.push(alice(&directory, FRESH).await);
    };
    write_in_place("members = {}".into());
    look(&mut seen).await;
    write_in_place(with_alice_at("two@example.com"));
    look(&mut seen).await;
    look(&mut seen).await;
    assert_eq!(seen, ["one@example.com", "one@example.com", "two@example.com"]);
    write(dir.path(), "people.toml", "\n");
    look(&mut seen).await;
    assert_eq!(seen[3], "two@example.com");
    assert!(open("people.toml", "").is_err_and(|why| why.contains("empty")));
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_get_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "people.toml", with_alice_at("one@example.com"));
    let directory = Arc::new(FileDirectory::open(&path).unwrap());
    write(dir.path(), "people.toml", with_alice_at("two@example.com"));
    let asks = (0..100).map(|_| {
        let directory = directory.clone();
        tokio::spawn(async move { alice(directory.as_ref(), Duration::ZERO).await })
    });
    for ask in asks.collect::<Vec<_>>() {
        assert_eq!(ask.await.unwrap(), "two@example.com");
    }
}

// ---- chain ----

struct Down;

#[async_trait]
impl Directory for Down {
    async fn resolve(&self, _: &[String], _: Duration) -> Result<Vec<Audience>, DirectoryError> {
        Err(DirectoryError("zms is away".into()))
    }
}

fn toml(text: &str) -> Arc<dyn Directory> {
    Arc::new(open("people.toml", text).unwrap())
}

#[tokio::test]
async fn a_person_is_made_of_the_first_directory_that_has_each_field() {
    let chain = ChainDirectory::new(vec![
        toml(r#"people = [{ principal = "user.alice", zone = "Europe/Berlin" }]"#),
        Arc::new(user_rules()),
        toml(
            r#"people = [{ principal = "user.alice", address = "late@example.com", zone = "UTC", language = "de" },
                         { principal = "robot", address = "robot@example.com" }]"#,
        ),
    ]);
    let alice = one(&chain, "user.alice").await.people.remove(0);
    assert_eq!(alice.address.as_deref(), Some("alice@example.com"));
    assert_eq!(alice.zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(alice.language.as_deref(), Some("de"));
    assert_eq!(one(&chain, "robot").await.people[0].address.as_deref(), Some("robot@example.com"));
}

#[tokio::test]
async fn a_collection_has_the_members_of_the_first_directory_that_knows_it() {
    let chain = ChainDirectory::new(vec![
        Arc::new(user_rules()),
        toml(r#"members = { "a:role.silent" = [], "a:role.x" = ["user.joe", "user.alice"] }"#),
        toml(r#"members = { "a:role.silent" = ["user.bob"], "a:role.x" = ["user.bob"], "a:role.y" = ["user.kim"] }"#),
    ]);
    let who = ["a:role.x", "a:role.silent", "a:role.y", "a:role.z", "a:role.x"].map(String::from);
    let answers = chain.resolve(&who, FRESH).await.unwrap();
    assert_eq!(names(&answers[0].people), ["user.joe", "user.alice"]);
    assert_eq!(answers[0].people[1].address.as_deref(), Some("alice@example.com"), "from another directory");
    assert!(answers[1].known && answers[1].people.is_empty());
    assert_eq!(names(&answers[2].people), ["user.kim"]);
    assert!(!answers[3].known && answers[3].people.is_empty());
    assert_eq!(answers[4], answers[0]);
}

#[tokio::test]
async fn a_collection_inside_of_one_may_stand_in_another_directory() {
    let chain = ChainDirectory::new(vec![
        toml(
            r#"members = { "a:role.admin" = ["user.joe", "b:group.ops", "c:role.none"], "a:role.own" = ["user.lee"] }"#,
        ),
        toml(
            r#"members = { "b:group.ops" = ["user.kim", "a:role.own", "d:group.deep"], "d:group.deep" = ["a:role.admin"] }
               people = [{ principal = "user.kim", address = "kim@example.com" }]"#,
        ),
    ]);
    let answer = one(&chain, "a:role.admin").await;
    let mut found = names(&answer.people);
    found.sort_unstable();
    assert_eq!(found, ["user.joe", "user.kim", "user.lee"], "and a circle ends");
    let kim = answer.people.iter().find(|p| p.principal == "user.kim").unwrap();
    assert_eq!(kim.address.as_deref(), Some("kim@example.com"));
    assert_eq!(answer.inside, [""; 0], "nothing more can be asked");

    let away = ChainDirectory::new(vec![toml(r#"members = { "a:role.admin" = ["b:group.ops"] }"#), Arc::new(Down)]);
    assert!(away.resolve(&["a:role.admin".into()], FRESH).await.is_err(), "its members may be there");
}

#[tokio::test]
async fn a_directory_that_is_away_is_an_error_only_for_who_needs_it() {
    let complete =
        r#"people = [{ principal = "user.alice", address = "a@example.com", zone = "UTC", language = "en" }]"#;
    let chain = ChainDirectory::new(vec![toml(complete), Arc::new(Down)]);
    assert!(chain.resolve(&["user.alice".into()], FRESH).await.is_ok());
    let error = chain.resolve(&["user.alice".into(), "user.joe".into()], FRESH).await.unwrap_err();
    assert_eq!(error.to_string(), "zms is away");
}

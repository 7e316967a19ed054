//! What the configuration promises: one meaning, or every problem at its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use owlpost::config::{self, Allowance, Config, Problem, Severity};
use owlpost::model::Priority;
use owlpost::route::{ATHENZ_TYPES, OneOf, Router};
use owlpost::span::Span;
use proptest::prelude::*;

mod check;
mod letters;
mod reference;

const REFERENCE: &str = include_str!("../../config/owlpost.toml");

struct Files {
    dir: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn files(texts: &[&str]) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let paths = texts
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let path = dir.path().join(format!("{i}.toml"));
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    Files { dir, paths }
}

fn load_with(texts: &[&str], env: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    config::load(&files(texts).paths, env)
}

fn load(text: &str) -> Result<Config, Vec<Problem>> {
    load_with(&[text], &[])
}

/// `line:column message` of every error, or the variable's name in front.
fn problems_with(texts: &[&str], env: &[(&str, &str)]) -> Vec<String> {
    let problems = load_with(texts, env).expect_err("there are problems");
    let errors = problems.into_iter().filter(|p| p.severity == Severity::Error);
    errors
        .map(|p| match p.line {
            0 if p.file.starts_with("OWLPOST__") => format!("{} {}", p.file, p.message),
            _ => format!("{}:{} {}", p.line, p.column, p.message),
        })
        .collect()
}

fn problems(text: &str) -> Vec<String> {
    problems_with(&[text], &[])
}

#[track_caller]
fn assert_problems(found: &[String], wanted: &[&str]) {
    let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| f.starts_with(w));
    assert!(fits, "found:\n{}\nwanted (beginnings):\n{}", found.join("\n"), wanted.join("\n"));
}

#[test]
fn without_a_file_the_built_in_configuration_applies_and_is_clean() {
    let config = config::load(&[], std::iter::empty()).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.sources[0].name, "events");
    assert_eq!(config.store.sqlite_path(), Some(PathBuf::from("data/owlpost.db")));
    assert_eq!(config.recipients.allowed_domains, ["example.com"]);
    assert_eq!(config.routes.last().unwrap().name, config::HANDLED);
    assert_eq!(config.routes[0].cadence.first_after, Some(Span(Duration::from_secs(120))));
}

#[test]
fn every_type_of_athenz_has_a_shipped_route_but_the_withdrawn_one_that_tells_nobody() {
    let built_in = config::load(&[], std::iter::empty()).unwrap();
    let reference = load(REFERENCE).unwrap();
    assert_eq!(built_in.routes, reference.routes, "local.toml and owlpost.toml ship the same routes");
    Router::new(&built_in.routes, "").unwrap();
    for kind in ATHENZ_TYPES {
        let taken = built_in.routes.iter().any(|route| route.types.iter().any(|t| t == kind));
        assert_eq!(taken, kind != "io.athenz.membership.withdrawn.v1", "{kind}");
    }
}

#[test]
fn an_empty_file_is_all_defaults_and_the_handled_route() {
    let config = load("").unwrap();
    assert_eq!(config.http, config::HttpConfig::default());
    let names: Vec<_> = config.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, [config::HANDLED]);
    assert_eq!(config.routes[0].template, "decisions");
    assert_eq!(config.warnings.len(), 3, "no source, no directory, no route: {:?}", config.warnings);
}

#[test]
fn the_handled_route_can_be_changed_key_by_key() {
    let config = load("[[route]]\nname = 'handled'\npriority = 'bulk'").unwrap();
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].priority, Priority::Bulk);
    assert_eq!(config.routes[0].template, "decisions");
    assert_eq!(config.routes[0].cadence.first_after, Some(Span(Duration::from_secs(900))));
    assert_problems(&problems("[[route]]\nname = 'handled'\ntypes = ['a']"), &["1:1 \"handled\" is reserved"]);
}

#[test]
fn unknown_keys_stand_with_their_place_and_the_nearest_known_one() {
    let found = problems(
        "[http]\nlisen = 'x'\n[stor]\nurl = 'x'\n[[route]]\nname = 'r'\ntypes = ['t']\ncadence = { frist_after = '1m' }\n[log]\nxyzzyplugh = 1",
    );
    assert_problems(
        &found,
        &[
            "2:1 unknown key \"lisen\"; did you mean \"listen\"?",
            "3:2 unknown key \"stor\"; did you mean \"store\"?",
            "8:13 unknown key \"frist_after\"; did you mean \"first_after\"?",
            "10:1 unknown key \"xyzzyplugh\"; known here: format, level",
        ],
    );
}

#[test]
fn wrong_types_and_missing_keys_stand_with_their_place() {
    let found = problems(
        "realm = 5\n[http]\nlisten = 8080\nallow_anonymous = 'yes'\nbody_max_bytes = -1\n[[source]]\nkind = 'htpp'\nname = 'x'\n[[source]]\nname = 'y'\n[store]\nretention = '90 days'\n[quota]\nper_second = 'acount'\n[mailer]\ndir = []\n[limits]\nmax_listed = 1.5\nbatch_events = 5000000000\n[[route]]\nname = 'r'\ntypes = ['a', 5]\npriority = 'urgnt'\nwhere = { 'data.a' = [[1]] }\n[schedule]\nworkdays = 'mon'",
    );
    assert_problems(
        &found,
        &[
            "1:9 expected a text in quotes, found a whole number",
            "3:10 expected a text in quotes, found a whole number",
            "4:19 expected true or false, found a text in quotes",
            "5:18 expected a whole number, not negative",
            "7:8 expected one of \"http\", \"file\", \"kafka\", \"sqs\", \"zms\"; did you mean \"http\"?",
            "9:1 the key \"kind\" is missing",
            "12:13 not a duration",
            "14:14 expected \"account\" or a number above 0",
            "16:7 expected a text in quotes, found a list",
            "18:14 expected a whole number from 0 to 4294967295, found a number with a fraction",
            "19:16 expected a whole number from 0 to 4294967295",
            "22:15 expected a text in quotes, found a whole number",
            "23:12 expected one of \"urgent\", \"normal\", \"bulk\"; did you mean \"urgent\"?",
            "24:23 expected a text, a number, true or false",
            "26:12 expected a list",
        ],
    );
}

#[test]
fn what_the_values_mean_together_is_checked() {
    let found = problems(
        "[http]\nlisten = '0.0.0.0:80'\n[store]\nurl = 'mysql://h/d'\nretention = '1h'\n[mailer]\nkind = 'ses'\nfrom = 'nobody'\nreply_to = \"a@b.c\\r\\nBcc: x@y.z\"\n[delivery]\nlease = '85s'\ndrain = '1s'\nin_flight = 0\nbackoff_max = '1s'\n[limits]\nmax_listed = 0\n[schedule]\nzone = 'Europe/Berlyn'\nworkdays = ['mon', 'tus']\nholidays = ['2026-02-30']\n[templates]\nui_url = 'javascript:alert(1)'\n[log]\nlevel = '=='",
    );
    let at_start = found.iter().position(|p| p.contains("recipients.allowed_domains is required"));
    let mut found = found;
    found.remove(at_start.expect("allowed_domains is missing"));
    assert_problems(
        &found,
        &[
            "2:10 others can reach this address",
            "4:7 not a store",
            "5:13 shorter than 1d",
            "8:8 not an address",
            "9:12 not an address",
            "11:9 must be longer than send_within + call_timeout + clock_error (85s)",
            "12:9 must be at least call_timeout",
            "13:13 must be from 1 to 1000",
            "14:15 must be at least backoff_first",
            "16:14 must be at least 1",
            "18:8 not a time zone",
            "19:20 not a day: expected one of mon, tue, wed, thu, fri, sat, sun; did you mean \"tue\"?",
            "20:13 not a date",
            "22:10 not a web address",
            "24:9 not a log level",
        ],
    );
}

#[test]
fn a_mail_must_have_room_to_name_every_item_that_it_lists() {
    assert_problems(&problems("[limits]\nmail_bytes = 39999"), &["2:14 must be at least 40000"]);
    assert_problems(
        &problems("[limits]\nmail_bytes = 60000\nmax_listed = 151"),
        &["3:14 at most 150 with limits.mail_bytes = 60000"],
    );
    load("[limits]\nmail_bytes = 100000\nmax_listed = 250").unwrap();
}

#[test]
fn adapters_of_later_versions_are_refused_by_name() {
    for (text, what) in
        [("[[source]]\nname='a'\nkind='zms'", "ZMS source"), ("[[directory]]\nkind='zms'", "ZMS directory")]
    {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(&format!("this version has no {what} yet")), "{found:?}");
    }
}

#[test]
fn a_database_of_postgresql_is_named_well_and_its_keys_are_its_alone() {
    let store = |more: &str| problems(&format!("[store]\n{more}"));
    load("[store]\nurl='postgres://u@h:5433/d?sslmode=verify-full'\npassword='x'\nca_file='ca.pem'\nconnections=2")
        .unwrap();
    load("[store]\nurl='postgresql://h/d'").unwrap();
    assert_problems(&store("url='postgres://u@h'"), &["2:5 expected postgres://USER@HOST:PORT/DATABASE"]);
    assert_problems(&store("url='postgres://h/d?sslmode=require'"), &["2:5 sslmode=require: expected verify-full"]);
    for url in ["postgres://u:secret@h/d", "postgres://u@h/d?password=secret"] {
        let found = store(&format!("url='{url}'"));
        assert_problems(&found, &["2:5 a password has no place in a URL"]);
        assert!(!found[0].contains("secret"));
    }
    assert_problems(&store("url='postgres://h/d'\nconnections=0"), &["3:13 must be at least 1"]);
    assert_problems(
        &store("password='x'\nca_file='y'"),
        &["2:10 of no use with a SQLite", "3:9 of no use with a SQLite"],
    );
}

#[test]
fn an_aws_identity_signs_in_to_one_verified_database_and_has_no_password() {
    let store = |url: &str, more: &str| problems(&format!("[store]\nurl='{url}'\nauth='iam'\n{more}"));
    load("[store]\nurl='postgres://u@db.example.com/d'\nauth='iam'\nregion='eu-west-1'").unwrap();
    load("[store]\nurl='postgres://db.example.com:5433/d?user=u'\nauth='iam'").unwrap();
    let good = "postgres://u@db.example.com/d";
    assert_problems(&store(good, "password='x'"), &["4:10 of no use with store.auth"]);
    assert_problems(&store(good, "region='a b'"), &["4:8 not a region"]);
    assert_problems(&store("postgres://db.example.com/d", ""), &["2:5 store.auth = \"iam\" needs a user"]);
    for hosts in ["postgres://u@a,b/d", "postgres://u@%2Frun%2Fpostgresql/d", "postgres://u@a/d?hostaddr=10.0.0.1"] {
        assert_problems(&store(hosts, ""), &["2:5 store.auth = \"iam\" needs one host"]);
    }
    assert_problems(&store("postgres://u@h/d?sslmode=disable", ""), &["2:5 sslmode=disable: store.auth"]);
    let warned = load("[store]\nurl='postgres://u@h/d'\nregion='eu-west-1'").unwrap().warnings;
    assert!(warned.iter().any(|w| w.message.contains("without store.auth")), "{warned:?}");
    assert_problems(
        &problems("[store]\nauth='iam'\nregion='eu-west-1'\ntransaction_pooler=true"),
        &["2:6 of no use with a SQLite", "3:8 of no use with a SQLite", "4:20 of no use with a SQLite"],
    );
}

#[test]
fn a_queue_is_named_once_and_well() {
    let sqs = |more: &str| problems(&format!("[[source]]\nname='q'\nkind='sqs'\n{more}"));
    let url = "queue_url='https://sqs.eu-west-1.amazonaws.com/111122223333/events'";
    load(&format!("[[source]]\nname='q'\nkind='sqs'\n{url}\nreceivers_max=64")).unwrap();
    assert!(matches!(&sqs("")[..], [only] if only.contains("needs a queue")), "{:?}", sqs(""));
    assert_problems(&sqs(&format!("{url}\nqueue='events'")), &["5:7 queue_url names the queue already"]);
    assert_problems(&sqs("queue='a b'"), &["4:7 not the name of a queue"]);
    assert_problems(&sqs("queue='arn:aws:sns:eu-west-1:1:events'"), &["4:7 not the ARN of a queue"]);
    assert_problems(
        &sqs("queue='arn:aws:sqs:eu-west-1:1:events'\nregion='eu-central-1'"),
        &["5:8 the ARN in queue says \"eu-west-1\""],
    );
    assert_problems(&sqs(&format!("{url}\nregion='eu-central-1'")), &["5:8 queue_url says \"eu-west-1\""]);
    assert_problems(&sqs("queue_url='events'"), &["4:11 not the URL of a queue"]);
    assert_problems(
        &sqs("queue='e'\nendpoint_url='http://sqs.example.com'"),
        &["5:14 http:// is for this machine only"],
    );
    assert_problems(&sqs("queue='e'\nexternal_id='x'"), &["5:13 goes with assume_role_arn only"]);
    assert_problems(&sqs("queue='e'\nassume_role_arn='x'"), &["5:17 not an ARN of this kind"]);
    assert_problems(&sqs("queue='e'\nreceivers_max=0"), &["5:15 must be from 1 to 64"]);
    assert_problems(&sqs("queue='e'\nregion='a b'"), &["5:8 not a region"]);
    assert_problems(
        &problems("[[source]]\nname='f'\nkind='file'\npath='x'\nqueue='e'"),
        &["5:7 belongs to kind = \"sqs\" only"],
    );
    let short = "[store]\nretention='5d'\n[[source]]\nname='q'\nkind='sqs'\nqueue='e'";
    let warned = load(short).unwrap().warnings;
    assert!(warned.iter().any(|w| w.message.contains("up to 14d")), "{warned:?}");
}

#[test]
fn each_kind_of_mailer_has_keys_of_its_own_and_is_checked() {
    let ses = |more: &str| problems(&format!("[recipients]\nallowed_domains=['a.b']\n[mailer]\nkind='ses'\n{more}"));
    assert_problems(&ses("endpoint_url='http://ses.example.com'"), &["5:14 http:// is for this machine only"]);
    assert_problems(&ses("endpoint_url='ses.example.com'"), &["5:14 not a web address"]);
    assert_problems(&ses("identity_arn='example.com'"), &["5:14 not an ARN of this kind"]);
    assert_problems(&ses("external_id='x'"), &["5:13 goes with assume_role_arn only"]);
    assert_problems(&ses("configuration_set='a b'"), &["5:19 has 1 to 64 letters"]);
    assert_problems(&ses("host='smtp.example.com'"), &["5:6 belongs to kind = \"smtp\" only"]);
    load("[recipients]\nallowed_domains=['a.b']\n[mailer]\nkind='ses'\nendpoint_url='http://[::1]:9'").unwrap();

    let quota = "[quota]\nper_second=5\nper_day=900\n";
    let smtp =
        |more: &str| problems(&format!("{quota}[recipients]\nallowed_domains=['a.b']\n[mailer]\nkind='smtp'\n{more}"));
    assert_problems(&smtp(""), &["6:2 kind = \"smtp\" needs a host"]);
    assert_problems(&smtp("host='m.example.com'\ntls='none'"), &["9:5 \"none\" is for this machine only"]);
    assert_problems(&smtp("host='m.example.com:25'\nusername='u'"), &["6:2 username and password go together"]);
    assert_problems(&smtp("host='m.example.com'\nregion='eu-west-1'"), &["9:8 belongs to kind = \"ses\" only"]);
    let quota = problems("[quota]\nper_second=5\nburst=6\nurgent_reserve=1.5");
    assert_problems(&quota, &["3:7 must be at most what per_second allows", "4:16 a part of the day's quota"]);
}

#[test]
fn a_mailer_that_really_sends_needs_allowed_domains() {
    for kind in ["ses", "smtp"] {
        let found = problems(&format!("[mailer]\nkind = '{kind}'"));
        assert!(found.iter().any(|p| p.contains("recipients.allowed_domains is required")), "{found:?}");
    }
}

#[test]
fn a_listener_that_others_reach_needs_a_token_or_a_word() {
    for listen in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
        assert!(load(&format!("[http]\nlisten = '{listen}'")).is_ok(), "{listen}");
    }
    for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        assert_problems(&problems(&format!("[http]\nlisten = '{listen}'")), &["2:10 others can reach"]);
        assert!(load(&format!("[http]\nlisten = '{listen}'\nallow_anonymous = true")).is_ok());
        assert!(load(&format!("[http]\nlisten = '{listen}'\ntoken = 'secret'")).is_ok());
        assert_problems(&problems(&format!("[http]\nlisten = '{listen}'\ntoken = ''")), &["3:9 can't be sent"]);
    }
    assert_problems(&problems("[http]\nlisten = 'example'"), &["2:10 not an address to listen on"]);
}

#[test]
fn the_previous_token_goes_with_one_to_change_to() {
    let config = load("[http]\ntoken = 'new'\nprevious_token = 'old'").unwrap();
    assert_eq!(config.http.previous_token.unwrap().0, "old");
    assert_problems(&problems("[http]\nprevious_token = 'old'"), &["2:18 goes with http.token"]);
    assert_problems(&problems("[http]\ntoken = 'new'\nprevious_token = 'o l d'"), &["3:18 can't be sent"]);
}

/// Their offsets are alike, and an offset is the id of a message that has none.
#[test]
fn one_origin_for_a_topic_on_two_clusters_is_warned_of() {
    let two = |origin: &str, brokers: &str, topic: &str| {
        let source = |name: &str, origin: &str, brokers: &str, topic: &str| {
            format!(
                "[[source]]\nname = '{name}'\nkind = 'kafka'\norigin = '{origin}'\nbrokers = ['{brokers}']\ntopics = ['{topic}']\n\
                 group = 'owlpost'\nproperties = {{ 'security.protocol' = 'plaintext' }}\n"
            )
        };
        let text = source("a", "zms", "127.0.0.1:9092", "n") + &source("b", origin, brokers, topic);
        let config = load(&text).unwrap();
        config.warnings.iter().filter(|w| w.message.contains("under the same origin")).count()
    };
    assert_eq!(two("zms", "127.0.0.1:9093", "n"), 1);
    assert_eq!(two("zms", "127.0.0.1:9092", "n"), 0, "one cluster: the same messages");
    assert_eq!(two("zms-2", "127.0.0.1:9093", "n"), 0);
    assert_eq!(two("zms", "127.0.0.1:9093", "m"), 0);
}

#[test]
fn sources_directories_and_domains_are_checked() {
    let found = problems(
        "[[source]]\nname = 'a b'\nkind = 'http'\npath = 'x'\n[[source]]\nname = 'b'\nkind = 'http'\n[[source]]\nname = 'c'\nkind = 'file'\n[[source]]\nname = 'd'\nkind = 'file'\npath = '-'\n[[source]]\nname = 'e'\nkind = 'file'\npath = '-'\n[[directory]]\nkind = 'rules'\npath = 'x'\n[[directory]]\nkind = 'file'\n[[directory]]\nkind = 'rules'\nrules = [{ principal = 'user.{name}', address = '{nam}@x' }, { principal = '{', address = 'a@b' }, { principal = 'p', address = 'q' }]\n[recipients]\nallowed_domains = ['example.com', '*.example.com', '@x.y', '']",
    );
    assert_problems(
        &found,
        &[
            "2:8 a name has",
            "4:8 belongs to kind = \"file\"",
            "7:8 there is one POST",
            "8:1 kind = \"file\" needs a path",
            "18:8 source \"d\" reads the same file",
            "19:1 kind = \"rules\" needs rules",
            "21:8 belongs to",
            "22:1 kind = \"file\" needs a path",
            "26:10 the address uses {nam}",
            "26:62 a name in braces",
            "26:100 the address makes none",
            "28:35 not a domain",
            "28:52 not a domain",
            "28:60 not a domain",
        ],
    );
}

#[test]
fn routes_are_checked_at_their_places() {
    let found = problems(
        "[[route]]\nname = 'r'\n[[route]]\nname = 's'\ntypes = ['']\ntemplate = 'aprovals'\naudience = ['{{data.domain', 'user.kim']\nwhere = { domain = 'x' }\nsubject_key = '{{x}}'\nattempts_max = 0\ngive_up_after = '0s'\n[[route]]\nname = 't'\ntypes = ['a']\ncadence = { at = '25:00', days = ['wrokdays'], max_items = 0, at_latest = '1m' }\n[[route]]\nname = 't'\ntypes = ['b']\n",
    );
    assert_problems(
        &found,
        &[
            "1:1 needs types",
            "5:10 not a type",
            "6:12 no template is called so; did you mean \"approvals\"?",
            "7:13 a {{ without its }}",
            "8:20 \"domain\" is no field",
            "9:15 \"x\" is no field",
            "10:16 must be at least 1",
            "11:17 must be longer than 0s",
            "15:18 \"25:00\" is not a time of day",
            "15:35 not a day: expected one of mon, tue, wed, thu, fri, sat, sun, workdays; did you mean \"workdays\"?",
            "15:60 must be at least 1",
            "15:75 has no effect without `quiet_for`",
            "17:8 a [[route]] with the name \"t\" stands in line 13 already",
        ],
    );
}

/// What would keep the worker from starting, as it would say it.
#[test]
fn a_cadence_that_the_worker_would_refuse_is_refused_at_its_field() {
    let times = (0..25).map(|n| format!("{:02}:{:02}", n % 24, n)).collect::<Vec<_>>().join(", ");
    for (cadence, field, told) in [
        ("at = '09:00', max_items = 50".to_owned(), "max_items", "has no effect"),
        ("max_items = 50".to_owned(), "max_items", "has no effect"),
        (
            "first_after = '10m', quiet_for = '5m', at_latest = '8m'".to_owned(),
            "at_latest",
            "8m is shorter than first_after",
        ),
        (format!("at = '{times}'"), "at", "25 times of day"),
        ("at = 'T0900'".to_owned(), "at", "\"T0900\" is not a time of day"),
        ("at = '09:00', days = []".to_owned(), "days", "name at least one day"),
    ] {
        let line = format!("cadence = {{ {cadence} }}");
        let found = problems(&format!("[[route]]\nname = 'r'\ntypes = ['a']\n{line}\n"));
        let column = line.find(&format!("{field} = ")).unwrap() + field.len() + 4;
        assert_problems(&found, &[&format!("4:{column} {told}")]);
    }
}

#[test]
fn a_word_that_is_no_level_does_not_silence_the_worker() {
    for level in ["warning", "verbose", "info,verbose", "hyper", "", " "] {
        assert_problems(&problems(&format!("[log]\nlevel = '{level}'")), &["2:9 not a log level"]);
    }
    for level in
        ["warn", " info ", "info,owlpost=debug", "owlpost=trace", "owlpost", "rdkafka=debug,info", "OFF", "info,"]
    {
        load(&format!("[log]\nlevel = '{level}'")).unwrap();
    }
}

#[test]
fn a_store_with_two_slashes_is_no_file_from_the_root() {
    assert_problems(&problems("[store]\nurl = 'sqlite://data/owlpost.db'"), &["2:7 expected a path and no host"]);
    for url in ["sqlite:data/owlpost.db", "sqlite:/data/owlpost.db", "sqlite:///data/owlpost.db"] {
        load(&format!("[store]\nurl = '{url}'")).unwrap();
    }
}

#[test]
fn a_sender_beyond_ascii_is_told_how_to_write_it() {
    for from in ["a@ex\u{e4}mple.com", "\u{fc}@example.com"] {
        assert_problems(
            &problems(&format!("[mailer]\nfrom = '{from}'")),
            &["2:8 the address has letters beyond ASCII"],
        );
    }
    load("[mailer]\nfrom = 'J\u{fc}rgen <a@xn--exmple-cua.com>'").unwrap();
}

#[test]
fn a_quota_that_leaves_nothing_is_told() {
    assert_problems(&problems("[quota]\nper_day = 0.5"), &["2:11 must be at least 1"]);
    for text in ["per_day = 1", "per_day = 100\nurgent_reserve = 1.0", "urgent_reserve = 1.0"] {
        let warnings = load(&format!("[quota]\n{text}")).unwrap().warnings;
        assert!(warnings.iter().any(|w| w.message.contains("leaves nothing to routes that are not urgent")), "{text}");
    }
    let fine = load("[quota]\nper_day = 12").unwrap().warnings;
    assert!(fine.iter().all(|w| !w.message.contains("urgent")));
}

#[test]
fn an_optional_route_needs_a_place_to_stop_its_mails() {
    let route = "[[route]]\nname = 'r'\ntypes = ['a']\noptional = true\n";
    assert_problems(&problems(route), &["4:12 needs templates.unsubscribe"]);
    let with = |url: &str| format!("{route}[templates]\nunsubscribe = '{url}'\n");
    for url in ["javascript:alert(1)", "http://x.example.com", "mailto:nobody", "https://x/{who}", "https://x/a b"] {
        assert_problems(&problems(&with(url)), &["6:15 "]);
    }
    let config = load(&with("https://x.example.com/?who={principal}&route={route}")).unwrap();
    assert!(config.routes[0].optional);
    let config = load("[templates]\nunsubscribe = 'mailto:a@example.com'").unwrap();
    assert!(config.routes.iter().all(|route| !route.optional));
}

#[test]
fn a_subject_for_a_type_of_athenz_is_a_warning() {
    let text = "[[route]]\nname = 'r'\ntypes = ['io.athenz.*']\nsubject_key = '{{id}}'";
    let config = load(text).unwrap();
    assert!(
        config.warnings.iter().any(|p| p.line == 4 && p.message.contains("keeps its subject")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn later_files_win_key_by_key_and_lists_merge_by_name() {
    let first = "[http]\nlisten = '127.0.0.1:1'\nbody_max_bytes = 2000000\n[recipients]\nallowed_domains = ['a.b', 'c.d']\n[[directory]]\nkind = 'file'\npath = 'a'\n[[directory]]\nname = 'n'\nkind = 'file'\npath = 'b'\n[[route]]\nname = 'x'\ntypes = ['t']\npriority = 'bulk'\ncadence = { first_after = '1m' }\n[[route]]\nname = 'y'\ntypes = ['t']";
    let second = "[http]\nlisten = '127.0.0.1:2'\n[recipients]\nallowed_domains = ['e.f']\n[[directory]]\npath = 'c'\n[[directory]]\nname = 'n'\npath = 'd'\n[[route]]\nname = 'y'\npriority = 'urgent'\n[[route]]\nname = 'x'\ncadence = { quiet_for = '2m' }\n[[route]]\nname = 'z'\ntypes = ['t']";
    let config = load_with(&[first, second], &[]).unwrap();
    assert_eq!((config.http.listen.as_str(), config.http.body_max_bytes), ("127.0.0.1:2", 2_000_000));
    assert_eq!(config.recipients.allowed_domains, ["e.f"]);
    let paths: Vec<_> = config.directories.iter().map(|d| d.path.clone().unwrap()).collect();
    assert_eq!(paths, [PathBuf::from("c"), PathBuf::from("d")]);
    let names: Vec<_> = config.routes.iter().map(|r| (r.name.as_str(), r.priority)).collect();
    assert_eq!(
        names,
        [("x", Priority::Bulk), ("y", Priority::Urgent), ("z", Priority::Normal), ("handled", Priority::Normal)]
    );
    assert_eq!(config.routes[0].cadence.first_after, None, "a cadence is replaced as a whole");
}

#[test]
fn problems_name_the_file_that_they_stand_in() {
    let files = files(&["[http]\nlisten = 'x'\n", "[log]\nlevle = 'x'\n"]);
    let problems = config::load(&files.paths, std::iter::empty()).unwrap_err();
    let errors: Vec<_> = problems.iter().filter(|p| p.severity == Severity::Error).map(|p| p.file.clone()).collect();
    let names: Vec<_> = files.paths.iter().map(|p| p.display().to_string()).collect();
    assert_eq!(errors, names);
    assert!(problems[0].to_string().starts_with(&format!("{}:2:10: ", names[0])), "{}", problems[0]);
}

#[test]
fn the_environment_overrides_sections_routes_sources_and_directories() {
    let text = "[[source]]\nname = 'my-events'\nkind = 'http'\n[[route]]\nname = 'approvals'\ntypes = ['t']\n[[directory]]\nkind = 'file'\npath = 'a'";
    let config = load_with(
        &[text],
        &[
            ("OWLPOST__REALM", "eu"),
            ("OWLPOST__HTTP__LISTEN", "127.0.0.1:9"),
            ("OWLPOST__HTTP__TOKEN", "12345678901234567890123"),
            ("OWLPOST__HTTP__ALLOW_ANONYMOUS", "true"),
            ("OWLPOST__STORE__RETENTION", "30d"),
            ("OWLPOST__QUOTA__PER_SECOND", "1.5"),
            ("OWLPOST__RECIPIENTS__ALLOWED_DOMAINS", "[\"a.b\", \"c.d\"]"),
            ("OWLPOST__SCHEDULE__HOLIDAYS", "[2026-12-25]"),
            ("OWLPOST__SOURCE__MY_EVENTS__ORIGIN", "007"),
            ("OWLPOST__ROUTE__APPROVALS__CADENCE__FIRST_AFTER", "3m"),
            ("OWLPOST__ROUTE__APPROVALS__WHERE", "{ \"data.change\" = \"add\" }"),
            ("OWLPOST__ROUTE__HANDLED__PRIORITY", "bulk"),
            ("OWLPOST__DIRECTORY__0__PATH", "b"),
            ("OWLPOST_CONFIG", "ignored"),
            ("OTHER", "ignored"),
        ],
    )
    .unwrap();
    assert_eq!((config.realm.as_str(), config.http.listen.as_str()), ("eu", "127.0.0.1:9"));
    assert_eq!(config.http.token.unwrap().0, "12345678901234567890123");
    assert!(config.http.allow_anonymous);
    assert_eq!(config.quota.per_second, Allowance::Mails(1.5));
    assert_eq!(config.recipients.allowed_domains, ["a.b", "c.d"]);
    assert_eq!(config.schedule.holidays, ["2026-12-25"]);
    assert_eq!(config.sources[0].origin(), "007");
    assert_eq!(config.routes[0].cadence.first_after.unwrap().to_string(), "3m");
    assert_eq!(config.routes[0].conditions, BTreeMap::from([("data.change".into(), OneOf(vec!["add".into()]))]));
    assert_eq!(config.routes[1].priority, Priority::Bulk);
    assert_eq!(config.directories[0].path, Some("b".into()));
}

#[test]
fn a_wrong_variable_is_named() {
    let found = problems_with(
        &["[[route]]\nname = 'approvals'\ntypes = ['t']"],
        &[
            ("OWLPOST__HTP__LISTEN", "x"),
            ("OWLPOST__HTTP__BODY_MAX_BYTES", "many"),
            ("OWLPOST__HTTP__LISTEN__PORT", "1"),
            ("OWLPOST__ROUTE__APROVALS__PRIORITY", "bulk"),
            ("OWLPOST__ROUTE__APPROVALS__PRIORITY", "high"),
            ("OWLPOST__DIRECTORY__3__PATH", "b"),
            ("OWLPOST__", "b"),
            ("OWLPOST__RECIPIENTS__ALLOWED_DOMAINS", "a.b"),
        ],
    );
    assert_problems(
        &found,
        &[
            "OWLPOST__ not a name of a key",
            "OWLPOST__DIRECTORY__3__PATH nothing is called 3 here",
            "OWLPOST__HTP__LISTEN unknown key \"htp\"; did you mean \"http\"?",
            "OWLPOST__HTTP__BODY_MAX_BYTES expected a whole number, not negative, found a text in quotes",
            "OWLPOST__HTTP__LISTEN__PORT expected a text in quotes, found a table",
            "OWLPOST__RECIPIENTS__ALLOWED_DOMAINS expected a list",
            "OWLPOST__ROUTE__APPROVALS__PRIORITY expected one of",
            "OWLPOST__ROUTE__APROVALS__PRIORITY nothing is called APROVALS here (2 entries",
        ],
    );
    assert!(found[7].ends_with("did you mean \"APPROVALS\"?"), "{}", found[7]);
}

#[test]
fn variables_and_files_are_filled_in_and_a_literal_stays() {
    let secret = files(&["s3cret\n"]);
    let path = secret.dir.path().join("0.toml").display().to_string();
    let text = format!("realm = 'a-${{R}}-$${{R}}-$R'\n[http]\ntoken = '${{file:{path}}}'");
    let config = load_with(&[&text], &[("R", "x${R}y")]).unwrap();
    assert_eq!(config.realm, "a-x${R}y-${R}-$R");
    assert_eq!(config.http.token.unwrap().0, "s3cret");
}

#[test]
fn what_can_not_be_filled_in_is_named_and_causes_nothing_else() {
    let found = problems(
        "realm = '${NOPE} ${ALSO}'\n[http]\ntoken = '${file:/nowhere/token}'\nlisten = '${OPEN'\n[[source]]\nname = '${NAME}'\nkind = 'http'",
    );
    assert_problems(
        &found,
        &[
            "1:9 ${ALSO}: the environment has no variable \"ALSO\"",
            "1:9 ${NOPE}: the environment has no variable \"NOPE\"",
            "3:9 ${file:/nowhere/token}: can't be read: No such file",
            "4:10 a ${ without its }",
            "6:8 ${NAME}: the environment has no variable",
        ],
    );
}

#[test]
fn secrets_stand_in_no_message_and_no_debug_output() {
    let config = load("[http]\ntoken = 'hunter2'").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let env = [("S", "hunter2")];
    for text in [
        "[http]\ntoken = 'hunter2 x'",
        "[http]\nlisten = '${S}'",
        "[mailer]\nkind = '${S}'",
        "[log]\nlevel = '${S}=='",
        "[store]\nurl = '${S}'",
        "[mailer]\nfrom = '${S}'",
    ] {
        let found = problems_with(&[text], &env);
        assert!(!found.is_empty() && found.iter().all(|p| !p.contains("hunter2")), "{found:?}");
    }
}

#[test]
fn syntax_errors_stand_with_their_place_beside_all_other_problems() {
    let found = problems("[http]\nlisten = \nlisen = 'x'\n[log\nlevel = 'info'\n[store]\nmigrate = 1\n");
    assert!(found.iter().any(|p| p.starts_with("2:10 not TOML")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("3:1 unknown key \"lisen\"")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("4:") && p.contains("not TOML")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("7:11 expected true or false")), "{found:#?}");
}

#[test]
fn a_file_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = dir.path().join("bytes.toml");
    std::fs::write(&bytes, b"realm = 'x'\n# \xc3\xa4\xff").unwrap();
    let big = dir.path().join("big.toml");
    std::fs::write(&big, "#".repeat(2 * 1024 * 1024)).unwrap();
    let paths = [dir.path().join("none.toml"), dir.path().to_owned(), bytes, big];
    let found = config::load(&paths, std::iter::empty()).unwrap_err();
    let found: Vec<_> = found.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)).collect();
    assert_problems(
        &found,
        &["0:0 can't be read: No such file", "0:0 is a folder", "2:4 is not UTF-8", "0:0 is 2097152 bytes long"],
    );
}

#[test]
fn a_thousand_problems_show_at_once() {
    let mut text = String::from("[http]\n");
    for i in 0..1_000 {
        text += &format!("unknown_{i} = {i}\n");
    }
    let found = problems(&text);
    assert_eq!(found.len(), 1_000);
    assert!(found[999].starts_with("1001:1 unknown key \"unknown_999\""));
}

#[test]
fn deep_nesting_is_a_problem_and_no_crash() {
    let text = format!("realm = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(!problems(&text).is_empty());
}

#[test]
fn one_bracket_where_there_should_be_two_is_told() {
    assert_problems(
        &problems("[route]\nname = 'r'"),
        &["1:2 expected a list of tables: write it in double brackets, [[like_this]]"],
    );
}

#[test]
fn names_that_become_the_same_by_the_environment_are_told() {
    let text = "[[source]]\nname = 'a'\nkind = 'http'\n[[source]]\nname = 'b'\nkind = 'file'\npath = '-'";
    let found = problems_with(&[text], &[("OWLPOST__SOURCE__B__NAME", "a")]);
    assert_problems(&found, &["OWLPOST__SOURCE__B__NAME a [[source]] with the name \"a\" stands in line 2 already"]);
}

#[test]
fn more_problems_than_anybody_reads_are_cut_and_said_so() {
    let text = (0..3_000).map(|i| format!("k{i} = 0\n")).collect::<String>();
    let found = problems(&text);
    assert_eq!(found.len(), config::PROBLEMS_MAX);
    assert!(found.last().unwrap().contains("there are more problems"), "{:?}", found.last());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_to_a_file_makes_it_panic(cuts in prop::collection::vec((0..REFERENCE.len(), "[\\[\\]{}=\"'$\\\\a-z0-9#.\n ]{0,4}"), 1..6)) {
        let mut text = REFERENCE.to_owned();
        for (at, with) in cuts {
            let end = (at + 3).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) && at < end {
                text.replace_range(at..end, &with);
            }
        }
        if let Err(problems) = load(&text) {
            prop_assert!(problems.iter().any(|p| p.severity == Severity::Error));
            prop_assert!(problems.iter().all(|p| p.line <= text.lines().count() + 1));
        }
    }

    #[test]
    fn no_variable_makes_it_panic(name in "[A-Z0-9_]{0,12}", value in any::<String>()) {
        for section in ["HTTP", "ROUTE", "DIRECTORY", "LOG"] {
            let _ = load_with(&[REFERENCE], &[(&format!("OWLPOST__{section}__{name}"), &value)]);
        }
    }
}

fn kafka(more: &str) -> String {
    format!(
        "[[source]]\nname='k'\nkind='kafka'\nbrokers=['broker.example.com:9093']\ntopics=['a']\ngroup='g'\n{more}\n\
         [[directory]]\nkind='rules'\nrules=[{{principal='user.{{name}}', address='{{name}}@example.com'}}]\n"
    )
}

#[test]
fn a_kafka_source_needs_brokers_topics_and_a_group_that_can_be_such() {
    assert_problems(
        &problems("[[source]]\nname='k'\nkind='kafka'\n"),
        &[
            "1:1 kind = \"kafka\" needs a group",
            "1:1 kind = \"kafka\" needs brokers",
            "1:1 kind = \"kafka\" needs topics",
        ],
    );
    let wrong =
        "[[source]]\nname='k'\nkind='kafka'\nbrokers=['kafka://b:1']\ntopics=['a b', '^a(', 'c', 'c']\ngroup=''\n";
    assert_problems(
        &problems(wrong),
        &[
            "4:10 expected HOST:PORT",
            "5:9 no name of a topic",
            "5:16 this pattern does not close a bracket",
            "5:28 stands in the list already",
            "6:7 a group is a text",
        ],
    );
}

#[test]
fn a_property_of_librdkafka_that_cant_be_used_is_told_with_what_to_do() {
    for (written, wanted) in [
        ("'sasl.pasword' = 'x'", "is no setting of librdkafka; did you mean \"sasl.password\"?"),
        ("'enable.auto.commit' = true", "an offset is committed once the store has committed"),
        ("'group.id' = 'x'", "write group instead"),
        ("'linger.ms' = 5", "is a setting of producers"),
        ("'session.timeout.ms' = 'soon'", "session.timeout.ms"),
    ] {
        let found = problems(&kafka(&format!("properties = {{ {written} }}")));
        assert!(found.len() == 1 && found[0].contains(wanted), "{written}: {found:?}");
    }
    let found = problems(&kafka("protocol = 'consumer'\nproperties = { 'session.timeout.ms' = 6000 }"));
    assert!(found.len() == 1 && found[0].contains("the broker decides this"), "{found:?}");
    let found = problems(&kafka("region = 'eu-west-1'"));
    assert!(found.len() == 1 && found[0].contains("iam = true"), "{found:?}");
}

#[test]
fn plain_text_to_another_machine_is_warned_of() {
    let config = load(&kafka("properties = { 'security.protocol' = 'plaintext' }")).unwrap();
    assert!(config.warnings.iter().any(|w| w.message.contains("plain text")), "{:?}", config.warnings);
    assert!(load(&kafka("")).unwrap().warnings.iter().all(|w| !w.message.contains("plain text")));
}

#[test]
fn a_property_comes_from_the_environment_as_it_was_written() {
    let name = "OWLPOST__SOURCE__K__PROPERTIES__SASL_PASSWORD";
    let config = load_with(&[&kafka("")], &[(name, "0012")]).unwrap();
    assert_eq!(config.sources[0].properties["sasl_password"].0, "0012");
    let found = problems_with(&[&kafka("")], &[("OWLPOST__SOURCE__K__PROPERTIES__SASL_PASWORD", "x")]);
    assert!(found.len() == 1 && found[0].contains("sasl.password"), "{found:?}");
}

//! `owlpost check` and `owlpost schema`, through the binary.

use crate::files;

/// Runs the binary; exit code, stdout, stderr.
fn owlpost(args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_owlpost"));
    let output = command.args(args).env_remove("OWLPOST_CONFIG").envs(env.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_says_what_was_read() {
    let (code, out, err) = owlpost(&["check"], &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    for word in ["config/local.toml (built in)", "events", "approvals", "urgent", "handled", "rules"] {
        assert!(out.contains(word), "{word} in:\n{out}");
    }
    let (code, out, _) = owlpost(&["check", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["ok"], &json["problems"]), (0, &true.into(), &serde_json::json!([])));
    assert_eq!(json["sources"], serde_json::json!([{"name": "events", "kind": "http"}]));
    assert_eq!(json["routes"][0]["name"], "approvals");
    assert_eq!(json["directories"], serde_json::json!([{"kind": "rules", "rules": 1}]));
}

#[test]
fn check_ends_with_2_and_every_problem() {
    let files = files(&["[http]\nlisen = 'x'\n[log]\nlevel = 5\n"]);
    let path = files.paths[0].to_str().unwrap();
    let env = [("OWLPOST__HTTP__LISTEN", "here")];
    let (code, out, _) = owlpost(&["-c", path, "check"], &env);
    assert_eq!(code, 2);
    for line in [
        format!("{path}:2:1: unknown key \"lisen\"; did you mean \"listen\"?"),
        format!("{path}:4:9: expected a text in quotes"),
        "OWLPOST__HTTP__LISTEN: not an address".to_owned(),
        "3 problems".to_owned(),
    ] {
        assert!(out.contains(&line), "{line} in:\n{out}");
    }
    let (code, out, _) = owlpost(&["-c", path, "check", "--json"], &env);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["ok"]), (2, &false.into()));
    assert_eq!(json["problems"][0]["file"], path);
    assert_eq!((&json["problems"][0]["line"], &json["problems"][0]["column"]), (&2.into(), &1.into()));
    assert_eq!(json["problems"][0]["severity"], "error");
}

#[test]
fn check_looks_at_templates_people_and_inputs_also_where_the_configuration_has_errors() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("broken.toml"), "[members]\n\"a:role.b\" = []\n\"a:role.b\" = []\n").unwrap();
    let people =
        "[[people]]\nprincipal = \"user.a\"\n[[people]]\nprincipal = \"user.b\"\nzone = \"Moon\"\n[members]\nx = []\n";
    std::fs::write(at("people.toml"), people).unwrap();
    std::fs::write(at("people.csv"), "principal,zone\nuser.a,Moon\n").unwrap();
    std::fs::create_dir_all(at("mine/approvals")).unwrap();
    std::fs::write(at("mine/approvals/subject.hbs"), "{{nobody.knows}}").unwrap();
    let config = format!(
        r#"
[http]
lisen = "x"
[[source]]
name = "in"
kind = "file"
path = "{}"
[mailer]
from = "nobody"
[[route]]
name = "r"
types = ["t"]
template = "sirens"
cadence = {{ first_after = "2m" }}
[[directory]]
kind = "file"
path = "{}"
[[directory]]
kind = "file"
path = "{}"
[[directory]]
kind = "file"
path = "{}"
[templates]
dir = "{}"
"#,
        at("none.ndjson"),
        at("broken.toml"),
        at("people.toml"),
        at("people.csv"),
        at("mine")
    );
    std::fs::write(at("c.toml"), config).unwrap();
    let (code, out, _) = owlpost(&["-c", &at("c.toml"), "check"], &[]);
    assert_eq!(code, 2);
    for line in [
        format!("{}:3:1: unknown key", at("c.toml")),
        format!("{}:7:8: source in: {}: no such file", at("c.toml"), at("none.ndjson")),
        format!("{}:9:8: not an address", at("c.toml")),
        format!("{}:3:1: duplicate key", at("broken.toml")),
        format!("{}:3:1: warning: people[1]: \"user.b\" has an unknown time zone", at("people.toml")),
        format!("{}:7:1: warning: members: \"x\" is not a collection", at("people.toml")),
        format!("{}:2:1: warning: \"user.a\" has an unknown time zone", at("people.csv")),
        at("mine/approvals/subject.hbs"),
    ] {
        assert!(out.contains(&line), "{line} in:\n{out}");
    }
    assert_eq!(out.matches("not an address").count() + out.matches("no mail address").count(), 1, "once:\n{out}");
    let last_error = out.rfind("✗").unwrap();
    assert!(last_error < out.find("warning:").unwrap(), "errors first:\n{out}");
}

/// What only a part of the worker itself can tell.
#[test]
fn what_check_lets_pass_can_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let smtp = |ca: &std::path::Path| {
        let mailer = "[mailer]\nkind = 'smtp'\nhost = 'mail.example.com'";
        format!(
            "{mailer}\nca_file = '{}'\n[recipients]\nallowed_domains = ['example.com']\n[quota]\nper_second = 1\nper_day = 100\n",
            ca.display()
        )
    };
    let rule = |principal: &str| {
        let rules = format!("[{{ principal = '{principal}', address = '{{a}}@example.com' }}]");
        format!("[[directory]]\nkind = 'rules'\nrules = {rules}\n")
    };
    for (text, told) in [
        (rule("{a}.{a}"), "stands there twice"),
        (rule("{a}{b}"), "follows another placeholder"),
        (smtp(&folder.path().join("none.pem")), "mailer.ca_file"),
        (smtp(&empty), "holds no certificate"),
    ] {
        let files = files(&[&text]);
        let (code, out, _) = owlpost(&["-c", files.paths[0].to_str().unwrap(), "check"], &[]);
        assert!(code == 2 && out.contains(told), "{told} in:\n{text}\n{out}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_a_reader_that_goes_away_is_no_failure() {
    use std::process::{Command, Stdio};
    for args in [&["check"][..], &["check", "--json"], &["schema", "event"], &["preview", "approvals"]] {
        let run = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_owlpost"));
            command.args(args).env_remove("OWLPOST_CONFIG").stdout(stdout).output().unwrap()
        };
        let full = run(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
        let said = String::from_utf8(full.stderr).unwrap();
        assert_eq!(full.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("cannot write") && said.lines().count() == 1, "{args:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = run(writer.into());
        assert_eq!((gone.status.code(), gone.stderr.len()), (Some(0), 0), "{args:?}");
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let (code, out, err) = owlpost(&["check"], &[("OWLPOST_CONFIG", "")]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("config/local.toml (built in)"), "{out}");
}

#[test]
fn schema_config_is_a_json_schema_that_knows_every_section() {
    let (code, out, _) = owlpost(&["schema", "config"], &[]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    for section in ["realm", "http", "store", "source", "mailer", "route", "directory", "log"] {
        assert!(json["properties"][section].is_object(), "{section}");
    }
    assert_eq!(json["additionalProperties"], false);
}

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
fn schema_config_is_a_json_schema_that_knows_every_section() {
    let (code, out, _) = owlpost(&["schema", "config"], &[]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    for section in ["realm", "http", "store", "source", "mailer", "route", "directory", "log"] {
        assert!(json["properties"][section].is_object(), "{section}");
    }
    assert_eq!(json["additionalProperties"], false);
}

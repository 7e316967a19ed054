//! `config/owlpost.toml` and `config/README.md` tell the truth.

use owlpost::config::{self, Config};

use crate::{REFERENCE, load, load_with};

/// The lines of owlpost.toml: section headers, keys that are set, defaults in comments, and examples in comments.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    Header(String),
    Set(String, String),
    Default(String, String),
    Example(String),
}

fn lines() -> Vec<Line> {
    let key = |text: &str| {
        let (key, _) = text.split_once(" = ")?;
        key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then(|| (key.to_owned(), text.to_owned()))
    };
    let mut lines = Vec::new();
    for line in REFERENCE.lines() {
        if let Some(text) = line.strip_prefix("#~ ") {
            lines.push(Line::Example(text.to_owned()));
        } else if let Some(text) = line.strip_prefix("# ") {
            lines.extend(key(text).map(|(k, t)| Line::Default(k, t)));
        } else if line.starts_with('[') {
            lines.push(Line::Header(line.to_owned()));
        } else {
            lines.extend(key(line).map(|(k, t)| Line::Set(k, t)));
        }
    }
    lines
}

/// Lines as TOML; defaults and examples only for keys that are not set in the same section.
fn document(take: impl Fn(&Line, &str) -> bool) -> String {
    let all = lines();
    let (mut out, mut header) = (String::new(), String::new());
    for (index, line) in all.iter().enumerate() {
        let section = |l: &&Line| !matches!(l, Line::Header(_));
        let set = |key: &str| {
            let before = all[..index].iter().rev().take_while(section);
            before.chain(all[index..].iter().take_while(section)).any(|l| matches!(l, Line::Set(k, _) if k == key))
        };
        if let Line::Header(text) = line {
            header = text.clone();
        }
        if !take(line, &header) {
            continue;
        }
        match line {
            Line::Header(text) | Line::Set(_, text) | Line::Example(text) => out += &format!("{text}\n"),
            Line::Default(key, text) if !take(&Line::Set(String::new(), String::new()), &header) || !set(key) => {
                out += &format!("{text}\n");
            }
            Line::Default(..) => {}
        }
    }
    out
}

#[test]
fn each_documented_default_is_the_real_one() {
    // Sections: the documented defaults alone are the defaults of the code.
    let alone =
        document(|line, header| !header.starts_with("[[") && matches!(line, Line::Header(_) | Line::Default(..)));
    assert!(alone.lines().count() > 40, "{alone}");
    let documented = Config { routes: vec![], warnings: vec![], ..load(&alone).unwrap() };
    assert_eq!(documented, Config::default());
    // Lists: an entry with the documented defaults is the entry without them.
    let set = document(|line, _| matches!(line, Line::Header(_) | Line::Set(..)));
    let both = document(|line, _| !matches!(line, Line::Example(_)));
    assert!(both.len() > set.len());
    assert_eq!(load(&set).unwrap().routes, load(&both).unwrap().routes);
}

#[test]
fn a_documented_default_that_is_wrong_would_be_found() {
    let alone =
        document(|line, header| !header.starts_with("[[") && matches!(line, Line::Header(_) | Line::Default(..)));
    let wrong = alone.replace("in_flight = 32", "in_flight = 33");
    assert_ne!(Config { routes: vec![], warnings: vec![], ..load(&wrong).unwrap() }, Config::default());
}

#[test]
fn the_reference_is_clean_and_every_key_is_in_it() {
    assert_eq!(load(REFERENCE).unwrap().warnings, []);
    let everything = document(|_, _| true);
    // Each kind of mailer has keys of its own.
    let of_kind = |kind: &str, others: &[&str]| -> String {
        let mine = |line: &&str| !others.iter().any(|key| line.starts_with(&format!("{key} = ")));
        let text: Vec<&str> = everything.lines().filter(mine).collect();
        // Some keys of the store belong to one of its kinds.
        let text =
            text.join("\n").replace("\"sqlite:data/owlpost.db\"", "\"postgres://owlpost@db.example.com/owlpost\"");
        text.replace("kind = \"outbox\"", &format!("kind = \"{kind}\"")) + "\n"
    };
    let secrets = [
        ("OWLPOST_TOKEN", "secret"),
        ("OWLPOST_PREVIOUS_TOKEN", "old-secret"),
        ("SMTP_PASSWORD", "secret"),
        ("STORE_PASSWORD", "secret"),
    ];
    let smtp = ["host", "port", "ca_file", "username", "password"];
    load_with(&[&of_kind("ses", &smtp)], &secrets).unwrap();
    let ses = [
        "region",
        "assume_role_arn",
        "external_id",
        "identity_arn",
        "configuration_set",
        "endpoint_url",
        "per_second",
        "per_day",
    ];
    let smtp = of_kind("smtp", &ses).replace("[quota]\n", "[quota]\nper_second = 5\nper_day = 900\n");
    load_with(&[&smtp], &secrets).unwrap();
    let table: toml::Value = toml::from_str::<toml::Table>(&everything).unwrap().into();
    let schema = config::schema().to_value();
    let mut missing = Vec::new();
    undocumented(&schema, &schema, &[&table], "", &mut missing);
    assert_eq!(missing, [""; 0]);
    let readme = include_str!("../../config/README.md");
    let mut keys = Vec::new();
    undocumented(&schema, &schema, &[], "", &mut keys);
    for key in keys {
        let last = key.rsplit('.').next().unwrap();
        assert!(
            readme.contains(&format!("`{last}`")) || readme.contains(&format!("[{last}]")),
            "{key} in config/README.md"
        );
    }
}

/// Keys of the schema that stand in none of the values; without values, all keys.
fn undocumented(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    values: &[&toml::Value],
    at: &str,
    out: &mut Vec<String>,
) {
    let schema = match schema["$ref"].as_str() {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else {
        if !schema["items"].is_null() {
            let items: Vec<_> = values.iter().filter_map(|v| v.as_array()).flatten().collect();
            undocumented(root, &schema["items"], &items, at, out);
        }
        return;
    };
    for (key, inner) in properties {
        let path = format!("{at}.{key}");
        let found: Vec<_> = values.iter().filter_map(|v| v.get(key)).collect();
        if found.is_empty() {
            out.push(path.clone());
        }
        if !found.is_empty() || values.is_empty() {
            undocumented(root, inner, &found, &path, out);
        }
    }
}

/// Ready files: what stands beside the reference is clean as it is.
#[test]
fn the_ready_files_are_clean() {
    let secrets = [("OWLPOST_TOKEN", "secret"), ("SMTP_PASSWORD", "secret"), ("KAFKA_PASSWORD", "secret")];
    for (name, text) in [
        ("ses.toml", include_str!("../../config/ses.toml")),
        ("smtp.toml", include_str!("../../config/smtp.toml")),
        ("kafka.toml", include_str!("../../config/kafka.toml")),
        ("sqs.toml", include_str!("../../config/sqs.toml")),
    ] {
        let config = load_with(&[text], &secrets).unwrap_or_else(|p| panic!("{name}: {p:?}"));
        assert_eq!(config.warnings, [], "{name}");
    }
}

//! The order of the modules, and what no source file may hold. Whoever adds a module gives it a place in [`LAYERS`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Top may import below, never up or sideways. A line is a layer.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    // The loops and the listener meet only in the store.
    &["ingest", "deliver", "upkeep", "forward", "account", "http"],
    // What the loops share: settings of all parts, routes compiled with their cadences, health.
    &["config", "policy", "vitals", "phase", "pace"],
    &["decode", "route", "render"],
    &["schedule"],
    // Traits, and below each its adapters.
    &["source", "store", "mailer", "directory", "outlet"],
    &["kafka"],
    &["metrics", "telemetry", "clock", "aws"],
    &["quota"],
    &["model", "zone"],
    &["span"],
];

/// Adapters: (trait's module, adapter). Only `app` and the commands name one; it knows its trait and [`ADAPTERS_KNOW`].
const ADAPTERS: &[(&str, &str)] = &[
    ("source", "file"),
    ("source", "http"),
    ("source", "kafka"),
    ("outlet", "kafka"),
    ("source", "sqs"),
    ("outlet", "sqs"),
    ("store", "postgres"),
    ("store", "sqlite"),
    ("mailer", "capture"),
    ("mailer", "discard"),
    ("mailer", "outbox"),
    ("mailer", "ses"),
    ("mailer", "smtp"),
    ("directory", "chain"),
    ("directory", "file"),
    ("directory", "rules"),
];
const ADAPTERS_KNOW: &[&str] = &["model", "span", "zone", "metrics", "telemetry", "clock", "quota", "aws", "kafka"];
const MAKE_ADAPTERS: &[&str] = &["app", "cli"];

/// A module's path, `store::sqlite::accept` as three parts.
type Module = Vec<String>;

struct File {
    path: PathBuf,
    module: Module,
    /// Without comments and without the unit tests at its end; the lines keep their numbers.
    code: String,
    text: String,
}

/// `noun/tests.rs`, which `noun.rs` has for its tests only.
fn is_unit_tests(path: &Path) -> bool {
    let noun = path.parent().unwrap().with_extension("rs");
    path.file_name().is_some_and(|name| name == "tests.rs")
        && std::fs::read_to_string(noun).is_ok_and(|text| text.contains("#[cfg(test)]\nmod tests;"))
}

fn files() -> Vec<File> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !is_unit_tests(&path) {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let module = path.strip_prefix(&src).unwrap().with_extension("");
            let module = module.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
            let code = text[..tests].lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>();
            File { code: code.join("\n"), path, module, text: text[..tests].to_owned() }
        })
        .collect()
}

/// Every path into this crate that the code names, by `crate::` or `super::`, with its line.
fn imports(file: &File) -> Vec<(usize, Module)> {
    let mut found = Vec::new();
    for (start, word) in file.code.match_indices("crate::").chain(file.code.match_indices("super::")) {
        let before = file.code[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let line = file.code[..start].lines().count().max(1);
        let mut base: Module = if word == "crate::" { vec![] } else { parent(&file.module) };
        let mut rest = &file.code[start + word.len()..];
        while let Some(up) = rest.strip_prefix("super::") {
            base = parent(&base);
            rest = up;
        }
        for path in paths(rest) {
            found.push((line, base.iter().cloned().chain(path).collect()));
        }
    }
    found
}

fn parent(module: &[String]) -> Module {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// `a::{b::c, d}` as `a b c` and `a d`; `self` and what follows a path end it.
fn paths(text: &str) -> Vec<Module> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut starts, mut all) = (0, true, Vec::new());
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => starts = true,
                c if starts && !c.is_whitespace() => {
                    starts = false;
                    all.extend(paths(&group[i..]));
                }
                _ => {}
            }
        }
        return all;
    }
    if name.is_empty() || name == "self" {
        return vec![vec![]];
    }
    match text[name.len()..].strip_prefix("::") {
        Some(rest) => paths(rest).into_iter().map(|p| std::iter::once(name.clone()).chain(p).collect()).collect(),
        None => vec![vec![name]],
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn adapter(module: &[String]) -> Option<(&str, &str)> {
    let [outer, inner, ..] = module else { return None };
    ADAPTERS.iter().copied().find(|(of, name)| of == outer && name == inner)
}

fn shown(module: &[String]) -> String {
    module.join("::")
}

#[test]
fn every_module_has_a_place_in_the_table() {
    let there: BTreeSet<String> = files().iter().map(|f| f.module[0].clone()).filter(|name| name != "lib").collect();
    let homeless: Vec<&String> = there.iter().filter(|name| layer(name).is_none()).collect();
    assert!(homeless.is_empty(), "give these modules a layer in tests/layers.rs: {homeless:?}");
}

#[test]
fn nothing_imports_upwards_or_sideways() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|f| f.module[0] != "lib") {
        let mine = &file.module[0];
        for (line, path) in imports(file) {
            // A name at the top of the crate that is no module: an item of lib.rs.
            let Some((theirs, to)) = path.first().and_then(|name| Some((name, layer(name)?))) else { continue };
            let from = layer(mine).unwrap();
            if theirs != mine && to <= from {
                wrong.push(format!("{}:{line}: {mine} imports {}", file.path.display(), shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn adapters_know_only_their_trait_and_the_nouns() {
    let mut wrong = Vec::new();
    for file in files() {
        let Some(mine) = adapter(&file.module) else { continue };
        for (line, path) in imports(&file) {
            let other = adapter(&path).is_some_and(|theirs| theirs != mine);
            let Some(theirs) = path.first().filter(|name| layer(name).is_some()) else { continue };
            if other || (theirs != mine.0 && !ADAPTERS_KNOW.contains(&theirs.as_str())) {
                wrong.push(format!("{}:{line}: {} imports {}", file.path.display(), shown(&file.module), shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_app_and_commands_name_an_adapter() {
    let mut wrong = Vec::new();
    for file in files() {
        if adapter(&file.module).is_some() || MAKE_ADAPTERS.contains(&file.module[0].as_str()) {
            continue;
        }
        for (line, path) in imports(&file).iter().filter(|(_, path)| adapter(path).is_some()) {
            wrong.push(format!("{}:{line}: {} names {}", file.path.display(), shown(&file.module), shown(path)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_can_panic_says_in_a_comment_why_it_does_not() {
    const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!(", "unreachable!(", "assert!(", "assert_eq!("];
    const NEVER: &[&str] = &["todo!(", "unimplemented!(", "dbg!("];
    let mut wrong = Vec::new();
    for file in files() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (i, line) in file.code.lines().enumerate() {
            let reasoned = lines[..=i].iter().rev().take(3).any(|l| l.contains("//"));
            if NEVER.iter().any(|n| line.contains(n)) || (!reasoned && PANICS.iter().any(|p| line.contains(p))) {
                wrong.push(format!("{}:{}: {}", file.path.display(), i + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn templates_never_switch_escaping_off() {
    let mut seen = 0;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("templates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "hbs") {
                seen += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(
                    !text.contains("{{{") && !text.contains("{{&"),
                    "{}: values are always escaped",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_scanner_sees_every_form_of_import() {
    let file = |module: &str, code: &str| File {
        path: PathBuf::new(),
        module: module.split("::").map(str::to_owned).collect(),
        code: code.to_owned(),
        text: String::new(),
    };
    let seen = |module: &str, code: &str| -> Vec<String> {
        imports(&file(module, code)).iter().map(|(line, path)| format!("{line} {}", shown(path))).collect()
    };
    assert_eq!(seen("a", "use crate::b::C;"), ["1 b::C"]);
    assert_eq!(seen("a", "\nuse crate::{b::{self, C}, d};\n"), ["2 b", "2 b::C", "2 d"]);
    assert_eq!(seen("a::b::c", "super::super::x::Y(super::z)"), ["1 a::x::Y", "1 a::b::z"]);
    assert_eq!(seen("a", "let x = $crate::b; my_crate::c();"), [] as [&str; 0]);
}

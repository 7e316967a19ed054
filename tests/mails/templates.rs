//! Templates: what is built in, and what an override folder may do and break.

use std::fs;
use std::path::Path;

use owlpost::render::{Renderer, Settings, samples};
use serde_json::json;

use super::{item, request, settings};

#[test]
fn a_template_that_fails_on_one_item_names_that_item() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tickets");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("subject.hbs"), "{{subject}}").unwrap();
    fs::write(folder.join("body.html.hbs"), "<p>{{title}}</p>").unwrap();
    fs::write(folder.join("body.txt.hbs"), "{{#each items}}\n{{headline}} {{data.ticket}}\n{{/each}}").unwrap();
    let renderer = Renderer::new(Settings { overrides: Some(dir.path().into()), ..settings() }).unwrap();
    assert!(renderer.templates().iter().any(|t| t == "tickets"));
    let ticket = |n, data| item(n, "com.example.ticket.v1", data);
    let items = vec![
        ticket(1, json!({"ticket": "T-1"})),
        ticket(2, json!({"other": "SECRET"})),
        ticket(3, json!({"ticket": "T-3"})),
    ];
    let error = renderer.render(&samples::contents(items, "x"), "tickets").unwrap_err();
    assert_eq!(error.event_numbers, [2]);
    assert!(error.detail.contains("body.txt.hbs:2:") && !error.detail.contains("SECRET"), "{}", error.detail);
    let error = renderer.render(&samples::contents(vec![request(7, "user.joe")], "x"), "nowhere").unwrap_err();
    assert_eq!(error.event_numbers, [7]);
}

#[test]
fn an_item_that_breaks_only_in_company_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("digest");
    fs::create_dir(&folder).unwrap();
    // Fails as soon as a second item is there which has no such data.
    let body = "{{#each items}}{{#unless @first}}{{data.ticket}}{{/unless}}{{/each}}";
    fs::write(folder.join("body.txt.hbs"), body).unwrap();
    let renderer = Renderer::new(Settings { overrides: Some(dir.path().into()), ..settings() }).unwrap();
    let items = vec![request(1, "user.joe"), request(2, "user.kim"), request(3, "user.zoe")];
    assert_eq!(renderer.render(&samples::contents(items, "x"), "digest").unwrap_err().event_numbers, [2]);
}

#[test]
fn every_problem_of_an_override_folder_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["approvals", "reviews", "tickets"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    fs::write(dir.path().join("approvals/body.html.hbs"), "<p>\n{{#if title}}\n").unwrap();
    fs::write(dir.path().join("approvals/body.txt.hbs"), "a\nb {{{title}}} c").unwrap();
    fs::write(dir.path().join("reviews/body.html.hbs"), "<p>\n  {{{title}}}</p>").unwrap();
    fs::write(dir.path().join("reviews/body.htm.hbs"), "x").unwrap();
    fs::write(dir.path().join("tickets/subject.hbs"), "x").unwrap();
    fs::write(dir.path().join("reviews/README.md"), "notes are welcome").unwrap();
    let overrides = Some(dir.path().to_path_buf());
    let problems = Renderer::new(Settings {
        overrides,
        from: "nobody".into(),
        ui_url: Some("javascript:x".into()),
        zone: "Mars".into(),
        ..settings()
    });
    let told: Vec<String> = problems.err().unwrap().iter().map(ToString::to_string).collect();
    let all = told.join("\n");
    for part in [
        "mailer.from",
        "templates.ui_url",
        "schedule.zone",
        "approvals/body.html.hbs:3:1: not a valid",
        "reviews/body.html.hbs:2:3: unescaped",
        "reviews/body.htm.hbs: no such template file",
        "tickets/body.html.hbs: missing",
        "tickets/body.txt.hbs: missing",
    ] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }
    assert_eq!(told.len(), 8, "{all}");
}

#[test]
fn an_override_without_a_subject_is_found_at_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("reviews")).unwrap();
    fs::write(dir.path().join("reviews/subject.hbs"), "\n").unwrap();
    let problems = Renderer::new(Settings { overrides: Some(dir.path().into()), ..settings() }).err().unwrap();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(matches!(&told[..], [one] if one.contains("reviews/subject.hbs: makes an empty subject")), "{told:?}");
}

#[test]
fn a_misspelt_name_in_an_override_is_found_at_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("health")).unwrap();
    fs::create_dir(dir.path().join("partials")).unwrap();
    fs::write(dir.path().join("health/subject.hbs"), "{{subjekt}}").unwrap();
    fs::write(dir.path().join("partials/foot.txt.hbs"), "x\n {{digset}}\n").unwrap();
    let problems = Renderer::new(Settings { overrides: Some(dir.path().into()), ..settings() }).err().unwrap();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|t| t.contains("health/subject.hbs:1:") && t.contains("subjekt")), "{told:?}");
    assert!(told.iter().any(|t| t.contains("partials/foot.txt.hbs:2:") && t.contains("digset")), "{told:?}");
}

#[test]
fn html_templates_escape_everything_and_quote_attributes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut files = 0;
    for folder in fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
        for file in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            let source = fs::read_to_string(&file).unwrap();
            assert!(!source.contains("{{{") && !source.contains("{{&"), "{}", file.display());
            assert!(!source.contains("={{"), "{}: an attribute without quotes", file.display());
            files += 1;
        }
    }
    assert_eq!(files, 8 * 3 + 8, "eight mails and the partials");
}

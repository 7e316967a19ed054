//! Golden mails, and what holds for every mail whatever is in it.
//!
//! `OWLPOST_UPDATE_GOLDEN=1 cargo test --test mails` writes `tests/golden/` anew; look at the difference before you commit.

#[path = "mails/looks.rs"]
mod looks;
#[path = "mails/templates.rs"]
mod templates;

use std::fs;
use std::path::PathBuf;

use owlpost::mailer::mime;
use owlpost::model::{AttemptId, Contents, Email, Listed, Time};
use owlpost::render::{LISTED_BYTES, MAIL_BYTES_MIN, NAMES, Renderer, Settings, samples};
use proptest::prelude::*;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings { ui_url: Some("https://athenz.example.com/".into()), ..Settings::default() }
}

fn renderer() -> Renderer {
    Renderer::new(settings()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn render(contents: &Contents, template: &str) -> Email {
    renderer().render(contents, template).unwrap()
}

fn item(number: i64, kind: &str, data: Value) -> Listed {
    Listed {
        event_number: number,
        source: "zms/test".into(),
        id: format!("e-{number}"),
        kind: kind.into(),
        time: Time::parse("2026-11-21T10:00:00Z").unwrap(),
        deadline: None,
        subject_key: Some(format!("k-{number}")),
        data: data.as_object().unwrap().clone(),
        data_cut: false,
    }
}

fn request(number: i64, member: &str) -> Listed {
    item(
        number,
        "io.athenz.membership.requested.v1",
        json!({"domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": member,
               "change": "add", "requester": member, "reason": "on call"}),
    )
}

/// A value that tries everything at once.
const HOSTILE: &str = "x<script>alert(1)</script>\"' onx=\"{{data}}{{{this}}}{{> foot}}\r\nBcc: eve@example.com\0\u{202E}eoj\u{2066}&amp;";

fn hostile() -> Vec<Listed> {
    let mut items = samples::all();
    for item in &mut items {
        item.kind = if item.kind.starts_with("com.") { format!("com.example.{HOSTILE}") } else { item.kind.clone() };
        item.subject_key = Some(HOSTILE.into());
        for (_, value) in item.data.iter_mut() {
            poison(value);
        }
    }
    items
}

fn poison(value: &mut Value) {
    match value {
        // Words that choose a sentence and times stay what they are, or nothing would be shown of them.
        Value::String(s) if ["add", "delete", "approve", "reject", "role", "group"].contains(&s.as_str()) => {}
        Value::String(s) if Time::parse(s).is_some() => {}
        Value::String(s) => *s = format!("{s}{HOSTILE}"),
        Value::Object(map) => map.values_mut().for_each(poison),
        _ => {}
    }
}

fn golden(name: &str, mail: &Email) {
    let whole = mime::message(mail, AttemptId { digest: mail_digest(mail), number: 1 }).unwrap();
    let whole = String::from_utf8(whole).unwrap();
    let head = whole.split_once("\r\n\r\n").unwrap().0.replace("\r\n", "\n");
    let subject = &mail.subject;
    for (ending, now) in
        [("txt", format!("{head}\n\nSubject: {subject}\n\n{}", mail.text)), ("html", mail.html.clone())]
    {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.{ending}"));
        if std::env::var_os("OWLPOST_UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &now).unwrap();
        }
        let then = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            then == now,
            "{} differs; if that is meant, run OWLPOST_UPDATE_GOLDEN=1 cargo test --test mails\n{now}",
            path.display()
        );
    }
}

fn mail_digest(mail: &Email) -> owlpost::model::DigestId {
    mail.headers.iter().find(|(n, _)| n == "X-Owlpost-Digest").unwrap().1.parse().unwrap()
}

#[test]
fn golden_mails_of_every_template() {
    for template in NAMES {
        golden(template, &render(&samples::contents(samples::for_template(template), template), template));
    }
}

#[test]
fn golden_mails_of_every_type() {
    let all = samples::all();
    let mut seen = Vec::new();
    for listed in all {
        let name = listed.kind.trim_start_matches("io.athenz.").trim_end_matches(".v1").replace('.', "-");
        if seen.contains(&name) {
            continue;
        }
        golden(&format!("type-{name}"), &render(&samples::contents(vec![listed], "digest"), "digest"));
        seen.push(name);
    }
    assert_eq!(seen.len(), 13, "12 types of Athenz and one of somebody else");
}

#[test]
fn golden_mails_of_what_somebody_else_settled_and_of_hostile_values() {
    golden("handled", &render(&samples::contents(samples::for_template("decisions"), "handled"), "decisions"));
    golden("hostile", &render(&samples::contents(hostile(), "digest"), "digest"));
}

#[test]
fn any_template_takes_any_type() {
    let renderer = renderer();
    for template in NAMES {
        for listed in samples::all().into_iter().chain(hostile()) {
            let mail = renderer.render(&samples::contents(vec![listed], template), template).unwrap();
            assert!(!mail.subject.is_empty() && mail.html.ends_with("</html>\n") && !mail.text.trim().is_empty());
        }
    }
}

#[test]
fn the_same_contents_give_the_same_mail() {
    let contents = samples::contents(samples::all(), "digest");
    assert_eq!(render(&contents, "digest"), render(&contents, "digest"));
}

#[test]
fn values_are_inert_wherever_they_land() {
    for template in NAMES {
        let mail = render(&samples::contents(hostile(), template), template);
        assert!(!mail.html.contains("<script") && !mail.html.contains(" onx=\""), "{template}");
        assert!(mail.html.contains("&lt;script&gt;") && mail.html.contains("{{data}}"), "{template}");
        for part in [&mail.subject, &mail.text, &mail.html] {
            assert!(!part.chars().any(|c| c == '\0' || ('\u{202A}'..='\u{202E}').contains(&c) || c == '\u{2066}'));
        }
        assert!(!mail.text.lines().any(|l| l.trim_start().starts_with("Bcc:")), "a value starts no line of its own");
        assert!(!mail.subject.contains(['\r', '\n']));
        let whole = mime::message(&mail, samples::contents(vec![], "x").attempt).unwrap();
        let whole = String::from_utf8(whole).unwrap();
        let head = whole.split_once("\r\n\r\n").unwrap().0;
        assert!(!head.split("\r\n").any(|l| l.starts_with("Bcc:")), "{head}");
    }
}

/// Mails of values that try everything, and of optional routes, as an independent reader finds them.
#[test]
fn another_parser_finds_no_defect_in_hostile_and_optional_mails() {
    let folder = tempfile::tempdir().unwrap();
    let unsubscribe = Some("https://example.com/stop?who={principal}".into());
    let optional = NAMES.map(str::to_owned).into_iter().collect();
    let renderer = Renderer::new(Settings { unsubscribe, optional, ..settings() }).unwrap();
    for template in NAMES {
        let mail = renderer.render(&samples::contents(hostile(), template), template).unwrap();
        assert!(mail.headers.iter().any(|(name, _)| name == "List-Unsubscribe"), "{template}");
        let whole = mime::message(&mail, AttemptId { digest: mail_digest(&mail), number: 1 }).unwrap();
        std::fs::write(folder.path().join(format!("{template}.eml")), whole).unwrap();
    }
    let read = std::process::Command::new("python3").arg("tests/mail_parser.py").arg(folder.path()).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&[read.stdout, read.stderr].concat()));
}

#[test]
fn a_subject_says_what_waits_where_and_by_when() {
    let subject = |items| render(&samples::contents(items, "digest"), "digest").subject;
    let mut items = samples::for_template("approvals");
    items.extend(samples::for_template("expiries"));
    items.retain(|i| i.kind.contains("requested") || i.kind.contains("expiring"));
    assert_eq!(subject(items), "3 approvals, 2 expiries in sports (+1 domain), first due 24 Nov");
    let all = subject(samples::all());
    assert_eq!(all, "3 approvals, 2 expiries, 1 review, 13 more in sports (+1 domain), first due 22 Nov, 21:00");
    let one = render(&samples::contents(vec![request(1, "user.joe")], "approvals"), "approvals").subject;
    assert_eq!(one, "user.joe asks to join sports:role.writers");
    let two = samples::contents(vec![request(1, "user.joe"), request(2, "user.kim")], "approvals");
    assert_eq!(render(&two, "approvals").subject, "2 approvals in sports");
    let some = Contents { open_total: 212, ..two };
    assert_eq!(render(&some, "approvals").subject, "2 of 212: approvals in sports");
    assert!(render(&some, "approvals").text.contains("2 of 212; 210 more"));
}

#[test]
fn a_mail_about_somebody_elses_act_says_who_did_it() {
    let mail = render(&samples::contents(samples::for_template("decisions"), "handled"), "decisions");
    assert!(
        mail.text.contains("Already approved by user.alice: user.joe is now in sports:role.readers"),
        "{}",
        mail.text
    );
    assert!(mail.text.contains("Already rejected by user.lee"), "{}", mail.text);
    assert!(mail.subject.contains("already handled"), "{}", mail.subject);
}

#[test]
fn an_approver_reads_which_end_date_was_asked_for() {
    let mut listed = request(1, "user.joe");
    listed.data.insert("expires_at".into(), json!("2026-12-21T10:00:00Z"));
    let mail = render(&samples::contents(vec![listed], "approvals"), "approvals");
    for part in [&mail.text, &mail.html.replace("&#x3D;", "=")] {
        assert!(
            part.contains("Mon 21 Dec, 11:00 CET") && part.contains("drops the requested end when you approve"),
            "{part}"
        );
        assert!(part.contains("https://athenz.example.com/workflow/domain?domain=sports"), "{part}");
    }
}

#[test]
fn several_changes_of_one_object_are_told_once_with_their_number() {
    let change = |n: i64, at: &str, api: &str| Listed {
        time: Time::parse(at).unwrap(),
        subject_key: Some("domain/sports/role/writers".into()),
        ..item(
            n,
            "io.athenz.domain.changed.v1",
            json!({"domain": "sports", "object": {"kind": "role", "name": "writers"}, "api": api}),
        )
    };
    let items = vec![
        change(1, "2026-11-21T10:00:00Z", "putrole"),
        change(2, "2026-11-21T12:00:00Z", "putmembership"),
        change(3, "2026-11-21T11:00:00Z", "deletemembership"),
    ];
    let mail = render(&samples::contents(items, "changes"), "changes");
    assert!(mail.text.contains("putmembership") && !mail.text.contains("putrole"), "{}", mail.text);
    assert!(mail.text.contains("3 times"), "{}", mail.text);
    // Two decisions on one subject answer two requests.
    let decided = |n: i64, word: &str| Listed {
        subject_key: Some("same".into()),
        ..item(
            n,
            "io.athenz.membership.decided.v1",
            json!({"domain": "sports", "member": "user.joe", "decision": word}),
        )
    };
    let mail = render(&samples::contents(vec![decided(1, "reject"), decided(2, "approve")], "decisions"), "decisions");
    assert!(mail.text.contains("Rejected") && mail.text.contains("Approved"), "{}", mail.text);
}

#[test]
fn fifty_items_always_fit_and_every_principal_is_named() {
    for (reason, name) in
        [("x".repeat(2_000), "user.m"), ("\u{1F600}".repeat(2_000), "user.m"), ("\"<&".repeat(700), "user.m")]
    {
        let items: Vec<Listed> = (0..50)
            .map(|n| {
                let mut listed = request(n, &format!("{name}{n:02}"));
                listed.data.insert("reason".into(), json!(reason));
                listed
            })
            .collect();
        let contents = Contents { open_total: 212, ..samples::contents(items, "approvals") };
        let mail = render(&contents, "approvals");
        assert!(mime::message(&mail, contents.attempt).unwrap().len() < 100_000);
        for n in 0..50 {
            assert!(mail.text.contains(&format!("user.m{n:02}")), "user.m{n:02} is not named");
        }
        assert!(mail.subject.starts_with("50 of 212: approvals"), "{}", mail.subject);
    }
}

#[test]
fn a_mail_stays_below_its_limit_in_any_script() {
    let renderer = renderer();
    for (script, bytes) in [("ж", 2), ("語", 3), ("a", 1), ("=", 1), ("aж", 3), ("aaaaж", 6)] {
        for reason_bytes in (60..=500).step_by(40) {
            let items = (0..50).map(|n| {
                let mut listed = request(n, &format!("user.m{n:02}"));
                listed.data.insert("reason".into(), json!(script.repeat(reason_bytes / bytes)));
                listed
            });
            let contents = samples::contents(items.collect(), "approvals");
            let mail = renderer.render(&contents, "approvals").unwrap();
            let bytes = mime::message(&mail, contents.attempt).unwrap().len();
            assert!(bytes < 100_000, "{bytes} bytes with {reason_bytes} bytes of {script:?}");
        }
    }
}

#[test]
fn fifty_items_of_the_worst_names_fit_too() {
    let worst = |n: i64| format!("{n:02}{}", "\"".repeat(2_000));
    let items: Vec<Listed> = (0..50)
        .map(|n| {
            let mut listed = request(n, &worst(n));
            listed.data.insert("requester".into(), json!(format!("r{}", worst(n))));
            listed.data.insert("domain".into(), json!(worst(n)));
            listed
        })
        .collect();
    let contents = samples::contents(items, "approvals");
    let mail = render(&contents, "approvals");
    assert!(mime::message(&mail, contents.attempt).unwrap().len() < 100_000);
    assert!((0..50).all(|n| mail.text.contains(&format!("{n:02}\"\""))), "each is still named\n{}", mail.text);
}

#[test]
fn as_many_items_as_the_configuration_allows_are_all_named() {
    for mail_bytes in [MAIL_BYTES_MIN, 60_000, 100_000, 300_000] {
        let most = (mail_bytes / LISTED_BYTES) as i64;
        let items: Vec<Listed> = (0..most)
            .map(|n| {
                let mut listed = request(n, &format!("user.member{n:04}"));
                listed.data.insert("reason".into(), json!("x".repeat(2_000)));
                listed.data.insert("requester".into(), json!(format!("user.requester{n:04}")));
                listed
            })
            .collect();
        let contents = samples::contents(items, "approvals");
        let renderer = Renderer::new(Settings { mail_bytes, ..settings() }).unwrap();
        let mail = renderer.render(&contents, "approvals").unwrap();
        let bytes = mime::message(&mail, contents.attempt).unwrap().len();
        assert!(bytes < mail_bytes);
        let missing = (0..most).find(|n| !mail.text.contains(&format!("user.member{n:04}")));
        assert_eq!(missing, None, "{mail_bytes} bytes for {most} items");
    }
}

#[test]
fn links_are_http_only_and_their_parts_encoded() {
    for url in
        ["javascript:alert(1)", "ftp://x", "https://", "https://u:p@x", "https://x/?q", "https://x/\"", "https://x y"]
    {
        assert!(Renderer::new(Settings { ui_url: Some(url.into()), ..settings() }).is_err(), "{url}");
    }
    let mut listed = request(1, "user.joe");
    listed.data.insert("domain".into(), json!("a/../b?c\"d"));
    let mail = render(&samples::contents(vec![listed.clone()], "approvals"), "approvals");
    let link = "https://athenz.example.com/workflow/domain?domain=a%2F..%2Fb%3Fc%22d\n";
    assert!(mail.text.contains(link), "{}", mail.text);
    let expiring = Listed { kind: "io.athenz.membership.expiring.v1".into(), ..listed.clone() };
    let mail = render(&samples::contents(vec![expiring], "expiries"), "expiries");
    let link = "https://athenz.example.com/domain/a%2F..%2Fb%3Fc%22d/role/writers/members\n";
    assert!(mail.text.contains(link), "{}", mail.text);
    let plain = Renderer::new(Settings { ui_url: None, ..settings() }).unwrap();
    let mail = plain.render(&samples::contents(vec![listed], "approvals"), "approvals").unwrap();
    assert!(!mail.html.contains("<a ") && !mail.text.contains("http"), "{}", mail.text);
}

#[test]
fn headers_name_the_digest_and_the_thread() {
    let contents = samples::contents(vec![request(1, "user.joe")], "approvals");
    let header = |mail: &Email, name: &str| mail.headers.iter().find(|(n, _)| n == name).unwrap().1.clone();
    let mail = render(&contents, "approvals");
    assert_eq!(header(&mail, "X-Owlpost-Digest"), "5a4d701e-1");
    assert_eq!(header(&mail, "Auto-Submitted"), "auto-generated");
    assert_eq!(header(&mail, "Message-ID"), "<owlpost.5a4d701e-1@example.com>");
    let mut next = contents.clone();
    next.attempt.digest.number = 2;
    let next = render(&next, "approvals");
    assert_ne!(header(&next, "Message-ID"), header(&mail, "Message-ID"));
    assert_eq!(header(&next, "References"), header(&mail, "References"));
    assert_eq!(mail.date, contents.at);
}

#[test]
fn mails_of_optional_routes_say_where_to_stop_them() {
    let stop = |url: &str| {
        let optional = ["changes".to_owned()].into();
        Renderer::new(Settings { unsubscribe: Some(url.into()), optional, ..settings() })
    };
    let header = |mail: &Email, name: &str| mail.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let of = |renderer: &Renderer, route: &str, principal: &str| {
        let mut contents = samples::contents(samples::for_template("changes"), route);
        contents.recipient.principal = principal.into();
        let mail = renderer.render(&contents, "changes").unwrap();
        mime::message(&mail, contents.attempt).unwrap();
        mail
    };
    let https =
        stop("https://access.example.com/stop?who={principal}&route={route}").unwrap_or_else(|p| panic!("{p:?}"));
    let mail = of(&https, "changes", "user.alice");
    let url = "https://access.example.com/stop?who=user.alice&route=changes";
    assert_eq!(header(&mail, "List-Unsubscribe"), Some(format!("<{url}>")));
    assert_eq!(header(&mail, "List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"));
    assert!(mail.text.contains(url) && mail.html.contains("<a class=\"link\" href=\"https://access.example.com/stop?"));
    // A name can neither end the header nor add one.
    let mail = of(&https, "changes", "user.x>,\r\nBcc: <eve@example.com");
    let value = header(&mail, "List-Unsubscribe").unwrap();
    assert!(value.contains("who=user.x%3E%2C%0D%0ABcc%3A%20%3Ceve%40example.com&"), "{value}");
    // A mail address takes no POST.
    let mailto = stop("mailto:access@example.com?subject=stop%20{route}").unwrap_or_else(|p| panic!("{p:?}"));
    let mail = of(&mailto, "changes", "user.alice");
    assert_eq!(
        header(&mail, "List-Unsubscribe").as_deref(),
        Some("<mailto:access@example.com?subject=stop%20changes>")
    );
    assert_eq!(header(&mail, "List-Unsubscribe-Post"), None);
    // Other routes are not to be stopped.
    let mail = of(&https, "approvals", "user.alice");
    assert_eq!((header(&mail, "List-Unsubscribe"), header(&mail, "List-Unsubscribe-Post")), (None, None));
    assert!(!mail.text.contains("access.example.com/stop"));
    for url in [
        "http://x.example.com",
        "javascript:alert(1)",
        "https://",
        "https://u@x.example.com",
        "https://x.example.com/a,b",
        "https://x.example.com/>",
        "https://x.example.com/{who}",
        "https://x.example.com/\r\nBcc: x",
        "mailto:nobody",
        "mailto:a@example.com,b@example.com",
    ] {
        assert!(stop(url).is_err(), "{url}");
    }
}

#[test]
fn what_needs_the_reader_comes_before_what_only_tells() {
    let mut items = samples::for_template("decisions");
    items.extend(samples::for_template("approvals"));
    items.extend(samples::for_template("expiries"));
    let mail = render(&samples::contents(samples::in_order(items), "digest"), "digest");
    let at = |text: &str| mail.text.find(text).unwrap_or_else(|| panic!("{text:?} is not in\n{}", mail.text));
    let places = [
        at("First due Tue 24 Nov, 08:45 CET (in 47 hours)"),
        at("== Needs you =="),
        at("* user.bob: access to sports:role.writers ends on 24 Nov"),
        at("* sports.notifier: access"),
        at("* user.joe asks to join sports:role.writers"),
        at("* Requests to join roles wait"),
        at("== For your information =="),
        at("* Approved by user.alice"),
    ];
    assert!(places.is_sorted(), "{places:?}\n{}", mail.text);
    let only = render(&samples::contents(samples::for_template("approvals"), "approvals"), "approvals");
    assert!(!only.text.contains("Needs you"), "one kind of thing needs no headings");
}

#[test]
fn what_is_overdue_says_so_and_comes_first() {
    let dated = |n: i64, kind: &str, more: Value| {
        let mut data = json!({"domain": "sports", "collection": {"kind": "role", "name": "writers"}, "member": "user.joe",
                              "service": "api", "instance": "i-1", "server": "zts-2", "role": "sports:role.uploaders"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item(n, &format!("io.athenz.{kind}.v1"), data)
    };
    let past = "2026-11-20T10:00:00Z";
    let with = |listed: Listed, deadline: &str| Listed { deadline: Time::parse(deadline), ..listed };
    let items = vec![
        with(dated(1, "membership.expiring", json!({"expires_at": past})), past),
        with(dated(2, "membership.review_due", json!({"review_by": past})), past),
        with(dated(3, "membership.expiring", json!({"expires_at": "2026-11-24T10:00:00Z"})), "2026-11-24T10:00:00Z"),
        request(4, "user.kim"),
        // What had ended before it was reported has no deadline: decoding sees to it.
        dated(5, "certificate.unrefreshed", json!({"expires_at": past})),
        dated(6, "zts.unhealthy", json!({"expires_at": past})),
    ];
    let mail = render(&samples::contents(items.clone(), "digest"), "digest");
    let at = |text: &str| mail.text.find(text).unwrap_or_else(|| panic!("{text:?} is not in\n{}", mail.text));
    let places = [
        at("* user.joe: access to sports:role.writers ended on 20 Nov\n  [Expiry, ended 46 hours ago]\n"),
        at("  Ended: Fri 20 Nov, 11:00 CET (46 hours ago)\n  Still needed? Give it a new end date"),
        at("* user.joe in sports:role.writers needs a review, due since 20 Nov\n  [Review, was due 46 hours ago]\n"),
        at("* sports.api on i-1: certificate not refreshed, ended on 20 Nov\n"),
        at("* ZTS zts-2: no new credentials for sports:role.uploaders, the old ones ended on 20 Nov\n"),
        at("* user.joe: access to sports:role.writers ends on 24 Nov\n  [Expiry, ends in 2 days]\n"),
        at("* user.kim asks to join"),
    ];
    assert!(places.is_sorted(), "{places:?}\n{}", mail.text);
    assert_eq!(mail.html.matches("class=\"card bad\"").count(), 4, "{}", mail.html);
    assert!(mail.subject.ends_with(", first was due 20 Nov"), "{}", mail.subject);
}

#[test]
fn a_zts_that_fails_says_until_when_its_credentials_work() {
    let mail = render(&samples::contents(samples::for_template("health"), "health"), "health");
    assert_eq!(
        mail.subject,
        "ZTS zts-2.example.com: no new credentials for sports:role.uploaders, the old ones end on 22 Nov, 21:00"
    );
    assert!(mail.text.contains("  [Health, credentials end in 12 hours]\n"), "{}", mail.text);
    assert!(mail.text.contains("  Credentials end: Sun 22 Nov, 21:00 CET (in 12 hours)\n"), "{}", mail.text);
    let link = "https://athenz.example.com/domain/sports/role/uploaders/members\n";
    assert!(mail.text.contains(link), "{}", mail.text);
}

#[test]
fn long_names_never_cut_the_date_off_a_subject() {
    let mut listed = samples::for_template("expiries").remove(0);
    listed.data.insert("domain".into(), json!("a-domain.of-many.parts.".repeat(9)));
    listed.data.insert("member".into(), json!("user.of-a-long-name-".repeat(9)));
    let subject = render(&samples::contents(vec![listed], "expiries"), "expiries").subject;
    assert!(subject.ends_with("… ends on 24 Nov") && subject.len() < 200, "{subject}");
}

#[test]
fn who_reads_about_themselves_is_told_so() {
    let mut contents = samples::contents(samples::for_template("decisions"), "decisions");
    contents.recipient.principal = "user.joe".into();
    let mail = render(&contents, "decisions");
    assert!(
        mail.text.contains("Approved by user.alice: you (user.joe) are now in sports:role.readers"),
        "{}",
        mail.text
    );
    assert!(
        mail.text.contains("Rejected by user.lee: you (user.joe) do not join sports:group.coaches"),
        "{}",
        mail.text
    );
}

#[test]
fn the_words_of_a_text_part_fit_a_terminal() {
    for name in NAMES.iter().copied().chain(["handled"]) {
        let template = if name == "handled" { "decisions" } else { name };
        let mail = render(&samples::contents(samples::for_template(template), name), template);
        // A headline grows with its names, and a link is not broken.
        let words = |line: &&str| !line.starts_with("* ") && !line.contains("://");
        for line in mail.text.lines().filter(words) {
            assert!(line.chars().count() <= 78, "{name}: {} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn the_footer_says_why_and_how_to_get_fewer() {
    let renderer = Renderer::new(Settings { reply_to: Some("Access <access-team@example.com>".into()), ..settings() });
    let renderer = renderer.unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut own = samples::for_template("expiries");
    own.retain(|i| i.data["member"] == "user.bob");
    let of = |items: &[Listed], route: &str, principal: &str| {
        let mut contents = samples::contents(items.to_vec(), route);
        contents.recipient.principal = principal.into();
        renderer.render(&contents, "digest").unwrap()
    };
    let mail = of(&own, "expiries", "user.bob");
    assert!(mail.subject.starts_with("Your access to sports:role.writers ends on 24 Nov"), "{}", mail.subject);
    assert!(mail.text.contains("Member: user.bob (you)"), "{}", mail.text);
    assert!(mail.text.contains("because it is about your own access."), "{}", mail.text);
    assert!(mail.html.contains("<a class=\"link\" href=\"mailto:access-team@example.com\""), "{}", mail.html);
    let mail = of(&samples::for_template("approvals"), "approvals", "user.alice");
    assert!(mail.text.contains("because you are one of those who decide here"), "{}", mail.text);
    assert!(mail.text.contains("To get fewer, or other ones, write to access-team@example.com."), "{}", mail.text);
    let mail = of(&samples::for_template("decisions"), "handled", "user.alice");
    assert!(mail.text.contains("because you had been asked about it."), "{}", mail.text);
    assert!(mail.text.contains("name digest 5a4d701e-1 (route \"handled\")."), "{}", mail.text);
}

#[test]
fn an_unknown_zone_of_a_person_falls_back_to_the_default() {
    let mut contents = samples::contents(samples::for_template("expiries"), "expiries");
    contents.recipient.zone = Some("Mars/Base".into());
    assert!(render(&contents, "expiries").text.contains("Times are in UTC."));
}

#[test]
fn preview_shows_every_mail_and_names_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let owlpost =
        |args: &[&str]| std::process::Command::new(env!("CARGO_BIN_EXE_owlpost")).args(args).output().unwrap();
    let out = owlpost(&["preview", "--json", "--out", dir.path().to_str().unwrap()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mails: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    for name in NAMES.iter().chain([&"handled"]) {
        assert!(mails.iter().any(|m| m["name"] == **name), "{name}");
        for ending in ["html", "txt", "eml"] {
            assert!(dir.path().join(format!("{name}.{ending}")).exists(), "{name}.{ending}");
        }
        let html = fs::read_to_string(dir.path().join(format!("{name}.html"))).unwrap();
        assert!(mails.iter().any(|m| m["name"] == **name && m["html"] == html), "{name}");
    }
    let out = owlpost(&["preview", "nowhere"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("approvals, "));
    let events = dir.path().join("events.ndjson");
    fs::write(&events, format!("{}\n{{\"id\": 3}}\n", samples::NDJSON.lines().next().unwrap())).unwrap();
    let out = owlpost(&["preview", "digest", "--events", events.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("events.ndjson line 2: "), "{out:?}");
}

fn any_data() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Value::from),
        Just(json!("2026-11-24T07:00:00Z")),
        Just(json!("9999-12-31T23:59:59Z")),
        Just(json!("0000-01-01T00:00:00Z")),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!({"kind": "role", "name": "w"})),
        Just(json!(["a", 1, {"b": null}])),
    ];
    let key = prop::sample::select(vec![
        "domain",
        "collection",
        "member",
        "requester",
        "reason",
        "expires_at",
        "review_at",
        "change",
        "decision",
        "actor",
        "object",
        "service",
        "instance",
        "server",
        "role",
        "message",
        "recipients",
        "title",
    ]);
    prop::collection::hash_map(key.prop_map(str::to_owned), leaf, 0..8).prop_map(|m| m.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_data_is_there_is_a_mail(data in any_data(), at in any::<i64>(), deadline in any::<Option<i64>>(), which in 0usize..13) {
        thread_local!(static RENDERER: Renderer = renderer());
        let kinds: Vec<String> = {
            let mut kinds: Vec<String> = samples::all().into_iter().map(|i| i.kind).collect();
            kinds.sort();
            kinds.dedup();
            kinds
        };
        let listed = Listed { time: Time(at), deadline: deadline.map(Time), ..item(1, &kinds[which], Value::Object(data)) };
        for route in ["digest", "handled"] {
            let contents = samples::contents(vec![listed.clone(), request(2, "user.kim")], route);
            let mail = RENDERER.with(|r| r.render(&contents, "digest")).unwrap();
            prop_assert!(mail.text.contains("user.kim"));
            prop_assert!(!mail.subject.chars().any(char::is_control) && !mail.subject.is_empty());
            prop_assert!(mime::message(&mail, contents.attempt).unwrap().len() < 100_000);
        }
    }
}

//! What a mail's HTML must be like to survive mail clients, phones and dark mode.

use owlpost::model::Contents;
use owlpost::render::{NAMES, samples};

use super::{HOSTILE, hostile, mime, render, renderer};

/// HTML by name: every template, what is settled, hostile values, and a long mail with short rows.
fn mails() -> Vec<(String, String)> {
    let mut mails: Vec<(String, String)> = NAMES
        .iter()
        .map(|name| ((*name).to_owned(), render(&samples::contents(samples::for_template(name), name), name).html))
        .collect();
    let settled = samples::contents(samples::for_template("decisions"), "handled");
    mails.push(("handled".into(), render(&settled, "decisions").html));
    mails.push(("hostile".into(), render(&samples::contents(hostile(), "digest"), "digest").html));
    mails.push(("long".into(), render(&fifty("digest"), "digest").html));
    mails
}

fn fifty(route: &str) -> Contents {
    let items = samples::in_order((0..50).map(|n| samples::all()[n % 19].clone()).collect());
    let mut number = 0;
    let items = items.into_iter().map(|mut item| {
        number += 1;
        item.event_number = number;
        item.subject_key = Some(format!("k-{number}"));
        item.data.insert("reason".into(), "a long reason ".repeat(40).into());
        item
    });
    Contents { open_total: 212, ..samples::contents(items.collect(), route) }
}

/// The tags of a page, without their brackets; conditional comments for Outlook count as text.
fn tags(html: &str) -> Vec<&str> {
    html.split('<').skip(1).filter(|t| !t.starts_with('!')).filter_map(|t| t.split('>').next()).collect()
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    for (name, html) in mails() {
        for tag in tags(&html) {
            let kind = tag.split([' ', '/']).next().unwrap_or_default();
            let known = [
                "", "html", "head", "meta", "title", "style", "body", "table", "tr", "td", "div", "span", "p", "h1",
                "h2", "h3", "a", "strong", "br",
            ];
            assert!(known.contains(&kind), "{name}: <{tag}>");
            assert!(!tag.contains(" on") || tag.contains("content="), "{name}: <{tag}>");
            assert!(!tag.contains(" src=") && !tag.contains(" background="), "{name}: <{tag}>");
        }
        for outside in ["url(", "@import", "@font-face"] {
            assert!(!html.contains(outside), "{name}: {outside}");
        }
        for link in html.split("href=\"").skip(1) {
            assert!(link.starts_with("https://athenz.example.com"), "{name}: {}", &link[..40]);
        }
        let ours = html.replace(&HOSTILE.replace('<', "&lt;"), "");
        assert!(name == "hostile" || !ours.contains("{{"), "{name}");
    }
}

#[test]
fn looks_are_inlined_and_classes_only_change_them() {
    for (name, html) in mails() {
        assert!(html.contains("<html lang=\"en\" dir=\"ltr\">"), "{name}");
        assert!(html.contains("<meta name=\"color-scheme\" content=\"light dark\">"), "{name}");
        assert!(html.contains("@media (prefers-color-scheme:dark)"), "{name}");
        assert_eq!(html.matches("<h1").count(), 1, "{name}");
        for tag in tags(&html) {
            assert!(!tag.contains("class=") || tag.contains("style=\""), "{name}: <{tag}> is bare without its class");
            assert!(!tag.starts_with("table") || tag.contains("role=\"presentation\""), "{name}: <{tag}>");
        }
        // What a client shows beside the subject is text, and the first of the page.
        let body = html.split_once("<body").unwrap().1;
        assert!(body.find("mso-hide:all").unwrap() < body.find("<table").unwrap(), "{name}");
        // Gmail drops a style block of more than 8 KiB.
        let style = html.split("<style>").nth(1).and_then(|s| s.split("</style>").next()).unwrap();
        assert!(style.len() < 8_192, "{name}: {} bytes of style", style.len());
    }
}

#[test]
fn headings_tell_the_outline() {
    for (name, html) in mails() {
        let levels: Vec<u8> =
            tags(&html).iter().filter(|t| t.starts_with('h')).filter_map(|t| t[1..2].parse().ok()).collect();
        assert_eq!(levels.first(), Some(&1), "{name}");
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{name} skips a level: {levels:?}");
        let sections = html.matches(">Needs you<").count() + html.matches(">For your information<").count();
        let under = if sections > 0 && levels.len() > 1 { 3 } else { 2 };
        let listed = html.matches("class=\"card ").count();
        assert_eq!(levels.iter().filter(|l| **l == under).count(), listed, "{name}: {levels:?}");
    }
}

#[test]
fn a_link_that_stands_alone_is_large_enough_for_a_thumb() {
    for (name, html) in mails() {
        for tag in tags(&html).iter().filter(|t| t.starts_with("a ")) {
            let alone = tag.contains("display:inline-block;padding:");
            // Those in a line of text are small by nature (WCAG 2.2, 2.5.8).
            let in_text = tag.contains("white-space:nowrap") || html.contains(&format!("write to <{tag}>"));
            assert!(alone || in_text, "{name}: <{tag}>");
        }
    }
}

#[test]
fn an_item_has_one_link() {
    for (name, html) in mails() {
        for card in html.split("<table role=\"presentation\" class=\"card ").skip(1) {
            let card = card.split("<table role=\"presentation\" class=\"card").next().unwrap_or_default();
            let card = card.split("class=\"soft\" style=\"padding:8px 4px;").next().unwrap_or_default();
            assert!(card.matches("<a ").count() <= 1, "{name}: {card}");
        }
    }
}

#[test]
fn fifty_of_anything_fit_in_every_template() {
    for name in NAMES {
        let contents = fifty(name);
        let mail = renderer().render(&contents, name).unwrap();
        let bytes = mime::message(&mail, contents.attempt).unwrap().len();
        assert!(bytes < 100_000, "{name}: {bytes} bytes");
        assert!(mail.html.contains("of 212") && mail.text.contains("of 212"), "{name}");
    }
}

/// WCAG 2.2, relative luminance.
fn luminance(colour: &str) -> f64 {
    let hex = colour.trim_start_matches('#');
    let hex = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex.to_owned() };
    let part = |at: usize| {
        let c = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
}

#[test]
fn text_stands_out_in_light_and_in_dark() {
    const LIGHT: [&str; 3] = ["#eef1f5", "#fff", "#f1f4f8"];
    const DARK: [&str; 3] = ["#13161b", "#1d222a", "#272e38"];
    let on = |texts: &[&'static str], grounds: &[&'static str]| -> Vec<(&'static str, &'static str)> {
        texts.iter().flat_map(|t| grounds.iter().map(|g| (*t, *g))).collect()
    };
    let mut pairs = on(&["#1a2130", "#556070", "#0b57d0"], &LIGHT);
    pairs.extend(on(&["#0b4bb3", "#12613c", "#a3221a", "#7a4d00", "#4a5565"], &LIGHT[1..2]));
    pairs.extend(on(&["#e9edf3", "#a9b4c3", "#8fbaff"], &DARK));
    pairs.extend(on(&["#b3bfce", "#7ed7a5", "#ffa69e", "#f2c66d"], &DARK[1..2]));
    pairs.extend([("#fff", "#0b57d0"), ("#0d1b33", "#8fbaff")]);
    for (text, ground) in &pairs {
        let (a, b) = (luminance(text), luminance(ground));
        let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
        assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.1}");
    }
    // And there are no others.
    for (name, html) in mails() {
        for (what, values) in [
            ("color:", pairs.iter().map(|p| p.0).collect::<Vec<_>>()),
            ("background:", pairs.iter().map(|p| p.1).collect()),
        ] {
            for found in html.split(['<', ';', '"', '{', '}']).filter_map(|part| part.strip_prefix(what)) {
                let colour = found.split(['!', ';']).next().unwrap_or_default();
                assert!(!colour.starts_with('#') || values.contains(&colour), "{name}: {what}{colour}");
            }
        }
    }
}

//! One page over a folder of mails: a newcomer's first look. Self-contained, without scripts.

use handlebars::Handlebars;
use serde::Serialize;

use super::text;
use super::when::Zone;
use crate::model::Time;

/// A page lists no more mails than this; it says how many there are.
pub const ROWS_MAX: usize = 1_000;

/// What the page tells.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub title: String,
    /// One sentence under the title; may be empty.
    pub lead: String,
    pub ledger: LedgerCounts,
    /// Inputs that became no item: they stand beside the ledger.
    pub refused_inputs: u64,
    /// What is worth a look.
    pub notes: Vec<Note>,
    pub rows: Vec<Row>,
}

/// A sentence about an event, by its id.
#[derive(Clone, Debug)]
pub struct Note {
    pub name: String,
    pub text: String,
    /// Path from the page to the mail that tells of it, if one does.
    pub mail: Option<String>,
}

/// The ledger (`status --json`): `items` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    pub items: u64,
    pub pending: u64,
    pub in_doubt: u64,
    pub delivered: u64,
    pub withdrawn: u64,
    pub suppressed: u64,
    pub dead: u64,
}

/// A mail that was written.
#[derive(Clone, Debug)]
pub struct Row {
    pub recipient: String,
    pub address: String,
    pub subject: String,
    pub items: u64,
    pub digest: String,
    pub route: String,
    pub sent_at: Time,
    /// Paths from the page to the files, with `/`; `None`: no such file.
    pub html: Option<String>,
    pub eml: Option<String>,
    /// Length of the HTML, by which its frame gets a height.
    pub html_bytes: u64,
}

#[derive(Serialize)]
struct View {
    title: String,
    lead: String,
    counts: Vec<CountView>,
    balance: String,
    notes: Vec<NoteView>,
    mails_title: String,
    people: Vec<PersonView>,
}

#[derive(Serialize)]
struct CountView {
    n: u64,
    name: &'static str,
    tone: &'static str,
    /// A part of the bar: what the sum is made of, if there are any.
    part: bool,
    /// Not a count of items.
    apart: bool,
}

#[derive(Serialize)]
struct NoteView {
    name: String,
    text: String,
    mail: String,
}

#[derive(Serialize)]
struct PersonView {
    recipient: String,
    address: String,
    rows: Vec<RowView>,
}

#[derive(Serialize)]
struct RowView {
    subject: String,
    items: String,
    digest: String,
    route: String,
    sent_at: String,
    html: String,
    eml: String,
    height_px: u64,
}

/// The page as HTML. Rows stand in the order given, those of one person that follow each other under their name; each
/// unfolds its mail. Times are told in UTC.
///
/// # Errors
/// If the built-in template is broken, which a test rules out.
pub fn index_page(index: &Index) -> Result<String, String> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::html_escape);
    let utc = Zone::utc();
    let l = index.ledger;
    let count = |n: u64, name: &'static str, tone: &'static str| CountView {
        n,
        name,
        tone: if n == 0 { "none" } else { tone },
        part: n > 0 && name != "items",
        apart: false,
    };
    let refused = if index.refused_inputs == 1 { "refused input" } else { "refused inputs" };
    let counts = vec![
        count(l.items, "items", ""),
        count(l.delivered, "delivered", "good"),
        count(l.withdrawn, "withdrawn", ""),
        count(l.suppressed, "suppressed", "warn"),
        count(l.dead, "dead", "bad"),
        count(l.pending, "pending", "warn"),
        count(l.in_doubt, "in doubt", "warn"),
        CountView { part: false, apart: true, ..count(index.refused_inputs, refused, "bad") },
    ];
    let sum = l.pending + l.in_doubt + l.delivered + l.withdrawn + l.suppressed + l.dead;
    let all = text::counted(index.rows.len() as u64, "mail", "mails");
    let view = View {
        title: text::prose(&index.title, 200),
        lead: text::prose(&index.lead, 1_000),
        balance: if sum == l.items {
            format!(
                "The ledger balances: every one of {} is in exactly one of these.",
                text::counted(l.items, "item", "items")
            )
        } else {
            format!("The ledger does NOT balance: {} items, but the states add up to {sum}.", l.items)
        },
        counts,
        notes: index
            .notes
            .iter()
            .map(|n| NoteView {
                name: text::name(&n.name, 256),
                text: text::prose(&n.text, 1_000),
                mail: n.mail.as_deref().map(href).unwrap_or_default(),
            })
            .collect(),
        mails_title: if index.rows.len() > ROWS_MAX { format!("{all}, the first {ROWS_MAX}") } else { all },
        people: people(&index.rows, &utc),
    };
    registry.render_template(include_str!("index.html.hbs"), &view).map_err(|e| format!("index page: {e}"))
}

fn people(rows: &[Row], zone: &Zone) -> Vec<PersonView> {
    let mut people: Vec<PersonView> = Vec::new();
    let mut last = None;
    for row in rows.iter().take(ROWS_MAX) {
        if last != Some(&row.recipient) {
            last = Some(&row.recipient);
            people.push(PersonView {
                recipient: text::name(&row.recipient, 256),
                address: text::name(&row.address, 256),
                rows: Vec::new(),
            });
        }
        let Some(person) = people.last_mut() else { continue };
        person.rows.push(RowView {
            subject: text::one_line(&row.subject, 400),
            items: text::counted(row.items, "item", "items"),
            digest: text::name(&row.digest, 80),
            route: text::name(&row.route, 80),
            sent_at: zone.full(row.sent_at),
            html: row.html.as_deref().map(href).unwrap_or_default(),
            eml: row.eml.as_deref().map(href).unwrap_or_default(),
            height_px: frame_px(row.html_bytes),
        });
    }
    people
}

/// About as high as the mail: without scripts nobody can ask it. Measured on the built-in templates; what does not fit is
/// scrolled to.
fn frame_px(html_bytes: u64) -> u64 {
    (html_bytes * 10 / 62).saturating_sub(170).clamp(400, 860)
}

/// A relative path as a link. The `./` keeps a name with a colon from reading as a scheme.
fn href(path: &str) -> String {
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty() && *p != ".").map(text::url_part).collect();
    format!("./{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Index {
        Index {
            title: "A day".into(),
            ledger: LedgerCounts { items: 3, delivered: 2, withdrawn: 1, ..LedgerCounts::default() },
            refused_inputs: 1,
            notes: vec![
                Note { name: "e-1".into(), text: "<b>one</b> duplicate".into(), mail: Some("out/m.html".into()) },
                Note { name: "e-2".into(), text: "none".into(), mail: None },
            ],
            rows: vec![Row {
                recipient: "user.alice".into(),
                address: "alice@example.com".into(),
                items: 2,
                subject: "<script>x</script>".into(),
                digest: "5a4d701e-1".into(),
                route: "approvals".into(),
                sent_at: Time(0),
                html: Some("out/javascript:alert(1).html".into()),
                eml: None,
                html_bytes: 4_000,
            }],
            ..Index::default()
        }
    }

    #[test]
    fn the_page_links_the_mails_and_trusts_no_value() {
        let html = index_page(&page()).unwrap();
        assert!(html.contains("href=\"./out/javascript%3Aalert%281%29.html\""));
        assert!(!html.contains("<script") && !html.contains("<b>one") && html.contains("&lt;b&gt;one"));
        assert!(html.contains("The ledger balances") && html.contains("1 mail<"));
    }

    #[test]
    fn mails_of_one_person_stand_under_one_name() {
        let mut index = page();
        let row = index.rows[0].clone();
        index.rows.push(row.clone());
        index.rows.push(Row { recipient: "user.bob".into(), ..row });
        let html = index_page(&index).unwrap();
        assert_eq!(html.matches("<h3>").count(), 2);
        assert_eq!(html.matches("<details>").count(), 3);
        // A mail is a stranger's text: it runs nothing and leads nowhere from in here.
        assert_eq!(html.matches("<iframe ").count(), html.matches(" sandbox>").count());
    }

    #[test]
    fn a_note_leads_to_its_mail_and_says_what_tells_more() {
        let html = index_page(&page()).unwrap();
        assert!(html.contains("<a href=\"./out/m.html\">e-1</a>") && html.contains("<dt>e-2</dt>"), "{html}");
        assert!(html.contains("owlpost why NAME"));
        assert!(html.contains("<b>1</b><span>refused input</span>"));
    }

    #[test]
    fn a_frame_is_about_as_high_as_its_mail() {
        let heights = [0, 4_000, 6_000, 12_000, u64::MAX / 10].map(frame_px);
        assert!(heights.is_sorted() && (heights[0], heights[4]) == (400, 860), "{heights:?}");
        let html = index_page(&page()).unwrap();
        assert!(html.contains(&format!("style=\"height:{}px\"", heights[1])));
    }

    #[test]
    fn the_page_says_when_the_ledger_does_not_balance() {
        let mut index = page();
        index.ledger.items = 4;
        assert!(index_page(&index).unwrap().contains("does NOT balance"));
    }
}

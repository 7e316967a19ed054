//! The demo's words: on the terminal, and on the page that links the mails.

use std::fmt::Write as _;

use super::books::{Books, Mail};
use super::folder::Folder;
use super::ses::Record;
use crate::cli::Failure;
use crate::cli::output::tell;
use crate::cli::publish::Sum;
use crate::render::index::{Index, LedgerCounts, Note, Row};
use crate::render::text;

const BOLD: anstyle::Style = anstyle::Style::new().bold();
const DIM: anstyle::Style = anstyle::Style::new().dimmed();
const GOOD: anstyle::Style = anstyle::AnsiColor::Green.on_default();
const WARN: anstyle::Style = anstyle::AnsiColor::Yellow.on_default();
const BAD: anstyle::Style = anstyle::AnsiColor::Red.on_default();

/// What fits beside the other columns in a terminal of 100.
const SUBJECT_CHARS: usize = 72;
const BAR_CELLS: u64 = 30;

/// All of them fail only if nothing can be written: whoever closed the pipe does not stop the demo.
pub type Told = Result<(), Failure>;

pub fn begin(folder: &Folder) -> Told {
    let dir = folder.shown.display();
    tell(&format!("{BOLD}owlpost demo{BOLD:#}  A day of access events at the real worker. Everything is in {dir}\n"))
}

pub fn part(name: &str, what: &str) -> Told {
    let head = format!("{:<30}{:>6}{:>10}{:>11}{:>9}", "", "lines", "accepted", "duplicate", "refused");
    tell(&format!("\n{BOLD}{name}{BOLD:#}  {what}\n  {DIM}{head}{DIM:#}\n"))
}

pub fn fed(what: &str, lines: usize, sum: &Sum) -> Told {
    let expired = if sum.dropped > 0 { format!("  {} of them expired", sum.dropped) } else { String::new() };
    // A dot where nothing is: what stands out is what happened.
    let cell = |n: u64| if n == 0 { "·".to_owned() } else { n.to_string() };
    let style = if sum.rejected > 0 { BAD } else { DIM };
    tell(&format!(
        "  {what:<30}{lines:>6}{:>10}{:>11}{style}{:>9}{style:#}{DIM}{expired}{DIM:#}\n",
        cell(sum.accepted),
        cell(sum.duplicates),
        cell(sum.rejected),
    ))
}

pub fn sent(mails: u64, why: &str) -> Told {
    tell(&format!("  {GOOD}→ {mails} mails{GOOD:#}  {DIM}{why}{DIM:#}\n"))
}

pub fn ses(url: &str) -> Told {
    tell(&format!(
        "  {DIM}Mails go through the real SES client to an endpoint of this demo, {url}: 14 a second.{DIM:#}\n"
    ))
}

/// What the receiving side says: it knows what left, whatever owlpost believes.
pub fn ses_record(record: &Record) -> Told {
    let Record { calls, taken, twice } = record;
    tell(&format!(
        "\n{BOLD}The SES endpoint{BOLD:#}  what it says is what happened\n  {calls} calls, {taken} mails taken; one was \
         refused as too fast, and left later\n"
    ))?;
    twice.iter().try_for_each(|digest| {
        tell(&format!(
            "  {WARN}{digest}{WARN:#} came twice: the reply to its first attempt was lost, nobody could know, and its \
             route says resend\n"
        ))
    })
}

/// The ledger, who got what, what is worth a look, and where to go on.
pub fn end(books: &Books, folder: &Folder, program: &str) -> Told {
    tell(&told(books, folder, program))
}

fn told(books: &Books, folder: &Folder, program: &str) -> String {
    let mut out = String::new();
    // Writing into a String never fails.
    let _ = ledger(&mut out, books).and_then(|()| mails(&mut out, books));
    let _ = writeln!(out, "\n{BOLD}Worth a look{BOLD:#}  each has a name that {DIM}owlpost why{DIM:#} explains");
    for (id, note) in notes(books) {
        let _ = writeln!(out, "  {BOLD}{id:<22}{BOLD:#}  {note}");
    }
    let _ = writeln!(out, "\n{BOLD}Next{BOLD:#}");
    let _ = writeln!(out, "  Open {BOLD}{}{BOLD:#} in a browser: it links every mail.", folder.shown("index.html"));
    let (program, config) = (quoted(program), quoted(&folder.shown("owlpost.toml")));
    let commands = [
        ("why kim-writers", "the whole history of one event"),
        ("status --verify", "the ledger, counted again"),
        ("ledger --recipient user.joe", "the proof: what joe was told, and when"),
        ("dead-letters list", "what was refused, with its reason"),
        ("run", "the worker, on http://127.0.0.1:8080 until Ctrl-C"),
    ]
    .map(|(command, what)| (format!("{program} -c {config} {command}"), what));
    let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    for (command, what) in commands {
        let _ = writeln!(out, "  {command:<width$}  {DIM}# {what}{DIM:#}");
    }
    out
}

fn ledger(out: &mut String, books: &Books) -> std::fmt::Result {
    let l = &books.status.ledger;
    writeln!(
        out,
        "\n{BOLD}The ledger{BOLD:#}  an item is one event for one person by one route; each ends in one place"
    )?;
    let most = l.items.max(1);
    for (name, n, style) in [
        ("delivered", l.delivered, GOOD),
        ("withdrawn", l.withdrawn, WARN),
        ("suppressed", l.suppressed, WARN),
        ("dead", l.dead, BAD),
        ("pending", l.pending, DIM),
        ("in doubt", l.in_doubt, DIM),
    ] {
        // What is there shows, however little it is.
        let cells = if n == 0 { 0 } else { (n * BAR_CELLS / most).max(1) };
        let bar = match usize::try_from(cells).unwrap_or_default() {
            0 => String::new(),
            n => format!("  {style}{}{style:#}", "█".repeat(n)),
        };
        let reasons = match books.reasons(name) {
            none if none.is_empty() => none,
            some => format!("  {DIM}{some}{DIM:#}"),
        };
        writeln!(out, "  {name:<11}{n:>5}{bar}{reasons}")?;
    }
    let verdict = match books.verified.differences.as_slice() {
        [] => format!("{GOOD}✓{GOOD:#} the sum, and counted again: no difference"),
        some => format!("{BAD}✗ {}{BAD:#}", some.join("; ")),
    };
    writeln!(out, "  {:<11}{BOLD}{:>5}{BOLD:#}  {verdict}", "items", l.items)?;
    let (n, is) = (books.status.dead_letters, if books.status.dead_letters == 1 { "input is" } else { "inputs are" });
    writeln!(out, "  {DIM}{:<11}{n:>5}  refused {is} kept beside it as dead letters{DIM:#}", "")
}

fn mails(out: &mut String, books: &Books) -> std::fmt::Result {
    writeln!(out, "\n{BOLD}Who got what{BOLD:#}  {} mails", books.mails.len())?;
    let mut last = "";
    for mail in &books.mails {
        if mail.recipient != last {
            last = &mail.recipient;
            writeln!(out, "  {BOLD}{}{BOLD:#} {DIM}<{}>{DIM:#}", text::name(last, 60), text::name(&mail.address, 60))?;
        }
        let items = text::counted(mail.items as u64, "item", "items");
        writeln!(out, "    {:<13}{DIM}{items:>9}{DIM:#}  {}", mail.route, shortened(&mail.subject))?;
    }
    Ok(())
}

fn shortened(subject: &str) -> String {
    if subject.chars().count() <= SUBJECT_CHARS {
        return subject.to_owned();
    }
    subject.chars().take(SUBJECT_CHARS - 1).chain(['…']).collect()
}

/// For a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// What happened, by the id of the event. Each is told only if the ledger says so.
fn notes(books: &Books) -> Vec<(&'static str, &'static str)> {
    let all = [
        (
            books.has("kim-writers", "user.alice", "approvals", "delivered")
                && books.has("kim-writers-decided", "user.alice", "handled", "delivered"),
            ("kim-writers", "asked alice and lee; lee approved, so alice hears that it is handled"),
        ),
        (
            books.has("zoe-editors", "user.bob", "approvals", "withdrawn"),
            ("zoe-editors", "came after its own decision: bob is never asked, zoe is told"),
        ),
        (
            books.has("kim-auditors", "user.alice", "approvals", "withdrawn"),
            ("kim-auditors", "taken back before the mail left: nobody is bothered"),
        ),
        (
            books.has("alice-uploaders", "user.lee", "approvals", "delivered")
                && !books.has("alice-uploaders", "user.alice", "approvals", "delivered"),
            ("alice-uploaders", "alice is an approver, but not of her own request: only lee is asked"),
        ),
        (
            books.has("sync-000", "user.bob", "changes", "delivered"),
            ("sync-000", "200 changes by a sync job became one mail of 40 lines to bob"),
        ),
        (
            books.has("backup-1", "user.bob", "alarms", "withdrawn"),
            ("backup-1", "any CloudEvent may come; backup-2 says the same anew and replaces it"),
        ),
        (
            books.has("guest-viewers", "user.guest", "decisions", "suppressed"),
            ("guest-viewers", "guest is outside the allowed domains: nothing is sent"),
        ),
        (
            books.ledger.iter().any(|r| r.id == "joe-archive" && r.state == "dead"),
            ("joe-archive", "nobody is left in archive:role.admin: dead, and visible to you"),
        ),
        (books.status.dead_letters > 0, ("(a line of no JSON)", "is a dead letter; what came with it was not held up")),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect()
}

/// Which mail shows what a note says: of this event, to this person. What never left has none.
fn shown_by(note: &str) -> Option<(&'static str, &'static str)> {
    Some(match note {
        "kim-writers" => ("kim-writers-decided", "user.alice"),
        "zoe-editors" => ("zoe-editors-decided", "user.zoe"),
        "alice-uploaders" => ("alice-uploaders", "user.lee"),
        "sync-000" => ("sync-000", "user.bob"),
        "backup-1" => ("backup-2", "user.bob"),
        _ => return None,
    })
}

/// The page over the mails.
pub fn index(books: &Books) -> Index {
    let l = &books.status.ledger;
    let page = |mail: &Mail| format!("outbox/{}.html", mail.file);
    let note = |(id, text): (&str, &str)| Note {
        name: id.to_owned(),
        text: text.to_owned(),
        mail: shown_by(id).and_then(|(event, who)| books.mail_of(event, who)).map(page),
    };
    Index {
        title: "A day at the owl post".into(),
        lead:
            "What owlpost made of a day of access events: what a real ZMS handed out, and some written for this demo. \
               An item is one event for one person by one route."
                .into(),
        ledger: LedgerCounts {
            items: l.items,
            pending: l.pending,
            in_doubt: l.in_doubt,
            delivered: l.delivered,
            withdrawn: l.withdrawn,
            suppressed: l.suppressed,
            dead: l.dead,
        },
        refused_inputs: books.status.dead_letters,
        notes: notes(books).into_iter().map(note).collect(),
        rows: books
            .mails
            .iter()
            .map(|mail| Row {
                recipient: mail.recipient.clone(),
                address: mail.address.clone(),
                items: mail.items as u64,
                subject: mail.subject.clone(),
                digest: mail.digest.clone(),
                route: mail.route.clone(),
                sent_at: mail.sent_at,
                html: Some(page(mail)),
                html_bytes: mail.html_bytes,
                eml: Some(format!("outbox/{}.eml", mail.file)),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_copied_into_a_shell() {
        assert_eq!(quoted("./owlpost-demo/owlpost.toml"), "./owlpost-demo/owlpost.toml");
        assert_eq!(quoted("a b/it's"), "'a b/it'\\''s'");
    }

    #[test]
    fn a_long_subject_is_cut_at_a_character() {
        assert_eq!(shortened(&"ü".repeat(73)).chars().count(), SUBJECT_CHARS);
        assert_eq!(shortened("short"), "short");
    }
}

//! A digest becomes a mail: subject, HTML and text. Pure: the same contents give the same bytes, without clock or chance;
//! files are read once, at start.
//!
//! Values come from strangers. [`text`] makes them harmless to read, the HTML registry escapes them, views hold ready
//! strings only, and a budget keeps the mail below [`Settings::mail_bytes`] whatever is in it.

use lettre::message::Mailbox;

use crate::model::{Contents, Email, Listed};

mod budget;
mod data;
mod digest;
mod email;
mod engine;
pub mod index;
mod item;
mod kind;
mod overrides;
pub mod samples;
mod settings;
mod subject;
mod templates;
pub mod text;
pub mod view;
mod when;

use budget::STEPS;
pub use budget::{LISTED_BYTES, MAIL_BYTES_MIN};
pub use settings::{Settings, check_unsubscribe};
use templates::{Fault, Rendered, Templates};
pub use templates::{NAMES, Problem};
use when::Zone;

/// The route that tells people what somebody else settled meanwhile.
const HANDLED: &str = "handled";

/// These items can't be rendered: they fail alone, too, so the others are not held up by them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct RenderError {
    pub event_numbers: Vec<i64>,
    /// Template, line, column, reason; never a value.
    pub detail: String,
}

pub struct Renderer {
    templates: Templates,
    settings: Settings,
    ui_url: Option<String>,
    zone: Zone,
    /// What stands behind the `@` of message ids.
    domain: String,
    /// The address in `reply_to`, and a link to it; or `""`.
    contact: String,
    contact_url: String,
}

impl Renderer {
    /// Checks everything that could go wrong later, with an override folder down to a render of every template with every
    /// sample. All problems at once.
    pub fn new(settings: Settings) -> Result<Renderer, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut domain = "owlpost.invalid".to_owned();
        match settings.from.parse::<Mailbox>() {
            Ok(from) => domain = from.email.domain().to_owned(),
            Err(e) => problems
                .push(Problem::new(format!("mailer.from is no mail address ({e}): write \"Name <user@domain>\""))),
        }
        let (mut contact, mut contact_url) = (String::new(), String::new());
        match settings.reply_to.as_deref().map(str::parse::<Mailbox>) {
            Some(Ok(to)) => {
                contact = to.email.to_string();
                contact_url =
                    format!("mailto:{}@{}", text::url_part(to.email.user()), text::url_part(to.email.domain()));
            }
            Some(Err(e)) => {
                problems.push(Problem::new(format!("mailer.reply_to is no mail address ({e}): write \"user@domain\"")));
            }
            None => {}
        }
        match settings.unsubscribe.as_deref().map(check_unsubscribe) {
            Some(Err(why)) => problems.push(Problem::new(format!(
                "templates.unsubscribe {why}; write e.g. \"mailto:access@example.com?subject=stop%20{{route}}\" or \
                 \"https://access.example.com/stop?who={{principal}}&route={{route}}\""
            ))),
            None if !settings.optional.is_empty() => problems.push(Problem::new(
                "a route is optional, but templates.unsubscribe does not say where its mails can be stopped",
            )),
            _ => {}
        }
        let ui_url = settings.ui_url.as_deref().filter(|u| !u.is_empty());
        if let Some(Err(why)) = ui_url.map(settings::check_ui_url) {
            problems.push(Problem::new(format!("templates.ui_url {why}; write e.g. \"https://athenz.example.com\"")));
        }
        let zone = Zone::known(&settings.zone).unwrap_or_else(|| {
            let name = text::name(&settings.zone, 60);
            problems.push(Problem::new(format!(
                "schedule.zone: no time zone {name:?}; write an IANA name, e.g. \"Europe/Berlin\""
            )));
            Zone::utc()
        });
        if settings.mail_bytes < MAIL_BYTES_MIN {
            let least = MAIL_BYTES_MIN;
            problems.push(Problem::new(format!(
                "limits.mail_bytes is below {least}: 50 items would not fit in short form"
            )));
        }
        let templates = match Templates::load(settings.overrides.as_deref()) {
            Ok(templates) => templates,
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        let ui_url = ui_url.map(|u| u.trim_end_matches('/').to_owned());
        let renderer = Renderer { templates, settings, ui_url, zone, domain, contact, contact_url };
        // The built-in templates have tests; the start need not spend 300 renders on them.
        if renderer.settings.overrides.is_some() {
            problems.extend(renderer.trial());
        }
        if problems.is_empty() { Ok(renderer) } else { Err(problems) }
    }

    /// The templates there are: the built-in ones and the override folder's own.
    pub fn templates(&self) -> &[String] {
        self.templates.names()
    }

    /// # Errors
    /// [`RenderError`] names the items that fail, so that the caller can go on without them.
    pub fn render(&self, contents: &Contents, template: &str) -> Result<Email, RenderError> {
        let fault = match self.fit(contents, template) {
            Ok(rendered) => return Ok(self.email(contents, rendered)),
            Err(fault) => fault,
        };
        let detail = self.templates.problem(&fault).to_string();
        let fails = |items: &[Listed]| self.fit(&with_items(contents, items), template).is_err();
        let items = &contents.items;
        let mut event_numbers: Vec<i64> =
            items.iter().filter(|item| fails(std::slice::from_ref(item))).map(|item| item.event_number).collect();
        if event_numbers.is_empty() {
            // Each is fine alone: blame the one whose coming breaks the mail, so that every attempt gets further.
            let breaks = items.iter().enumerate().find(|(n, _)| fails(&items[..=*n]));
            event_numbers.extend(breaks.map(|(_, item)| item.event_number));
        }
        Err(RenderError { event_numbers, detail })
    }

    /// Renders every template with every sample, and reports what an override asks for that is not there.
    fn trial(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let all = samples::all();
        for template in self.templates.names() {
            let sets = all.iter().map(std::slice::from_ref).chain([all.as_slice()]);
            for items in sets {
                for route in ["trial", HANDLED] {
                    let contents = samples::contents(items.to_vec(), route);
                    match self.fit(&contents, template) {
                        Ok(rendered) if text::one_line(&rendered.subject, 400).is_empty() => {
                            let (template, reason) =
                                (format!("{template}/subject.hbs"), "makes an empty subject".into());
                            problems.push(self.templates.problem(&Fault {
                                template,
                                place: None,
                                reason,
                                of_data: false,
                            }));
                        }
                        Ok(_) => {}
                        // A template for a type of its own may ask for data that no sample has.
                        Err(fault) if fault.of_data => {}
                        Err(fault) => problems.push(self.templates.problem(&fault)),
                    }
                }
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// Takes the first step that fits the budget. The last resort drops rows, never the mail.
    fn fit(&self, contents: &Contents, template: &str) -> Result<Rendered, Fault> {
        // Cleaning it is a good part of the work, and the built-in templates don't look at it.
        let with_data = self.templates.use_data(template);
        for (bounds, in_full) in STEPS {
            let rendered =
                self.templates.render(template, &self.view(contents, bounds, in_full, usize::MAX, with_data))?;
            if budget::fits(&rendered, self.settings.mail_bytes) {
                return Ok(rendered);
            }
        }
        let (tightest, in_full) = STEPS[STEPS.len() - 1];
        let mut rows = contents.items.len();
        // Halving ends at zero rows: at most 6 turns for 50 items.
        loop {
            rows /= 2;
            let rendered = self.templates.render(template, &self.view(contents, tightest, in_full, rows, with_data))?;
            if rows == 0 || budget::fits(&rendered, self.settings.mail_bytes) {
                return Ok(rendered);
            }
        }
    }
}

/// The same mail with other items.
fn with_items(contents: &Contents, items: &[Listed]) -> Contents {
    Contents {
        attempt: contents.attempt,
        route: contents.route.clone(),
        recipient: contents.recipient.clone(),
        items: items.to_vec(),
        open_total: contents.open_total,
        at: contents.at,
        call_at: contents.call_at,
    }
}

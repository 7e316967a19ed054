//! The templates: built in, and overridable file by file. Two registries, since escaping is one function a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use handlebars::{Handlebars, RenderErrorReason, TemplateError, TemplateErrorReason};

use super::engine::{self, Engine};
use super::overrides;
use super::view::{Mail, Seen};

/// The mails that are built in; a folder of another name in the override folder adds one.
pub const NAMES: [&str; 8] =
    ["approvals", "decisions", "expiries", "reviews", "changes", "certificates", "health", "digest"];

/// The three files of a mail.
pub(super) const FILES: [&str; 3] = ["subject.hbs", "body.html.hbs", "body.txt.hbs"];

macro_rules! mail {
    ($name:literal) => {
        [
            (concat!($name, "/subject.hbs"), include_str!(concat!("../../templates/", $name, "/subject.hbs"))),
            (concat!($name, "/body.html.hbs"), include_str!(concat!("../../templates/", $name, "/body.html.hbs"))),
            (concat!($name, "/body.txt.hbs"), include_str!(concat!("../../templates/", $name, "/body.txt.hbs"))),
        ]
    };
}

macro_rules! partial {
    ($file:literal) => {
        (concat!("partials/", $file), include_str!(concat!("../../templates/partials/", $file)))
    };
}

const MAILS: [[(&str, &str); 3]; 8] = [
    mail!("approvals"),
    mail!("decisions"),
    mail!("expiries"),
    mail!("reviews"),
    mail!("changes"),
    mail!("certificates"),
    mail!("health"),
    mail!("digest"),
];

pub(super) const PARTIALS: [(&str, &str); 8] = [
    partial!("head.html.hbs"),
    partial!("head.txt.hbs"),
    partial!("item.html.hbs"),
    partial!("rows.html.hbs"),
    partial!("foot.html.hbs"),
    partial!("item.txt.hbs"),
    partial!("rows.txt.hbs"),
    partial!("foot.txt.hbs"),
];

/// Something wrong with the settings or a template, found at start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, if it is one's fault.
    pub file: Option<PathBuf>,
    /// Line and column from 1, where known.
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    pub fn new(message: impl Into<String>) -> Problem {
        Problem { file: None, line: None, column: None, message: message.into() }
    }

    pub(super) fn at(file: &Path, place: Option<(usize, usize)>, message: impl Into<String>) -> Problem {
        let (line, column) = place.unzip();
        Problem { file: Some(file.to_owned()), line, column, message: message.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " ")?;
        }
        f.write_str(&self.message)
    }
}

pub struct Templates {
    html: Handlebars<'static>,
    /// Text parts and subjects: nothing is escaped.
    text: Handlebars<'static>,
    html_quick: Engine,
    text_quick: Engine,
    names: Vec<String>,
    /// Mails that may look at an item's `data`, as far as their sources tell; `partials` stands for all.
    use_data: BTreeSet<String>,
    /// Where a registered name came from, if not built in.
    files: BTreeMap<String, PathBuf>,
}

/// The three texts of a mail, as templates make them.
pub struct Rendered {
    pub subject: String,
    pub html: String,
    pub text: String,
}

/// Where and why a render failed. Never holds a value of the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub template: String,
    pub place: Option<(usize, usize)>,
    pub reason: String,
    /// It asked for a field of an item's `data`, which samples cannot be expected to have.
    pub of_data: bool,
}

impl Templates {
    /// The built-in templates, and over them what stands in `overrides`. Every problem at once.
    pub fn load(overrides: Option<&Path>) -> Result<Templates, Vec<Problem>> {
        let mut found: BTreeMap<String, (String, Option<PathBuf>)> = BTreeMap::new();
        for (name, source) in MAILS.iter().flatten().chain(&PARTIALS) {
            found.insert((*name).to_owned(), ((*source).to_owned(), None));
        }
        let mut problems = Vec::new();
        if let Some(dir) = overrides {
            overrides::read(dir, &mut found, &mut problems);
        }
        let mut templates = Templates {
            html: registry(handlebars::html_escape),
            text: registry(handlebars::no_escape),
            html_quick: Engine::default(),
            text_quick: Engine::default(),
            names: Vec::new(),
            use_data: BTreeSet::new(),
            files: BTreeMap::new(),
        };
        for (name, (source, file)) in found {
            templates.add(&name, &source, file, &mut problems);
        }
        templates.html_quick = Engine::of(&templates.html);
        templates.text_quick = Engine::of(&templates.text);
        if problems.is_empty() { Ok(templates) } else { Err(problems) }
    }

    fn add(&mut self, name: &str, source: &str, file: Option<PathBuf>, problems: &mut Vec<Problem>) {
        let path = file.clone().unwrap_or_else(|| PathBuf::from(format!("templates/{name} (built in)")));
        let is_html = name.ends_with(".html.hbs");
        if is_html && let Some(place) = unescaped(source) {
            let message =
                "unescaped output ({{{ or {{&) is not allowed in HTML: values come from strangers; write {{ }}";
            problems.push(Problem::at(&path, Some(place), message));
        }
        // Partials are called by their bare name in both registries; `item.html.hbs` and `item.txt.hbs` don't meet.
        let registered = match name.strip_prefix("partials/") {
            Some(partial) => partial.trim_end_matches(".hbs").trim_end_matches(".html").trim_end_matches(".txt"),
            None => name,
        };
        let registry = if is_html { &mut self.html } else { &mut self.text };
        if let Err(error) = registry.register_template_string(registered, source) {
            problems.push(Problem::at(&path, error.pos(), syntax_words(&error)));
        }
        if source.contains("data")
            && let Some((mail, _)) = name.split_once('/')
        {
            self.use_data.insert(mail.to_owned());
        }
        if let Some(mail) = name.strip_suffix("/subject.hbs") {
            self.names.push(mail.to_owned());
        }
        if let Some(file) = file {
            self.files.insert(name.to_owned(), file);
        }
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the mail needs the events' own data.
    pub fn use_data(&self, template: &str) -> bool {
        self.use_data.contains(template) || self.use_data.contains("partials")
    }

    pub fn render(&self, template: &str, mail: &Mail) -> Result<Rendered, Fault> {
        let mut json = None;
        let mut of = |file: &str, quick: &Engine, registry: &Handlebars<'static>, escape| {
            let name = format!("{template}/{file}");
            if let Some(rendered) = quick.render(&name, Seen::Mail(mail), escape) {
                return Ok(rendered);
            }
            // Made once for all three, and only if one needs it.
            let made = match json.take() {
                Some(made) => made,
                None => handlebars::Context::wraps(mail).map_err(|_| Fault {
                    template: template.to_owned(),
                    place: None,
                    reason: "the mail's data can't be handed to a template".into(),
                    of_data: false,
                })?,
            };
            let rendered = registry.render_with_context(&name, &made).map_err(|error| fault(&name, file, &error));
            json = Some(made);
            rendered
        };
        Ok(Rendered {
            subject: of(FILES[0], &self.text_quick, &self.text, engine::plain)?,
            html: of(FILES[1], &self.html_quick, &self.html, engine::html)?,
            text: of(FILES[2], &self.text_quick, &self.text, engine::plain)?,
        })
    }

    /// The fault as a problem of its file.
    pub fn problem(&self, fault: &Fault) -> Problem {
        let file = self.files.get(&fault.template).cloned();
        let file = file.unwrap_or_else(|| PathBuf::from(format!("templates/{} (built in)", fault.template)));
        Problem::at(&file, fault.place, fault.reason.clone())
    }
}

fn registry(escape: fn(&str) -> String) -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(escape);
    registry
}

fn syntax_words(error: &TemplateError) -> String {
    match error.reason() {
        // The parser lists the names of its grammar, which help nobody.
        TemplateErrorReason::InvalidSyntax(_) => {
            "not a valid Handlebars template: something before this place is not closed \
             (an {{#if}} or {{#each}} without its {{/if}} or {{/each}}, a missing }}) or has no meaning here"
                .to_owned()
        }
        other => format!("not a valid Handlebars template: {}", other.to_string().lines().next().unwrap_or_default()),
    }
}

fn fault(mail_file: &str, file: &str, error: &handlebars::RenderError) -> Fault {
    // A partial is registered by its bare name; a person looks for its file.
    let template = match &error.template_name {
        Some(name) if !name.contains('/') => {
            let kind = if file.ends_with(".html.hbs") { "html" } else { "txt" };
            format!("partials/{name}.{kind}.hbs")
        }
        Some(name) => name.clone(),
        None => mail_file.to_owned(),
    };
    let (reason, of_data) = match error.reason() {
        RenderErrorReason::MissingVariable(path) => {
            let path = path.clone().unwrap_or_default();
            let of_data = path.split(['.', '/']).any(|part| part == "data");
            (format!("there is no {path:?} here; templates/README.md lists what there is"), of_data)
        }
        RenderErrorReason::PartialNotFound(name) => (format!("there is no partial {name:?}"), false),
        RenderErrorReason::HelperNotFound(name) => (format!("there is no helper or value {name:?} here"), false),
        RenderErrorReason::TemplateNotFound(_) => ("there is no such template".to_owned(), false),
        // Other reasons can quote values, which a log must not hold.
        _ => ("this expression can't be rendered".to_owned(), false),
    };
    Fault { template, place: error.line_no.zip(error.column_no), reason, of_data }
}

/// Line and column of the first `{{{` or `{{&`.
fn unescaped(source: &str) -> Option<(usize, usize)> {
    source.lines().enumerate().find_map(|(line, text)| {
        let opened = text.match_indices("{{").find(|(at, _)| {
            let rest = text[at + 2..].trim_start_matches('~').trim_start();
            rest.starts_with('{') || rest.starts_with('&')
        })?;
        Some((line + 1, opened.0 + 1))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::render::{Renderer, Settings, samples};

    #[test]
    fn the_quick_way_gives_what_handlebars_gives() {
        let renderer = Renderer::new(Settings { ui_url: Some("https://x.example.com".into()), ..Settings::default() });
        let mut renderer = renderer.unwrap_or_else(|problems| panic!("{problems:?}"));
        let quick = renderer.templates.names().to_vec();
        let mails = |renderer: &Renderer| {
            let mut out = Vec::new();
            for template in &quick {
                for route in ["trial", "handled"] {
                    let all = samples::contents(samples::all(), route);
                    out.push(renderer.render(&all, template));
                    out.extend(
                        samples::all()
                            .into_iter()
                            .map(|one| renderer.render(&samples::contents(vec![one], route), template)),
                    );
                }
            }
            out
        };
        assert!(quick.iter().all(|name| renderer.templates.html_quick.knows(&format!("{name}/body.html.hbs"))));
        assert!(quick.iter().all(|name| renderer.templates.text_quick.knows(&format!("{name}/body.txt.hbs"))));
        let ours = mails(&renderer);
        renderer.templates.html_quick = Engine::default();
        renderer.templates.text_quick = Engine::default();
        assert!(ours == mails(&renderer));
    }

    /// Every name that serde writes, the quick way finds, with the same value.
    fn same(json: &Value, seen: Seen) {
        let texts = |list: &Value| list.as_array().map(Vec::len);
        match (json, seen) {
            (Value::String(text), Seen::Text(same)) => assert_eq!(text, same),
            (Value::Number(n), Seen::Number(same)) => assert_eq!(n.as_u64(), Some(same)),
            (json, Seen::Json(same)) => assert_eq!(json, same),
            (list, Seen::Items(same_list)) => {
                assert_eq!(texts(list), Some(same_list.len()));
                same_list.iter().enumerate().for_each(|(n, item)| same(&list[n], Seen::Item(item)));
            }
            (list, Seen::Facts(same_list)) => {
                assert_eq!(texts(list), Some(same_list.len()));
                same_list.iter().enumerate().for_each(|(n, fact)| same(&list[n], Seen::Fact(fact)));
            }
            (list, Seen::Counts(same_list)) => {
                assert_eq!(texts(list), Some(same_list.len()));
                same_list.iter().enumerate().for_each(|(n, count)| same(&list[n], Seen::Count(count)));
            }
            (Value::Object(map), seen) => {
                for (name, value) in map {
                    same(value, seen.field(name).unwrap_or_else(|| panic!("{name} is missing")));
                }
            }
            (json, _) => panic!("{json} is something else"),
        }
    }

    #[test]
    fn the_quick_way_sees_what_handlebars_sees() {
        let renderer = Renderer::new(Settings::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let (bounds, _) = crate::render::budget::STEPS[0];
        for in_full in [usize::MAX, 3] {
            let mail = renderer.view(&samples::contents(samples::all(), "digest"), bounds, in_full, usize::MAX, true);
            assert_eq!(mail.rows.is_empty(), in_full == usize::MAX);
            same(&serde_json::to_value(&mail).unwrap(), Seen::Mail(&mail));
        }
        let none = Seen::Json(&Value::Null);
        assert!(none.field("x").is_none() && Seen::Text("x").field("x").is_none());
    }
}

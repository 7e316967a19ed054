//! The templates: built in, and overridable file by file. Two registries, since escaping is one function a registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use handlebars::{Handlebars, RenderErrorReason, TemplateError, TemplateErrorReason};

use super::engine::{self, Engine};
use super::view::Mail;

/// The mails that are built in; a folder of another name in the override folder adds one.
pub const NAMES: [&str; 8] =
    ["approvals", "decisions", "expiries", "reviews", "changes", "certificates", "health", "digest"];

/// The three files of a mail.
const FILES: [&str; 3] = ["subject.hbs", "body.html.hbs", "body.txt.hbs"];

/// A template is a page of text; more is a mistake, and the start should not read it all.
const FILE_MAX_BYTES: u64 = 256 * 1024;
/// More entries than this in an override folder: it is the wrong folder.
const ENTRIES_MAX: usize = 200;

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

const PARTIALS: [(&str, &str); 8] = [
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

    fn at(file: &Path, place: Option<(usize, usize)>, message: impl Into<String>) -> Problem {
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
            read_folder(dir, &mut found, &mut problems);
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
        // One conversion for all three: it is a third of a render.
        let context = handlebars::Context::wraps(mail).map_err(|_| Fault {
            template: template.to_owned(),
            place: None,
            reason: "the mail's data can't be handed to a template".into(),
            of_data: false,
        })?;
        let of = |file: &str, quick: &Engine, registry: &Handlebars<'static>, escape| {
            let name = format!("{template}/{file}");
            match quick.render(&name, context.data(), escape) {
                Some(rendered) => Ok(rendered),
                None => registry.render_with_context(&name, &context).map_err(|error| fault(&name, file, &error)),
            }
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

fn read_folder(dir: &Path, found: &mut BTreeMap<String, (String, Option<PathBuf>)>, problems: &mut Vec<Problem>) {
    let known = PARTIALS.map(|(name, _)| name.trim_start_matches("partials/"));
    for folder in entries(dir, problems) {
        let name = file_name(&folder);
        if !folder.is_dir() {
            if name.ends_with(".hbs") {
                let message = "a template stands in a folder named like its mail, e.g. approvals/subject.hbs";
                problems.push(Problem::at(&folder, None, message));
            }
            continue;
        }
        let allowed: &[&str] = if name == "partials" { &known } else { &FILES };
        let mut seen = 0;
        for file in entries(&folder, problems) {
            let file_name = file_name(&file);
            if !file_name.ends_with(".hbs") {
                continue;
            }
            seen += 1;
            // Own partials are welcome, as long as it is clear which registry they are for.
            let own_partial =
                name == "partials" && (file_name.ends_with(".html.hbs") || file_name.ends_with(".txt.hbs"));
            if !allowed.contains(&file_name.as_str()) && !own_partial {
                let message = format!("no such template file; here it is one of {}", allowed.join(", "));
                problems.push(Problem::at(&file, None, message));
                continue;
            }
            match read_file(&file) {
                Ok(source) => {
                    found.insert(format!("{name}/{file_name}"), (source, Some(file)));
                }
                Err(message) => problems.push(Problem::at(&file, None, message)),
            }
        }
        for file in FILES {
            if name != "partials" && seen > 0 && !found.contains_key(&format!("{name}/{file}")) {
                let path = folder.join(file);
                if !path.exists() {
                    problems.push(Problem::at(&path, None, "missing: a mail of your own needs all three files"));
                }
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Sorted, without hidden ones, so that problems come in the same order everywhere.
fn entries(dir: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) => {
            problems.push(Problem::at(dir, None, format!("can't read this template folder: {error}")));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = listing
        .take(ENTRIES_MAX + 1)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !file_name(path).starts_with('.'))
        .collect();
    if paths.len() > ENTRIES_MAX {
        problems.push(Problem::at(dir, None, format!("more than {ENTRIES_MAX} entries: this is no template folder")));
        return Vec::new();
    }
    paths.sort();
    paths
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|e| format!("can't read it: {e}"))?.len();
    if bytes > FILE_MAX_BYTES {
        return Err(format!("{bytes} bytes: a template has at most {FILE_MAX_BYTES}"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("can't read it: {e}"))
}

#[cfg(test)]
mod tests {
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
}

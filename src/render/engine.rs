//! Renders what most templates are made of without handlebars' cost: texts, `{{name}}`, `{{#if}}`, `{{#unless}}`,
//! `{{#each}}` and `{{> partial}}`.
//!
//! handlebars wants its data as JSON, copies what each partial sees and allocates a dozen times for every name: a digest of
//! 20 items took a millisecond. Its parser stays, and so does its renderer: for templates that use more than the above, and for
//! everything that fails, as it knows the place. So this can only be quicker, never different (a test compares them).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{Handlebars, JsonRender, JsonTruthy, Path, PathSeg, Template};

use super::view::Seen;

/// Partials that include each other end here; handlebars says why.
const DEPTH_MAX: usize = 16;

/// handlebars takes these names for helpers even without parameters, whatever the data has.
const HELPERS: [&str; 17] = [
    "if", "unless", "each", "with", "lookup", "raw", "log", "len", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or",
    "not",
];

enum Step {
    Text(String),
    Value(Vec<String>),
    /// The branch for a true value, and the one for a false one.
    If(Vec<String>, Vec<Step>, Vec<Step>),
    Each(Vec<String>, Vec<Step>),
    Partial(String),
}

struct Known {
    steps: Vec<Step>,
    /// What it came to the last time: mails of one template are alike, and hundreds wait for their moment at once.
    last_bytes: AtomicUsize,
}

/// The templates of one registry that can be rendered here.
#[derive(Default)]
pub struct Engine {
    templates: HashMap<String, Known>,
}

impl Engine {
    /// Takes every template of the registry that has nothing beyond what is known here.
    pub fn of(registry: &Handlebars<'_>) -> Engine {
        let known = registry.get_templates().iter();
        let known = known
            .filter_map(|(name, t)| Some((name.clone(), Known { steps: steps(t)?, last_bytes: AtomicUsize::new(0) })));
        Engine { templates: known.collect() }
    }

    #[cfg(test)]
    pub fn knows(&self, name: &str) -> bool {
        self.templates.contains_key(name)
    }

    /// `None`: handlebars must do it, or say what is wrong.
    pub fn render(&self, name: &str, data: Seen, escape: fn(&str, &mut String)) -> Option<String> {
        let known = self.templates.get(name)?;
        let last_bytes = known.last_bytes.load(Ordering::Relaxed);
        let mut out = String::with_capacity(last_bytes + last_bytes / 8);
        self.run(&known.steps, data, escape, 0, &mut out)?;
        known.last_bytes.store(out.len(), Ordering::Relaxed);
        Some(out)
    }

    fn run(
        &self,
        steps: &[Step],
        data: Seen,
        escape: fn(&str, &mut String),
        depth: usize,
        out: &mut String,
    ) -> Option<()> {
        for step in steps {
            match step {
                Step::Text(text) => out.push_str(text),
                Step::Value(path) => match find(data, path)? {
                    Seen::Text(text) => escape(text, out),
                    Seen::Number(n) => escape(&n.to_string(), out),
                    Seen::Json(value) => escape(&value.render(), out),
                    // A list or an object as a text: nothing that a mail shows.
                    _ => return None,
                },
                Step::If(path, then, otherwise) => {
                    let branch = if is_true(find(data, path)?) { then } else { otherwise };
                    self.run(branch, data, escape, depth, out)?;
                }
                Step::Each(path, body) => {
                    let mut each = |item| self.run(body, item, escape, depth, out);
                    match find(data, path)? {
                        Seen::Items(list) => list.iter().try_for_each(|item| each(Seen::Item(item)))?,
                        Seen::Facts(list) => list.iter().try_for_each(|fact| each(Seen::Fact(fact)))?,
                        Seen::Counts(list) => list.iter().try_for_each(|count| each(Seen::Count(count)))?,
                        Seen::Json(list) => list.as_array()?.iter().try_for_each(|value| each(Seen::Json(value)))?,
                        _ => return None,
                    }
                }
                Step::Partial(name) if depth < DEPTH_MAX => {
                    self.run(&self.templates.get(name)?.steps, data, escape, depth + 1, out)?;
                }
                Step::Partial(_) => return None,
            }
        }
        Some(())
    }
}

fn find<'a>(data: Seen<'a>, path: &[String]) -> Option<Seen<'a>> {
    path.iter().try_fold(data, |value, name| value.field(name))
}

/// As `{{#if}}` of handlebars takes it.
fn is_true(value: Seen) -> bool {
    match value {
        Seen::Text(text) => !text.is_empty(),
        Seen::Number(n) => n != 0,
        Seen::Counts(list) => !list.is_empty(),
        Seen::Items(list) => !list.is_empty(),
        Seen::Facts(list) => !list.is_empty(),
        Seen::Json(value) => value.is_truthy(false),
        Seen::Mail(_) | Seen::Recipient(_) | Seen::Count(_) | Seen::Item(_) | Seen::Fact(_) => true,
    }
}

fn steps(template: &Template) -> Option<Vec<Step>> {
    template.elements.iter().map(step).collect()
}

fn step(element: &TemplateElement) -> Option<Step> {
    match element {
        TemplateElement::RawString(text) => Some(Step::Text(text.clone())),
        TemplateElement::Comment(_) => Some(Step::Text(String::new())),
        TemplateElement::Expression(value) if value.params.is_empty() && value.hash.is_empty() => {
            let path = names(&value.name)?;
            let is_helper = matches!(path.as_slice(), [name] if HELPERS.contains(&name.as_str()));
            (!is_helper).then_some(Step::Value(path))
        }
        TemplateElement::HelperBlock(block) => self::block(block),
        // Indented partials indent each of their lines, and parameters change what a partial sees.
        TemplateElement::PartialExpression(call)
            if call.params.is_empty() && call.hash.is_empty() && call.indent.is_none() =>
        {
            Some(Step::Partial(call.name.as_name()?.to_owned()))
        }
        _ => None,
    }
}

fn block(block: &HelperTemplate) -> Option<Step> {
    let [Parameter::Path(_)] = block.params.as_slice() else { return None };
    if !block.hash.is_empty() || block.block_param.is_some() {
        return None;
    }
    let path = names(&block.params[0])?;
    let branch = |t: &Option<Template>| t.as_ref().map_or(Some(Vec::new()), steps);
    let (then, otherwise) = (branch(&block.template)?, branch(&block.inverse)?);
    match block.name.as_name()? {
        "if" => Some(Step::If(path, then, otherwise)),
        "unless" => Some(Step::If(path, otherwise, then)),
        "each" if block.inverse.is_none() => Some(Step::Each(path, then)),
        _ => None,
    }
}

/// `a.b` as its names; nothing that looks elsewhere (`../a`, `@index`, `this`).
fn names(parameter: &Parameter) -> Option<Vec<String>> {
    let named = |segment: &PathSeg| match segment {
        PathSeg::Named(name) => Some(name.clone()),
        _ => None,
    };
    match parameter {
        Parameter::Name(name) => Some(vec![name.clone()]),
        Parameter::Path(Path::Relative((segments, _))) if !segments.is_empty() => segments.iter().map(named).collect(),
        _ => None,
    }
}

/// As `handlebars::html_escape` does it, in runs.
pub fn html(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| matches!(b, b'<' | b'>' | b'"' | b'&' | b'\'' | b'`' | b'=')) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'&' => "&amp;",
            b'\'' => "&#x27;",
            b'`' => "&#x60;",
            _ => "&#x3D;",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

pub fn plain(text: &str, out: &mut String) {
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn both(source: &str, data: &Value) -> (Option<String>, Option<String>) {
        let mut registry = Handlebars::new();
        registry.set_strict_mode(true);
        for (name, source) in
            [("t", source), ("part", "<{{a}}{{#if b}}!{{/if}}>\n"), ("loop", "{{> loop2}}"), ("loop2", "{{a}}")]
        {
            registry.register_template_string(name, source).unwrap();
        }
        (Engine::of(&registry).render("t", Seen::Json(data), html), registry.render("t", data).ok())
    }

    #[test]
    fn what_it_takes_it_renders_as_handlebars_does() {
        let data = json!({"a": "x<y>=`'\"&", "b": "", "n": 3, "t": true, "z": null, "l": [{"a": "1", "b": "y"}, {"a": "2", "b": ""}], "o": {"p": "q"}, "e": []});
        for source in [
            "{{a}} {{n}} {{t}} {{z}} {{o.p}}",
            "{{#if b}}1{{else}}2{{/if}}{{#unless b}}3{{/unless}}{{#if e}}4{{/if}}{{#if n}}5{{/if}}",
            "{{#if b}}1{{else if a}}2{{else}}3{{/if}}",
            "a\n{{#each l}}\n  {{a}}\n{{#if b}}\n  b\n{{/if}}\n{{/each}}\nz",
            "{{> part}}|{{#each l}}{{> part}}{{/each}}\n{{> part}}\n.",
            "{{!-- note --}}{{~a~}} x {{#each e}}never{{/each}}",
        ] {
            let (ours, theirs) = both(source, &data);
            assert!(ours.is_some() && ours == theirs, "{source}: {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn what_it_does_not_take_is_left_to_handlebars() {
        let data = json!({"a": "x", "l": [{"a": "1"}], "len": "9"});
        for source in [
            "{{nothing}}",
            "{{#each l}}{{@index}}{{../a}}{{this.a}}{{/each}}",
            "{{#each l as |x|}}{{x.a}}{{/each}}",
            "{{#if (eq a \"x\")}}1{{/if}}",
            "{{> part a=\"1\"}}",
            "  {{> part}}\n",
            "{{> missing}}",
            "{{len}}",
            "{{{a}}}",
            "{{#each a}}1{{/each}}",
        ] {
            assert_eq!(both(source, &data).0, None, "{source}");
        }
    }

    proptest! {
        #[test]
        fn it_escapes_as_handlebars_does(text in any::<String>()) {
            let mut out = String::new();
            html(&text, &mut out);
            prop_assert_eq!(out, handlebars::html_escape(&text));
        }
    }
}

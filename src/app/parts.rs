//! What the configuration describes, made once: what commands share with the worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use crate::account::Wanted;
use crate::aws::Identity;
use crate::clock::Clock;
use crate::config::{AddressRule, Allowance, Config, DirectoryKind, MailerKind, SesContent, SmtpTls};
use crate::decode::{self, Decoder};
use crate::directory::{ChainDirectory, Directory, FileDirectory, Rule, RulesDirectory};
use crate::ingest::Pipeline;
use crate::mailer::Mailer;
use crate::mailer::discard::DiscardMailer;
use crate::mailer::outbox::OutboxMailer;
use crate::mailer::ses::{self, SesMailer};
use crate::mailer::smtp::{self, SmtpMailer};
use crate::policy::{HANDLED, Policies, RoutePolicy};
use crate::render::{self, Renderer};
use crate::route::{OnInDoubt, RouteConfig, Router};
use crate::schedule::{Backoff, Cadence, Calendar, Problems};
use crate::span::Span;
use crate::store::Rules;

/// The pure and the read-only parts, made from the configuration alone: what commands share with the worker.
pub struct Parts {
    pub router: Arc<Router>,
    pub policies: Arc<Policies>,
    pub directory: Arc<dyn Directory>,
    pub clock: Arc<dyn Clock>,
}

impl Parts {
    /// # Errors
    /// A route, rule, zone or directory file can't be used.
    pub fn new(config: &Config, clock: Arc<dyn Clock>, until_idle: bool) -> Result<Parts, AppError> {
        let router = Router::new(&config.routes, &config.realm).map_err(|faults| {
            let lines = faults.iter().map(|(n, f)| format!("route {n}: {}: {}", f.path.join("."), f.message));
            AppError::Config(lines.collect::<Vec<_>>().join("\n"))
        })?;
        Ok(Parts {
            router: Arc::new(router),
            policies: Arc::new(policies(config, until_idle)?),
            directory: directory(config)?,
            clock,
        })
    }

    /// The front door of a source.
    pub fn pipeline(&self, config: &Config, name: &str, origin: &str) -> Pipeline {
        let limits = decode::Limits {
            event_bytes: config.limits.event_bytes as usize,
            batch_events: config.limits.batch_events as usize,
            recipients_per_event: config.limits.recipients_per_event as usize,
            ..decode::Limits::default()
        };
        Pipeline {
            source: name.to_owned(),
            decoder: Decoder::new(decode::Settings {
                source: name.to_owned(),
                origin: origin.to_owned(),
                realm: config.realm.clone(),
                limits,
            }),
            router: self.router.clone(),
            directory: self.directory.clone(),
            clock: self.clock.clone(),
            retention: config.store.retention.0,
            recipients_max: limits.recipients_per_event,
        }
    }
}

fn policies(config: &Config, until_idle: bool) -> Result<Policies, AppError> {
    let s = &config.schedule;
    let problem = |p: Problems| AppError::Config(format!("schedule: {}", p.0.join("; ")));
    let calendar = Calendar::new(&s.zone, &s.workdays, &s.holidays).map_err(problem)?;
    let d = &config.delivery;
    // `--until-idle` cuts backoff to a second. Its doubts end at once, but not by their grace: that is written with each, and
    // on a shared store a start compares it with others'.
    let second = |span: Duration| if until_idle { span.min(Duration::from_secs(1)) } else { span };
    let backoff = Backoff { first: second(d.backoff_first.0), max: second(d.backoff_max.0) };
    let rules = |route: &RouteConfig| Rules {
        priority: route.priority,
        hold: route.hold,
        max_listed: config.limits.max_listed,
        attempts_max: route.attempts_max.unwrap_or(d.attempts_max),
        give_up_after: route.give_up_after.unwrap_or(d.give_up_after).0,
        resend_in_doubt: route.on_in_doubt == OnInDoubt::Resend,
        doubt_grace: d.doubt_grace.0,
    };
    let handled = RouteConfig {
        template: "decisions".into(),
        cadence: Cadence { first_after: Some(Span(Duration::from_secs(15 * 60))), ..Default::default() },
        ..RouteConfig::named(HANDLED)
    };
    let mut routes = HashMap::new();
    for route in std::iter::once(&handled).chain(&config.routes) {
        let plan = route
            .cadence
            .compile(&calendar)
            .map_err(|p| AppError::Config(format!("route {}: cadence: {}", route.name, p.0.join("; "))))?;
        routes.insert(route.name.clone(), RoutePolicy { rules: rules(route), plan, template: route.template.clone() });
    }
    Policies::new(routes, rules(&RouteConfig::named("")), backoff, &calendar).map_err(problem)
}

fn directory(config: &Config) -> Result<Arc<dyn Directory>, AppError> {
    let mut parts: Vec<Arc<dyn Directory>> = Vec::new();
    for (n, section) in config.directories.iter().enumerate() {
        match section.kind {
            DirectoryKind::Rules => {
                let rule = |r: &AddressRule| Rule { principal: r.principal.clone(), address: r.address.clone() };
                let rules: Vec<Rule> = section.rules.iter().map(rule).collect();
                let made = RulesDirectory::new(&rules)
                    .map_err(|p| AppError::Config(format!("directory {n}: {}", p.join("\n"))))?;
                parts.push(Arc::new(made));
            }
            DirectoryKind::File => {
                let path = section.path.clone().unwrap_or_default();
                let made = FileDirectory::open(path).map_err(|e| AppError::Config(format!("directory {n}: {e}")))?;
                parts.push(Arc::new(made));
            }
            DirectoryKind::Zms => {
                return Err(AppError::Config("directory: kind zms comes with a later version".into()));
            }
        }
    }
    Ok(Arc::new(ChainDirectory::new(parts)))
}

/// What the configuration says about rendering.
fn render_settings(config: &Config) -> render::Settings {
    render::Settings {
        overrides: config.templates.dir.clone(),
        ui_url: config.templates.ui_url.clone(),
        unsubscribe: config.templates.unsubscribe.clone(),
        optional: config.routes.iter().filter(|route| route.optional).map(|route| route.name.clone()).collect(),
        from: config.mailer.from.clone(),
        reply_to: config.mailer.reply_to.clone(),
        zone: config.schedule.zone.clone(),
        mail_bytes: config.limits.mail_bytes as usize,
        ..render::Settings::default()
    }
}

/// The renderer that the configuration describes.
///
/// # Errors
/// A template override or the sender is broken, or a route names a template that is not there: all problems.
pub fn try_renderer(config: &Config) -> Result<Renderer, Vec<render::Problem>> {
    let renderer = Renderer::new(render_settings(config))?;
    let there = renderer.templates();
    let missing = config.routes.iter().filter(|route| !there.contains(&route.template)).map(|route| {
        let (name, wanted, known) = (&route.name, &route.template, there.join(", "));
        render::Problem::new(format!("route {name}: there is no template {wanted:?}; there are {known}"))
    });
    let missing: Vec<render::Problem> = missing.collect();
    if missing.is_empty() { Ok(renderer) } else { Err(missing) }
}

/// As [`try_renderer`], for those who only say what is wrong.
///
/// # Errors
/// All problems, a line each.
pub fn renderer(config: &Config) -> Result<Renderer, AppError> {
    try_renderer(config)
        .map_err(|problems| AppError::Config(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// The account whose quota counts, as the store names it. `None`: the mailer has none.
pub(super) fn account(config: &Config) -> Option<String> {
    let m = &config.mailer;
    let or_default = |part: &Option<String>| part.clone().unwrap_or_else(|| "default".into());
    match m.kind {
        MailerKind::Ses => Some(format!("ses/{}/{}", or_default(&m.region), or_default(&m.assume_role_arn))),
        MailerKind::Smtp => Some(format!("smtp/{}", or_default(&m.host))),
        MailerKind::Outbox | MailerKind::Discard => None,
    }
}

/// What `[quota]` says.
pub(super) fn wanted(config: &Config) -> Wanted {
    let quota = &config.quota;
    let number = |allowance| match allowance {
        Allowance::Account => None,
        Allowance::Mails(n) => Some(n),
    };
    Wanted {
        per_second: number(quota.per_second),
        per_day: number(quota.per_day).map(|n| n as u64),
        burst: quota.burst,
        urgent_reserve: quota.urgent_reserve,
    }
}

/// # Errors
/// What the configuration names for the mailer (a certificate file, a host) can't be used.
pub async fn mailer(config: &Config) -> Result<Arc<dyn Mailer>, AppError> {
    Ok(match config.mailer.kind {
        MailerKind::Outbox => Arc::new(OutboxMailer::new(&config.mailer.dir)),
        MailerKind::Discard => Arc::new(DiscardMailer::new()),
        MailerKind::Ses => Arc::new(SesMailer::connect(ses(config)).await),
        MailerKind::Smtp => Arc::new(SmtpMailer::new(smtp(config)).map_err(AppError::Config)?),
    })
}

/// What would keep the worker from starting with this configuration, as only its parts can tell.
pub fn unusable(config: &Config, clock: Arc<dyn Clock>) -> Option<String> {
    let parts = Parts::new(config, clock, false).map(drop);
    let mailer = || match config.mailer.kind {
        MailerKind::Smtp => SmtpMailer::new(smtp(config)).map(drop).map_err(AppError::Config),
        _ => Ok(()),
    };
    parts.and_then(|()| mailer()).err().map(|e| e.to_string())
}

fn ses(config: &Config) -> ses::Settings {
    let (m, d) = (&config.mailer, &config.delivery);
    ses::Settings {
        identity: Identity {
            region: m.region.clone(),
            assume_role_arn: m.assume_role_arn.clone(),
            external_id: m.external_id.clone(),
        },
        endpoint_url: m.endpoint_url.clone(),
        identity_arn: m.identity_arn.clone(),
        configuration_set: m.configuration_set.clone(),
        raw: m.content == SesContent::Raw,
        from: m.from.clone(),
        call_timeout: d.call_timeout.0,
    }
}

fn smtp(config: &Config) -> smtp::Settings {
    let (m, d) = (&config.mailer, &config.delivery);
    smtp::Settings {
        host: m.host.clone().unwrap_or_default(),
        port: m.port,
        tls: match m.tls {
            SmtpTls::Starttls => smtp::Tls::Starttls,
            SmtpTls::Implicit => smtp::Tls::Implicit,
            SmtpTls::None => smtp::Tls::None,
        },
        ca_file: m.ca_file.clone(),
        login: m.username.clone().zip(m.password.as_ref().map(|p| p.0.clone())),
        call_timeout: d.call_timeout.0,
        connections: d.in_flight as usize,
    }
}

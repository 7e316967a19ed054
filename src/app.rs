//! Puts the parts together: the only place that builds adapters, spawns tasks and orders the stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::account::AccountWatch;
use crate::clock::SystemClock;
use crate::config::{Config, SourceKind};
use crate::deliver::{AccountGate, Deliver, Patience};
use crate::forward::Forward;
use crate::http::{self, Listener};
use crate::ingest::Bounds;
use crate::mailer::Mailer;
use crate::metrics;
use crate::outlet::Outlet;
use crate::phase::Phase;
use crate::policy::Policies;
use crate::render::Renderer;
use crate::store::postgres::MIGRATION_WAIT;
use crate::store::{Gauges, Opening, Store};
use crate::upkeep::{Rhythm, Upkeep};
use crate::vitals::Vitals;

mod error;
mod intake;
pub mod moving;
mod outlets;
mod parts;
pub mod shadow;
mod sources;
mod stores;

pub use error::AppError;
use intake::Tap;
pub use parts::{Parts, mailer, renderer, try_renderer, unusable};
pub use sources::kafka as kafka_settings;
pub use sources::sqs_options;
use stores::Opened;

/// Which half of the worker this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Intake,
    Deliver,
    #[default]
    All,
}

/// A worker that runs in this process.
pub struct Worker {
    /// Intake, delivery, and what serves both: ended in this order.
    groups: [JoinSet<Ended>; 3],
    store: Arc<dyn Store>,
    store_id: u32,
    parts: Parts,
    phase: watch::Sender<Phase>,
    /// One for each group.
    stops: [CancellationToken; 3],
    vitals: Vitals,
    /// Lets the forwarding of dead letters come to its end. `None`: there is none.
    forwarding: Option<CancellationToken>,
    sources: usize,
    drain: Duration,
    address: Option<SocketAddr>,
    until_idle: bool,
}

type Ended = (&'static str, Result<(), AppError>);

/// Workers that share a store share what is due without a word: what one of them left is another's a moment later.
const SHARED: Duration = Duration::from_millis(250);

/// What a group may take beyond the drain time of its loops before it is left behind.
const GRACE: Duration = Duration::from_secs(5);

/// How long a stop may take at most, for those who end a worker from outside: a pod's grace period has to be longer.
#[must_use]
pub const fn longest_stop(drain: Duration) -> Duration {
    let group = drain.as_secs() + GRACE.as_secs();
    Duration::from_secs(3 * group)
}

/// What comes before the listener answers, without a migration: connections to the store, the account and the sources, each
/// with a deadline of its own.
const CONNECTING: Duration = Duration::from_secs(120);

/// How long a start may take at most until `/livez` answers, for those who end what does not start: a pod's startup probe has
/// to wait longer, or a migration would be broken off and begun again for ever.
#[must_use]
pub const fn longest_start(migrates: bool) -> Duration {
    let migration = if migrates { MIGRATION_WAIT.as_secs() } else { 0 };
    Duration::from_secs(CONNECTING.as_secs() + migration)
}

const INTAKE: &str = "intake";
const DELIVERY: &str = "delivery";
const UPKEEP: &str = "upkeep";
const FORWARDING: &str = "forwarding";
const ACCOUNT: &str = "account";
const LISTENER: &str = "listener";
const GAUGES: &str = "metrics";

impl Worker {
    /// Opens everything and starts the loops. When it returns, events are taken.
    ///
    /// # Errors
    /// Anything that the configuration asks for can't be opened.
    pub async fn start(config: &Config, role: Role, until_idle: bool) -> Result<Worker, AppError> {
        let mailer = parts::mailer(config).await?;
        Worker::start_with(config, role, until_idle, mailer).await
    }

    /// The same with another mailer than the configured one, whose account and quota count all the same.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub async fn start_with(
        config: &Config,
        role: Role,
        until_idle: bool,
        mailer: Arc<dyn Mailer>,
    ) -> Result<Worker, AppError> {
        let recorder = metrics::install();
        // Those that run here: another role's are another process's.
        let sources = if role == Role::Deliver { &[][..] } else { &config.sources };
        let names: Vec<&str> = sources.iter().map(|s| s.name.as_str()).collect();
        metrics::touch(&names, mailer.kind());
        let parts = Parts::new(config, Arc::new(SystemClock::new()), until_idle)?;
        let renderer = Arc::new(renderer(config)?);
        // What leaves is delivery's: the two halves of one deployment would send each letter twice.
        let outlet = if role == Role::Intake { None } else { outlets::dead_letters(&config.dead_letters)? };
        let Opened { store, id: store_id } = parts.open_store(config, Opening::Worker).await?;
        let vitals = Vitals::new();
        vitals.set_store("start", Ok(()));
        let (phase, phases) = watch::channel(if until_idle { Phase::Holding } else { Phase::Normal });
        let mut worker = Worker {
            groups: std::array::from_fn(|_| JoinSet::new()),
            store,
            store_id,
            parts,
            phase,
            stops: std::array::from_fn(|_| CancellationToken::new()),
            vitals,
            forwarding: None,
            sources: 0,
            drain: config.delivery.drain.0,
            address: None,
            until_idle,
        };
        // Before anything is taken or claimed: a worker that can't answer must not begin.
        let listener = Listener::bind(&config.http.listen).await.map_err(|e| AppError::Failed(e.to_string()))?;
        worker.address = Some(listener.address());
        let wake = Arc::new(Notify::new());
        let mut events = axum::Router::new();
        if role != Role::Deliver {
            events = worker.start_sources(config, &wake).await?;
        }
        if role != Role::Intake {
            worker.start_delivery(config, mailer, renderer, &wake, phases.clone());
        }
        worker.start_upkeep(&wake, phases);
        if let Some(outlet) = outlet {
            worker.start_forwarding(config, outlet);
        }
        let (app, stop) = (http::router(worker.vitals.clone(), recorder.clone(), events), worker.stops[2].clone());
        let drain = worker.drain;
        worker.groups[2].spawn(async move {
            listener.serve(app, stop, drain.min(Duration::from_secs(5))).await;
            (LISTENER, Ok(()))
        });
        let stop = worker.stops[2].clone();
        worker.groups[2].spawn(async move {
            while tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await.is_err() {
                recorder.upkeep();
            }
            (GAUGES, Ok(()))
        });
        Ok(worker)
    }

    async fn start_sources(&mut self, config: &Config, wake: &Arc<Notify>) -> Result<axum::Router, AppError> {
        let mut events = axum::Router::new();
        let shared = Arc::new(config.clone());
        for section in &config.sources {
            let opened = sources::open(config, section, &mut events, self.until_idle).await;
            // With one source, whoever starts the worker is to see what is wrong; with several, the others are to work.
            let later = !self.until_idle && intake::may_come_later(section, config.sources.len());
            let opened = match opened {
                Err(why) if !later => return Err(why),
                opened => opened,
            };
            let messages = self.store.batch_messages().min(config.limits.batch_events as usize);
            let tap = Tap {
                config: shared.clone(),
                section: section.clone(),
                pipeline: Arc::new(self.parts.pipeline(config, &section.name, section.origin())),
                store: self.store.clone(),
                bounds: Bounds { messages, drain: self.drain, ..Bounds::default() },
                vitals: self.vitals.clone(),
                wake: wake.clone(),
                until_idle: self.until_idle,
            };
            let stop = self.stops[0].clone();
            self.sources += 1;
            self.groups[0].spawn(async move { (INTAKE, tap.run(opened, stop).await) });
        }
        Ok(events)
    }

    fn start_delivery(
        &mut self,
        config: &Config,
        mailer: Arc<dyn Mailer>,
        renderer: Arc<Renderer>,
        wake: &Arc<Notify>,
        phases: watch::Receiver<Phase>,
    ) {
        let d = &config.delivery;
        let store: Arc<dyn Store> = self.store.clone();
        let account = parts::account(config).map(|_| AccountGate {
            pace: Arc::default(),
            ask: Arc::default(),
            heard: Arc::default(),
        });
        if let Some(gate) = &account {
            let watch = AccountWatch {
                store: store.clone(),
                mailer: mailer.clone(),
                clock: self.parts.clock.clone(),
                pace: gate.pace.clone(),
                heard: gate.heard.clone(),
                wanted: parts::wanted(config),
            };
            let (vitals, w, ask, stop) = (self.vitals.clone(), wake.clone(), gate.ask.clone(), self.stops[2].clone());
            self.groups[2]
                .spawn(async move { (ACCOUNT, watch.run(vitals, w, ask, stop).await.map_err(AppError::from)) });
        }
        let deliver = Arc::new(Deliver {
            store,
            mailer,
            quota: account,
            directory: self.parts.directory.clone(),
            renderer,
            policies: self.parts.policies.clone(),
            clock: self.parts.clock.clone(),
            allowed_domains: config.recipients.allowed_domains.iter().map(|d| d.to_ascii_lowercase()).collect(),
            patience: Patience {
                in_flight: d.in_flight as usize,
                lease: d.lease.0,
                send_within: d.send_within.0,
                call_timeout: d.call_timeout.0,
                drain: d.drain.0,
                look_every: Duration::from_secs(1),
                look_again: if config.store.is_postgres() { SHARED } else { Duration::from_secs(1) },
                directory_age: Duration::from_secs(10),
                throttle_max: Duration::from_secs(if self.until_idle { 1 } else { 3_600 }),
            },
        });
        let (vitals, w, stop) = (self.vitals.clone(), wake.clone(), self.stops[1].clone());
        self.groups[1]
            .spawn(async move { (DELIVERY, deliver.run(vitals, w, phases, stop).await.map_err(AppError::from)) });
    }

    /// In every role: the gauges are the store's, whoever shows them, and leases end also where nothing is sent.
    fn start_upkeep(&mut self, wake: &Arc<Notify>, phases: watch::Receiver<Phase>) {
        let upkeep = Upkeep { store: self.store.clone(), clock: self.parts.clock.clone(), rhythm: Rhythm::default() };
        let (vitals, w, stop) = (self.vitals.clone(), wake.clone(), self.stops[2].clone());
        self.groups[2]
            .spawn(async move { (UPKEEP, upkeep.run(vitals, w, phases, stop).await.map_err(AppError::from)) });
    }

    fn start_forwarding(&mut self, config: &Config, outlet: Arc<dyn Outlet>) {
        let kafka = config.sources.iter().filter(|s| s.kind == SourceKind::Kafka).map(|s| s.name.clone()).collect();
        let forward = Forward { store: self.store.clone(), outlet, clock: self.parts.clock.clone(), kafka };
        let (vitals, finish, stop) = (self.vitals.clone(), CancellationToken::new(), self.stops[2].clone());
        self.forwarding = Some(finish.clone());
        self.groups[2]
            .spawn(async move { (FORWARDING, forward.run(vitals, finish, stop).await.map_err(AppError::from)) });
    }

    /// Once nothing is left to send, no item can die any more.
    async fn finish_forwarding(&mut self, stop: &CancellationToken) -> Option<AppError> {
        self.forwarding.take()?.cancel();
        let task = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            Some(task) = self.groups[2].join_next() => task,
        };
        match task {
            Ok((FORWARDING, Ok(()))) => None,
            Ok((loop_, Ok(()))) => Some(AppError::Failed(format!("the {loop_} loop ended"))),
            Ok((_, Err(why))) => Some(why),
            Err(broken) => Some(AppError::Failed(format!("a loop broke off: {broken}"))),
        }
    }

    /// Where the listener answers.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The first half of its digest ids.
    pub fn store_id(&self) -> u32 {
        self.store_id
    }

    pub fn policies(&self) -> Arc<Policies> {
        self.parts.policies.clone()
    }

    /// From now on everything is due; the worker ends when nothing is left that could leave.
    pub fn flush(&self) {
        self.phase.send_replace(Phase::Flushing);
    }

    /// Runs until `stop`, or (`until_idle`) until nothing is left, then ends everything in order: intake, sends, upkeep,
    /// listener. Gives what is left.
    ///
    /// # Errors
    /// A loop ended that should not have: why.
    pub async fn run(mut self, stop: CancellationToken) -> Result<Gauges, AppError> {
        let mut ended = None;
        let mut sources = self.sources;
        if self.until_idle && sources == 0 {
            self.flush();
        }
        let [intake, delivery, service] = &mut self.groups;
        let has_work = !self.until_idle || sources > 0 || !delivery.is_empty();
        while ended.is_none() && has_work {
            let task = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(task) = intake.join_next() => task,
                Some(task) = delivery.join_next() => task,
                Some(task) = service.join_next() => task,
            };
            match task {
                Ok((INTAKE, Ok(()))) => {
                    sources -= 1;
                    if self.until_idle && sources == 0 {
                        self.phase.send_replace(Phase::Flushing);
                        if delivery.is_empty() {
                            // Intake alone: another process sends.
                            break;
                        }
                    }
                }
                Ok((DELIVERY, Ok(()))) if *self.phase.borrow() == Phase::Flushing => break,
                Ok((loop_, Ok(()))) => ended = Some(AppError::Failed(format!("the {loop_} loop ended"))),
                Ok((_, Err(why))) => ended = Some(why),
                Err(broken) => ended = Some(AppError::Failed(format!("a loop broke off: {broken}"))),
            }
        }
        if self.until_idle && ended.is_none() && !stop.is_cancelled() {
            ended = self.finish_forwarding(&stop).await;
        }
        self.vitals.set_stopping();
        let over_by = Instant::now() + longest_stop(self.drain);
        // Each group has its drain time and a little to spare; what hangs is left behind, and the store knows the rest.
        for (group, stop) in self.groups.iter_mut().zip(&self.stops) {
            stop.cancel();
            let by = Instant::now() + self.drain + GRACE;
            while let Ok(Some(task)) = tokio::time::timeout_at(by, group.join_next()).await {
                match task {
                    Ok((_, Err(why))) if ended.is_none() => ended = Some(why),
                    Err(broken) if ended.is_none() => {
                        ended = Some(AppError::Failed(format!("a loop broke off: {broken}")));
                    }
                    _ => {}
                }
            }
            group.abort_all();
        }
        if let Some(why) = ended {
            return Err(why);
        }
        let by = over_by.min(Instant::now() + GRACE);
        match tokio::time::timeout_at(by, self.store.gauges(self.parts.clock.now())).await {
            Ok(gauges) => Ok(gauges?),
            Err(_) => Err(AppError::Failed("all has ended; the store gave no answer to what is left".into())),
        }
    }
}

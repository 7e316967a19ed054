//! The lives of one seed: the real loops run, are dropped in the middle of anything, and start again on the same file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use owlpost::account::{AccountWatch, Wanted};
use owlpost::app::Parts;
use owlpost::clock::{Clock, VirtualClock};
use owlpost::config::{self, Config};
use owlpost::deliver::{AccountGate, Deliver, Patience};
use owlpost::ingest::{self, Bounds, IngestError};
use owlpost::model::{DigestState, Time};
use owlpost::phase::Phase;
use owlpost::source::Source;
use owlpost::store::sqlite::{Opening, Sqlite};
use owlpost::store::{Command, Desk, Intake, Store, Upkeep as _};
use owlpost::upkeep::{Rhythm, Upkeep};
use owlpost::vitals::Vitals;
use rusqlite::Connection;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::consumer::Consumer;
use crate::events::PEOPLE;
use crate::faults::{FaultyStore, SimDirectory, SimMailer, tell};
use crate::oracle::{ATTEMPTS_MAX, MAX_LISTED, Oracle};
use crate::ours;
use crate::world::{self, Shared, World, lock};

/// Runs a seed to its end; panics where a promise breaks. Gives the trace.
pub fn run(seed: u64, verbose: bool) -> Vec<String> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let world = world::new(seed, verbose);
    let path = folder.path().join("owlpost.db");
    name_the_store(&path, seed);
    let kind = {
        let world = lock(&world);
        format!(
            "{}, read {}",
            world.broker.kind(),
            if world.by_our_sources { "by our source" } else { "by the contract" }
        )
    };
    lock(&world).note(kind);
    let lives = lock(&world).dice("lives").below(4);
    for _ in 0..lives {
        live(&world, &path, false);
    }
    lock(&world).last_life();
    live(&world, &path, true);
    let mut oracle = Oracle::new(world.clone(), &path);
    oracle.check("end");
    oracle.everything_came_to_an_end();
    let world = lock(&world);
    world.trace.clone()
}

/// A store's id is random, and backoff depends on digest ids: a replay needs the same.
fn name_the_store(path: &Path, seed: u64) {
    let config = configuration(path);
    let clock = Arc::new(owlpost::clock::SystemClock::new());
    drop(Parts::new(&config, clock, false).unwrap().open_sqlite(&config, Opening::Worker).unwrap());
    Connection::open(path).unwrap().execute("UPDATE meta SET store_id = ?1", [seed as u32]).unwrap();
}

fn configuration(path: &Path) -> Config {
    let file = path.with_extension("toml");
    let text = format!(
        r#"
        [mailer]
        kind = "ses"
        [limits]
        max_listed = {MAX_LISTED}
        [delivery]
        attempts_max = {ATTEMPTS_MAX}
        doubt_grace = "5m"
        [recipients]
        allowed_domains = ["example.com"]
        [store]
        url = "sqlite:{}"
        [[source]]
        name = "zms"
        kind = "file"
        path = "-"
        [[route]]
        name = "approvals"
        types = ["io.athenz.membership.requested.v1"]
        template = "approvals"
        priority = "urgent"
        cadence = {{ first_after = "2m", at_most_every = "10m" }}
        [[route]]
        name = "audit"
        types = ["io.athenz.membership.requested.v1"]
        template = "digest"
        hold = true
        [[route]]
        name = "decisions"
        types = ["io.athenz.membership.decided.v1"]
        template = "decisions"
        audience = ["{{{{data.member}}}}"]
        [[route]]
        name = "expiries"
        types = ["io.athenz.membership.expiring.v1", "io.athenz.membership.review_due.v1"]
        template = "expiries"
        on_in_doubt = "bury"
        cadence = {{ quiet_for = "5m", at_latest = "20m" }}
        [[route]]
        name = "changes"
        types = ["io.athenz.domain.changed.v1"]
        template = "changes"
        priority = "bulk"
        cadence = {{ first_after = "10m" }}
        "#,
        path.display()
    );
    std::fs::write(&file, text).unwrap();
    config::load(&[file], std::iter::empty()).unwrap_or_else(|p| panic!("{p:?}"))
}

/// The store's clock, which somebody sets forward or back at any moment; what waits on the runtime does not notice.
struct SteppingClock {
    right: VirtualClock,
    off_us: Arc<AtomicI64>,
}

impl Clock for SteppingClock {
    fn now(&self) -> Time {
        Time(self.right.now().0 + self.off_us.load(Ordering::Relaxed))
    }
}

/// One life of the worker. The last one has no faults and runs until nothing is left; the others end anywhere.
fn live(world: &Shared, path: &Path, last: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let length = {
        let mut world = lock(world);
        let longest_s = if world.dice("lives").chance(40) { 60 } else { 3_600 };
        Duration::from_secs(5 + world.dice("lives").below(longest_s))
    };
    runtime.block_on(async {
        // What the sources leave to chance, their waits, is the seed's.
        fastrand::seed(lock(world).dice("chance").next());
        lock(world).start_life();
        lock(world).note(if last { "last life" } else { "life" });
        let start = World::start_time().plus(lock(world).lived);
        let off_us = lock(world).off_us.clone();
        let clock: Arc<dyn Clock> = Arc::new(SteppingClock { right: VirtualClock::starting_at(start), off_us });
        let worker = work(world, path, clock, last);
        if last {
            let bound = Duration::from_secs(14 * 86_400);
            tokio::time::timeout(bound, worker).await.expect("everything comes to an end");
        } else {
            let _ = tokio::time::timeout(length, worker).await;
            lock(world).note("crash");
        }
        lock(world).end_life();
    });
    // Everything that was under way is dropped where it stands; a transaction that was running ends on its own.
    drop(runtime);
}

async fn work(world: &Shared, path: &Path, clock: Arc<dyn Clock>, last: bool) {
    let config = configuration(path);
    let parts = Parts::new(&config, clock.clone(), last).unwrap_or_else(|e| panic!("{e}"));
    let directory = Arc::new(SimDirectory { world: world.clone() });
    let parts = Parts { directory: directory.clone(), ..parts };
    let inner: Arc<Sqlite> = Arc::new(parts.open_sqlite(&config, Opening::Worker).unwrap_or_else(|e| panic!("{e}")));
    let mut oracle = Oracle::new(world.clone(), path);
    oracle.check("open");
    let side_by_side = lock(world).dice("side by side").chance(50);
    let oracle = tokio::sync::Mutex::new(oracle);
    let store = Arc::new(FaultyStore { inner, world: world.clone(), oracle, side_by_side });
    let (vitals, wake, stop) = (Vitals::new(), Arc::new(Notify::new()), CancellationToken::new());
    let (phase, phases) = watch::channel(Phase::Normal);
    // Small batches, so that several are under way, and some are refused in the middle.
    let room = 1 + lock(world).dice("room").below(12) as usize;
    let mut intakes = tokio::task::JoinSet::new();
    let (enough, by_our_sources) = (CancellationToken::new(), lock(world).by_our_sources);
    for me in 0..join_the_group(world) {
        let source: Box<dyn Source> = match by_our_sources {
            true => Box::new(ours::open(world, me)),
            false => Box::new(Consumer::new(world.clone(), me, last)),
        };
        intakes.spawn(ingest::run(
            source,
            Arc::new(parts.pipeline(&config, "zms", "zms/a")),
            store.clone() as Arc<dyn Intake>,
            Bounds { messages: room, ..Bounds::default() },
            vitals.clone(),
            wake.clone(),
            enough.clone(),
        ));
    }
    if last && by_our_sources {
        intakes.spawn(nothing_is_left(world.clone(), enough));
    }
    let intake = async {
        while let Some(ended) = intakes.join_next().await {
            match ended {
                Ok(ended) => ended.unwrap_or_else(|e| panic!("{e}")),
                Err(broken) => std::panic::resume_unwind(broken.into_panic()),
            }
        }
    };
    let all: Arc<dyn Store> = store.clone();
    let mailer = Arc::new(SimMailer { world: world.clone() });
    let gate = AccountGate { pace: Arc::default(), ask: Arc::default(), heard: Arc::default() };
    let watch_account = AccountWatch {
        store: all.clone(),
        mailer: mailer.clone(),
        clock: clock.clone(),
        pace: gate.pace.clone(),
        heard: gate.heard.clone(),
        wanted: Wanted { per_second: None, per_day: None, burst: 1, urgent_reserve: 0.1 },
    };
    let account = watch_account.run(vitals.clone(), wake.clone(), gate.ask.clone(), stop.clone());
    let deliver = Arc::new(Deliver {
        quota: Some(gate),
        store: all.clone(),
        mailer,
        directory,
        renderer: Arc::new(owlpost::app::renderer(&config).unwrap_or_else(|e| panic!("{e}"))),
        policies: parts.policies.clone(),
        clock: clock.clone(),
        allowed_domains: config.recipients.allowed_domains.clone(),
        patience: Patience {
            in_flight: 4,
            lease: Duration::from_secs(90),
            send_within: Duration::from_secs(15),
            call_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(20),
            look_every: Duration::from_secs(60),
            look_again: Duration::from_secs(1),
            directory_age: Duration::ZERO,
            throttle_max: Duration::from_secs(120),
        },
    });
    let delivery = deliver.clone().run(vitals.clone(), wake.clone(), phases.clone(), stop.clone());
    let rhythm = Rhythm { look_every: Duration::from_secs(30), ..Rhythm::default() };
    let upkeep = Upkeep { store: all, clock: clock.clone(), rhythm }.run(vitals, wake, phases, stop.clone());
    if !last {
        tokio::select! {
            biased;
            () = intake => panic!("intake ended"),
            end = delivery => panic!("delivery ended: {end:?}"),
            end = account => panic!("the account loop ended: {end:?}"),
            end = upkeep => panic!("upkeep ended: {end:?}"),
            () = operate(world, &store, &clock, path) => {}
        }
        return;
    }
    let end = async {
        intake.await;
        open_the_gates(world, &store, &clock).await;
        phase.send_replace(Phase::Flushing);
    };
    let to_the_end = async {
        let ((), delivered) = tokio::join!(end, delivery);
        delivered.unwrap_or_else(|e| panic!("{e}"));
        // Who joined the audience while it was flushed has a digest of their own, held again.
        while store.gauges(clock.now()).await.unwrap().digest(DigestState::Held) > 0 {
            open_the_gates(world, &store, &clock).await;
            let again = deliver.clone().run(Vitals::new(), Arc::new(Notify::new()), phase.subscribe(), stop.clone());
            again.await.unwrap_or_else(|e| panic!("{e}"));
        }
    };
    tokio::select! {
        biased;
        () = to_the_end => {}
        end = account => panic!("the account loop ended: {end:?}"),
        end = upkeep => panic!("upkeep ended: {end:?}"),
    }
}

/// Our sources wait for more for ever: they are stopped once everything is acknowledged.
async fn nothing_is_left(world: Shared, enough: CancellationToken) -> Result<(), IngestError> {
    // Everything is produced within three hours, and no message is hidden for longer than the rest.
    let by = tokio::time::Instant::now() + Duration::from_secs(12 * 3_600);
    while lock(&world).broker.lag() > 0 {
        assert!(tokio::time::Instant::now() < by, "the lag falls to 0: {} are left", lock(&world).broker.lag());
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    enough.cancel();
    Ok(())
}

/// Up to three consumers share what is left.
fn join_the_group(world: &Shared) -> usize {
    let mut world = lock(world);
    let mut dice = world.dice("consumers").clone();
    let members = 1 + dice.below(3) as usize;
    world.broker.join(members, &mut dice);
    *world.dice("consumers") = dice;
    members
}

async fn open_the_gates(world: &Shared, store: &FaultyStore, clock: &Arc<dyn Clock>) {
    let paused: Vec<String> = lock(world).paused.iter().cloned().collect();
    for route in paused {
        let route = (route != "*").then_some(route);
        store.act(clock.now(), &Command::Resume { route }).await.unwrap();
    }
    store.act(clock.now(), &Command::Release { digest: None, route: None }).await.unwrap();
}

/// Operators, SES events and people who move, at random moments.
async fn operate(world: &Shared, store: &FaultyStore, clock: &Arc<dyn Clock>, path: &Path) {
    loop {
        let wait = lock(world).dice("operator").below(240) + 1;
        tokio::time::sleep(Duration::from_secs(wait)).await;
        if lock(world).fault("clock", 3) {
            lock(world).clock_steps();
        }
        let throw = lock(world).dice("operator").below(100);
        match throw {
            0..=9 => {
                let who = *lock(world).dice("operator").pick(&PEOPLE);
                let mut world = lock(world);
                if !world.role.remove(who) {
                    world.role.insert(who);
                }
                world.note(format!("{who} moves"));
            }
            10..=14 => {
                let route = ["*", "approvals", "expiries"][lock(world).dice("operator").below(3) as usize];
                let route = (route != "*").then(|| route.to_owned());
                let _ = store.act(clock.now(), &Command::Pause { route }).await;
            }
            15..=29 => {
                let paused = lock(world).paused.iter().next().cloned();
                if let Some(route) = paused {
                    let _ = store.act(clock.now(), &Command::Resume { route: (route != "*").then_some(route) }).await;
                }
            }
            30..=39 => {
                let _ = store.act(clock.now(), &Command::Release { digest: None, route: None }).await;
            }
            40..=49 => send_now(world, store, clock, path).await,
            50..=59 => replay(world, store, clock, path).await,
            60..=62 => suppress(world, store, path).await,
            63..=66 => {
                let mut world = lock(world);
                let mut dice = world.dice("rewind").clone();
                let now_ms = world.elapsed().as_millis() as u64;
                world.broker.rewind(now_ms, &mut dice);
                *world.dice("rewind") = dice;
                world.note("an operator rewinds the topic, or redrives the queue");
            }
            _ => evidence(world, store, clock).await,
        }
    }
}

fn numbers(path: &Path, sql: &str) -> Vec<(i64, i64)> {
    let conn = Connection::open(path).unwrap();
    let mut all = conn.prepare(sql).unwrap();
    all.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect()
}

async fn send_now(world: &Shared, store: &FaultyStore, clock: &Arc<dyn Clock>, path: &Path) {
    let digests = numbers(path, "SELECT no, 0 FROM digest WHERE state <> 6 ORDER BY no");
    if digests.is_empty() {
        return;
    }
    let (number, _) = *lock(world).dice("operator").pick(&digests);
    let digest = owlpost::model::DigestId { store: store.inner.store_id(), number }.to_string();
    // The id is random by design, and stands in no trace.
    let _ = store.inner.act(clock.now(), &Command::SendNow { digest }).await;
}

async fn replay(world: &Shared, store: &FaultyStore, clock: &Arc<dyn Clock>, path: &Path) {
    let dead = numbers(path, "SELECT event_no, mailbox_no FROM item WHERE state = 5 ORDER BY 1, 2");
    if dead.is_empty() {
        return;
    }
    let (event, mailbox) = *lock(world).dice("operator").pick(&dead);
    let ids = vec![format!("it-{event}-{mailbox}")];
    let _ = store.act(clock.now(), &Command::ReplayItems { ids }).await;
}

async fn suppress(world: &Shared, store: &FaultyStore, path: &Path) {
    let who = *lock(world).dice("operator").pick(&PEOPLE);
    let address = crate::faults::person(who).address.unwrap();
    let _one_at_a_time = store.oracle.lock().await;
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn.execute("INSERT INTO suppression VALUES (?1, 'by hand', 0) ON CONFLICT DO NOTHING", [&address]).unwrap();
    let mut world = lock(world);
    world.note(format!("suppress {who}"));
    world.suppressed.insert(address);
}

/// SES tells later what became of an attempt, truthfully, in any order, more than once.
async fn evidence(world: &Shared, store: &FaultyStore, clock: &Arc<dyn Clock>) {
    let chosen = {
        let mut world = lock(world);
        let mut sent: Vec<usize> = (0..world.calls.len()).filter(|i| world.calls[*i].sent).collect();
        sent.sort_by_key(|i| world.calls[*i].attempt);
        if sent.is_empty() {
            return;
        }
        let i = *world.dice("operator").pick(&sent);
        if world.dice("operator").chance(15) {
            world.calls[i].bounced = true;
        }
        (world.calls[i].attempt, world.calls[i].bounced)
    };
    tell(store, clock.now(), chosen.0, chosen.1).await;
}

//! The main job on embedded parts: a day of sample Athenz events, and what becomes of them.
//!
//! Nothing here is a special path: the worker is started from the folder's own `owlpost.toml`, the events go in over HTTP
//! as `publish` sends them, and the ledger is read as `ledger` and `status` read it. Only the waiting is left out: every
//! window is made due at once, as `run --until-idle` does.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{Failure, Outcome, publish};
use crate::app::{Role, Worker};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::model::ItemState;
use crate::render::index;
use crate::telemetry;

mod books;
mod day;
pub mod endpoint;
mod folder;
mod ses;
mod story;

use books::Books;
use day::Feed;
use endpoint::Endpoint;
use folder::Folder;

/// The main job on embedded parts: a day of sample Athenz events, and what becomes of them
#[derive(clap::Args)]
pub struct Args {
    /// Gets all that the demo writes: configuration, store, mails, log; an earlier demo in it is replaced
    #[arg(long, value_name = "DIR", default_value = "./owlpost-demo")]
    dir: PathBuf,
    /// Sends through the real SES client, to an SES endpoint of the demo's own that throttles and loses a reply
    #[arg(long)]
    ses: bool,
}

/// # Errors
/// Usage: the folder holds other things. Failed: the worker could not do its work; its log says more.
pub fn run(args: Args) -> Outcome {
    let folder = Folder::prepare(&args.dir)?;
    telemetry::init_file(&folder.config(&[])?.log, folder.log()?).map_err(Failure::usage)?;
    story::begin(&folder)?;
    if args.ses {
        ses::credentials();
    }
    let books = super::runtime()?
        .block_on(whole(&folder, args.ses))
        .map_err(|e| Failure { message: format!("{}; {} says more", e.message, folder.shown("owlpost.log")), ..e })?;
    let page = index::index_page(&story::index(&books)).map_err(Failure::failed)?;
    folder.write("index.html", &page)?;
    let program = std::env::args().next().unwrap_or_else(|| "owlpost".into());
    story::end(&books, &folder, &program)?;
    if !books.verified.differences.is_empty() {
        return Err(Failure::failed("the ledger does not balance, which is a bug: please report it with this folder"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The day, and what the SES endpoint says of it, if there is one.
async fn whole(folder: &Folder, through_ses: bool) -> Result<Books, Failure> {
    if !through_ses {
        return day(&folder.config(&[])?, folder, None).await;
    }
    let endpoint = ses::start().await?;
    story::ses(&endpoint.url())?;
    day(&folder.config(&ses::overrides(&endpoint))?, folder, Some(&endpoint)).await
}

async fn day(config: &Config, folder: &Folder, endpoint: Option<&Endpoint>) -> Result<Books, Failure> {
    let now = SystemClock::new().now();
    let morning = day::morning(now);
    let begin = Worker::start(config, Role::All, true).await?;
    story::part("Morning", "a worker starts on an empty store and takes events over HTTP")?;
    for one in &morning {
        feed(&begin, one, folder).await?;
    }
    let first = finish(begin).await?;
    story::sent(first, "every window is made due now; else it would be the routes' cadences")?;
    // The second worker knows only what the store kept.
    let again = Worker::start(config, Role::All, true).await?;
    story::part("Afternoon", "a new worker on the same store; all that was sent before comes again")?;
    let whole = Feed {
        name: "again.ndjson",
        what: "the whole morning again",
        text: morning.iter().map(|f| f.text.as_str()).collect(),
    };
    feed(&again, &whole, folder).await?;
    feed(&again, &day::afternoon(now), folder).await?;
    let all = finish(again).await?;
    story::sent(all.saturating_sub(first), "nothing of the morning is sent again")?;
    if let Some(endpoint) = endpoint {
        story::ses_record(&ses::keep(endpoint, folder)?)?;
    }
    Books::read(config, folder).await
}

/// As `publish` does it.
async fn feed(worker: &Worker, feed: &Feed, folder: &Folder) -> Result<(), Failure> {
    let address = worker.address().ok_or_else(|| Failure::failed("the worker has no listener"))?;
    let file = folder.write(&format!("events/{}", feed.name), &feed.text)?;
    let sum = publish::feed(&format!("http://{address}/v1/events"), file).await?;
    story::fed(feed.what, feed.text.lines().count(), &sum)
}

/// Everything becomes due; ends when nothing is left, and gives the number of mails that the outbox got so far.
async fn finish(worker: Worker) -> Result<u64, Failure> {
    worker.flush();
    let store = worker.store();
    let left = worker.run(CancellationToken::new()).await?;
    let open = left.item(ItemState::Pending) + left.item(ItemState::InDoubt);
    if open > 0 {
        return Err(Failure::failed(format!("{open} items are still open, which must not be")));
    }
    books::mails_sent(&*store).await
}

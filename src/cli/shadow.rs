//! What a shadow says at its end: where its ledger differs from that of the deployment beside it.

use std::process::ExitCode;

use super::output::{Stop, clean, counted, note, written};
use super::table::{Column, Table, text};
use super::{Failure, Outcome};
use crate::app::shadow::{Counts, Outcome as Became, Row, Shadow};
use crate::store::StoreError;

/// Differences that people see; `--json` has all.
const SHOWN: usize = 20;

static COLUMNS: [Column; 7] =
    [text("DIFFERENCE"), text("SOURCE"), text("ID"), text("ROUTE"), text("RECIPIENT"), text("REAL"), text("SHADOW")];

/// Names of figures fill so many columns.
const NAME: usize = 16;

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Stop {
        Stop::Failed(Failure::from(e))
    }
}

/// Exit 0 whatever the difference is: it is what was asked for.
pub fn report(runtime: &tokio::runtime::Runtime, shadow: &Shadow, json: bool) -> Outcome {
    written(|out| {
        let mut first: Vec<Row> = Vec::new();
        let counts = runtime.block_on(shadow.compare(|row| {
            if json {
                return out.json(&row);
            }
            if first.len() < SHOWN {
                first.push(row);
            }
            Ok::<(), Stop>(())
        }))?;
        let Some(counts) = counts else {
            note(&format!(
                "{}: no store of a real worker, so there is nothing to compare with",
                shadow.real().display()
            ));
            return Ok(ExitCode::SUCCESS);
        };
        if json {
            note(&summary(&counts));
            return Ok(ExitCode::SUCCESS);
        }
        out.heading(&format!("Shadow of {}", shadow.real().display()))?;
        out.line(&format!("  {}", summary(&counts)))?;
        let c = &counts;
        for (what, n) in [
            ("same", c.same),
            ("only in shadow", c.only_in_shadow),
            ("only in real", c.only_in_real),
            ("other outcome", c.other_outcome),
            ("still open", c.still_open),
        ] {
            out.line(&format!("  {what:<NAME$}{n:>10}"))?;
        }
        let mut table = Table::new(&COLUMNS);
        table.rows(out, &first.iter().map(cells).collect::<Vec<_>>())?;
        let all = c.only_in_shadow + c.only_in_real + c.other_outcome + c.still_open;
        if all > first.len() as u64 {
            out.line(&format!("and {} more; --json has all", all - first.len() as u64))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn summary(counts: &Counts) -> String {
    let differ = counts.only_in_shadow + counts.only_in_real + counts.other_outcome;
    format!(
        "{} seen by both ({} by the real worker alone, {} by the shadow alone): {} of {} settled otherwise",
        counted(counts.events, "event"),
        counts.events_only_real,
        counts.events_only_shadow,
        differ,
        counted(differ + counts.same + counts.still_open, "item"),
    )
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        row.difference.words().into(),
        clean(&row.source),
        clean(&row.id),
        clean(&row.route),
        clean(&row.recipient),
        became(row.real),
        became(row.shadow),
    ]
}

fn became(outcome: Option<Became>) -> String {
    outcome.map_or_else(
        || "-".into(),
        |o| match o.reason {
            Some(reason) => format!("{} ({})", o.state.as_str(), reason.as_str()),
            None => o.state.as_str().into(),
        },
    )
}

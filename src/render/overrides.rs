//! The folder whose files replace built-in templates and add mails of one's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::templates::{FILES, PARTIALS, Problem};

/// A template is a page of text; more is a mistake, and the start should not read it all.
const FILE_MAX_BYTES: u64 = 256 * 1024;
/// More entries than this in an override folder: it is the wrong folder.
const ENTRIES_MAX: usize = 200;

/// Adds what stands in the folder to `found`, by its name there; every problem at once.
pub fn read(dir: &Path, found: &mut BTreeMap<String, (String, Option<PathBuf>)>, problems: &mut Vec<Problem>) {
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

//! Shows a page in the user's browser.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Failure;

/// Asked in turn: the user's own choice, then the desktop's.
const OPENERS: [&str; 3] = ["xdg-open", "open", "wslview"];

/// # Errors
/// No program can open it: which page to open by hand.
pub fn open(page: &Path) -> Result<(), Failure> {
    let chosen = std::env::var("BROWSER").ok().filter(|b| !b.is_empty());
    let openers = chosen.iter().map(String::as_str).chain(OPENERS);
    for opener in openers {
        let mut command = Command::new(opener);
        command.arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Not waited for: a browser may stay in the foreground.
        if command.spawn().is_ok() {
            return Ok(());
        }
    }
    Err(Failure::failed(format!("no browser was found (set BROWSER); open {} yourself", page.display())))
}

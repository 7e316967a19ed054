//! The demo's folder: taken only if it is empty or an earlier demo's, and never with somebody else's files in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::config::{self, Config};

/// The first line of the configuration that the demo writes: by this it knows its own folder.
const MARK: &str = "# Written by \"owlpost demo\"";
const CONFIG: &str = include_str!("owlpost.toml");
const PEOPLE: &str = include_str!("people.toml");

const FILES: [&str; 8] = [
    "owlpost.toml",
    "people.toml",
    "owlpost.db",
    "owlpost.db-wal",
    "owlpost.db-shm",
    "owlpost.db.lock",
    "owlpost.log",
    "index.html",
];
/// Folders in it, with the endings of what may lie there.
const FOLDERS: [(&str, &[&str]); 2] = [("outbox", &["eml", "html", "part"]), ("events", &["ndjson"])];

pub struct Folder {
    /// As the user wrote it, for what is shown.
    pub shown: PathBuf,
    /// Absolute: the configuration works from any folder.
    path: PathBuf,
}

impl Folder {
    /// Makes the folder, or empties an earlier demo's, and writes configuration and people into it.
    ///
    /// # Errors
    /// Usage: other things are in it, or a worker runs there. Failed: it can't be written.
    pub fn prepare(shown: &Path) -> Result<Folder, Failure> {
        let failed = |e: io::Error| {
            Failure::failed(format!("{}: {e}; name a folder that can be written: --dir DIR", shown.display()))
        };
        match fs::metadata(shown) {
            Ok(meta) if !meta.is_dir() => {
                let why = format!("{}: is a file; the demo needs a folder: --dir DIR", shown.display());
                return Err(Failure::usage(why));
            }
            Ok(_) => empty(shown)?,
            Err(_) => fs::create_dir_all(shown).map_err(failed)?,
        }
        let path = fs::canonicalize(shown).map_err(failed)?;
        let folder = Folder { shown: shown.to_owned(), path };
        let inside = folder.path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
            Failure::usage(format!("{}: its path can't stand in a configuration; name another", shown.display()))
        })?;
        // What TOML and the configuration's own ${NAME} would read as more than text.
        let inside = inside.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "$${");
        for (name, _) in FOLDERS {
            fs::create_dir(folder.path.join(name)).map_err(failed)?;
        }
        folder.write("people.toml", PEOPLE)?;
        folder.write("owlpost.toml", &CONFIG.replace("{DIR}", &inside))?;
        Ok(folder)
    }

    /// A path inside.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The same, as the user would write it.
    pub fn shown(&self, name: &str) -> String {
        self.shown.join(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|e| Failure::failed(format!("{}: {e}", self.shown(name))))?;
        Ok(path)
    }

    pub fn log(&self) -> Result<File, Failure> {
        File::create(self.at("owlpost.log")).map_err(|e| Failure::failed(format!("{}: {e}", self.shown("owlpost.log"))))
    }

    /// The configuration as the worker reads it, but for the port: any free one. The environment changes nothing, so
    /// that the demo is the same everywhere.
    pub fn config(&self, more: &[(String, String)]) -> Result<Config, Failure> {
        let port = ("OWLPOST__HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned());
        config::load(&[self.at("owlpost.toml")], std::iter::once(port).chain(more.iter().cloned())).map_err(
            |problems| {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Failure::failed(format!("the demo's own configuration has problems:\n{}", lines.join("\n")))
            },
        )
    }
}

/// Removes an earlier demo. Everything is looked at before anything is removed.
fn empty(dir: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::failed(format!("{}: {e}", dir.display()));
    let mut doomed = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, kind) = (entry.file_name().to_string_lossy().into_owned(), entry.file_type().map_err(failed)?);
        match FOLDERS.iter().find(|(folder, _)| *folder == name && kind.is_dir()) {
            Some((_, endings)) => {
                for inner in fs::read_dir(entry.path()).map_err(failed)? {
                    let inner = inner.map_err(failed)?.path();
                    let known = inner.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e));
                    if !known || !inner.is_file() {
                        return Err(foreign(dir, &inner));
                    }
                }
            }
            None if FILES.contains(&name.as_str()) && kind.is_file() => {}
            None => return Err(foreign(dir, &entry.path())),
        }
        doomed.push((entry.path(), kind.is_dir()));
    }
    if doomed.is_empty() {
        return Ok(());
    }
    let marked = fs::read_to_string(dir.join("owlpost.toml")).is_ok_and(|text| text.starts_with(MARK));
    if !marked {
        return Err(foreign(dir, &dir.join("owlpost.toml")));
    }
    if let Ok(lock) = File::open(dir.join("owlpost.db.lock"))
        && matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))
    {
        let why =
            format!("{}: a worker is running on it; stop it first, or name another with --dir DIR", dir.display());
        return Err(Failure::usage(why));
    }
    // The mark goes last: a demo that is interrupted here still knows its folder.
    doomed.sort_by_key(|(path, _)| path.ends_with("owlpost.toml"));
    for (path, is_dir) in doomed {
        if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.map_err(failed)?;
    }
    Ok(())
}

fn foreign(dir: &Path, other: &Path) -> Failure {
    Failure::usage(format!(
        "{} is not an earlier demo's alone: {} is none of its files. Nothing was touched; name an empty or a new folder \
         with --dir DIR",
        dir.display(),
        other.strip_prefix(dir).unwrap_or(other).display()
    ))
}

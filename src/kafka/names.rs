//! The names of librdkafka's settings, as it tells them itself.

use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use rdkafka::bindings as sys;

use super::Side;

/// librdkafka's own name of a property: dots, where a variable of the environment can only have underscores.
pub fn plain(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('_', ".")
}

/// [`plain`], and of two names that librdkafka has for one setting the one that it calls the other by.
pub(super) fn canonical(name: &str) -> String {
    let name = plain(name);
    known().iter().find(|known| known.name == name).and_then(|known| known.alias_of.clone()).unwrap_or(name)
}

/// Other names of the same setting.
pub(super) fn twins(name: &str) -> impl Iterator<Item = &'static str> {
    let (name, of) = (name.to_owned(), canonical(name));
    let is_twin = move |known: &&Known| known.name != name && canonical(&known.name) == of;
    known().iter().filter(is_twin).map(|known| known.name.as_str())
}

pub(super) struct Known {
    pub name: String,
    /// `None`: both.
    pub side: Option<Side>,
    /// The setting that it is another name of.
    alias_of: Option<String>,
}

/// Every setting of this librdkafka, as it tells them itself; read once.
pub(super) fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| parse(&table()))
}

/// The table that librdkafka prints: `name | C/P | range | default | importance | description`.
fn parse(table: &str) -> Vec<Known> {
    let line = |line: &str| {
        let mut cells = line.split('|').map(str::trim);
        let name = cells.next().filter(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.')
        })?;
        let side = match cells.next()? {
            "C" => Some(Side::Consumer),
            "P" => Some(Side::Producer),
            "*" => None,
            _ => return None,
        };
        let alias_of = cells.next_back().and_then(|what| what.split_once("Alias for `")?.1.split_once('`'));
        Some(Known { name: name.to_owned(), side, alias_of: alias_of.map(|(name, _)| name.to_owned()) })
    };
    let mut known: Vec<Known> = Vec::new();
    for found in table.lines().filter_map(line) {
        match known.iter_mut().find(|known| known.name == found.name) {
            Some(same) => {
                if same.side != found.side {
                    same.side = None;
                }
                // A name of the client's own is also one of each topic's, where it may be an alias: that of the client counts.
                if found.alias_of.is_none() {
                    same.alias_of = None;
                }
            }
            None => known.push(found),
        }
    }
    known
}

fn table() -> String {
    let (mut text, mut size): (*mut c_char, libc::size_t) = (std::ptr::null_mut(), 0);
    // SAFETY: the stream writes to `text` and `size`, which outlive it, and is closed once. After that `text` holds `size`
    // bytes, which `free` gives back.
    unsafe {
        let stream = libc::open_memstream(&mut text, &mut size);
        if stream.is_null() {
            return String::new();
        }
        sys::rd_kafka_conf_properties_show(stream.cast());
        libc::fclose(stream);
        if text.is_null() {
            return String::new();
        }
        let copy = String::from_utf8_lossy(std::slice::from_raw_parts(text.cast::<u8>(), size)).into_owned();
        libc::free(text.cast::<c_void>());
        copy
    }
}

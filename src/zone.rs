//! IANA time zones by name.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The longest IANA name has 32 bytes; a longer text is not looked up.
const NAME_BYTES_MAX: usize = 64;

/// The system's database is asked first, because its rules may be newer than this program; then the one built in, because
/// a system may have none, or lack the old names (Debian's `tzdata-legacy`). Both cache what they have read: a lookup
/// costs less than a microsecond. `None`: nobody knows that name.
pub fn find(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    jiff::tz::db().get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_zones_old_names_and_no_paths() {
        for name in ["UTC", "Europe/Berlin", "US/Eastern", "Asia/Calcutta", "America/Argentina/ComodRivadavia"] {
            assert!(find(name).is_some(), "{name}");
        }
        for name in ["", " ", "Moon/Base", "/etc/passwd", "../../etc/passwd", "Europe/../Europe/Berlin", "Europe", "\0"]
        {
            assert!(find(name).is_none(), "{name:?}");
        }
        assert!(find(&"x".repeat(1_000_000)).is_none());
    }
}

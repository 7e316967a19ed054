//! The ids of digests and attempts.

use std::fmt;
use std::str::FromStr;

/// `<store id, 8 hex>-<number, base 36>`: two deployments on one SES account never meet. A digest keeps it for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestId {
    pub store: u32,
    pub number: i64,
}

impl fmt::Display for DigestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = Vec::new();
        let mut rest = self.number.unsigned_abs();
        loop {
            digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize] as char);
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        write!(f, "{:08x}-{}", self.store, digits.iter().rev().collect::<String>())
    }
}

impl FromStr for DigestId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<DigestId, NotAnId> {
        let (store, number) = text.split_once('-').ok_or(NotAnId)?;
        let plain = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if store.len() != 8 || !plain(store) || !plain(number) {
            return Err(NotAnId);
        }
        Ok(DigestId {
            store: u32::from_str_radix(store, 16).map_err(|_| NotAnId)?,
            number: i64::from_str_radix(number, 36).map_err(|_| NotAnId)?,
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a digest id: expected 8 hexadecimal digits, a dash and a number in base 36, e.g. 1f2e3d4c-5k")]
pub struct NotAnId;

/// The n-th try to send a digest, written before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub digest: DigestId,
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.digest, self.number)
    }
}

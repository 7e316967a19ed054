//! How much one transaction of intake takes: as much as the store does in a bounded time. Large ones are cheaper, but
//! nobody else writes meanwhile.

use std::time::Duration;

/// So many items at first: nobody knows how fast the store is.
const FIRST: usize = 1_000;
/// Smaller ones would cost more in commits than they spare.
const LEAST: usize = 200;
/// A slow disk makes transactions smaller, not longer: commands and other loops wait for them.
const LONGEST: Duration = Duration::from_secs(1);
/// Permits are given 150 ms ahead (`quota.rs`), and a turn of the delivery loop waits for the store up to three times
/// (begin, settle, claim). Longer transactions make mails miss their moment of the account's rate, which does not come back.
const LONGEST_BESIDE_CALLS: Duration = Duration::from_millis(20);

/// In items, of one intake loop.
#[derive(Debug)]
pub(super) struct Size {
    items: usize,
    /// Lower than `most` after a transaction that was not taken, until whole batches are.
    ceiling: usize,
    most: usize,
}

impl Size {
    pub fn new(most: usize) -> Size {
        Size { items: FIRST.min(most), ceiling: most, most }
    }

    pub fn items(&self) -> usize {
        self.items
    }

    /// The store took `items` in this time. `calls_wait`: mails wait for their moment. Grows step by step, and shrinks at
    /// once.
    pub fn learn(&mut self, items: usize, took: Duration, calls_wait: bool) {
        let longest = if calls_wait { LONGEST_BESIDE_CALLS } else { LONGEST };
        // A casted float saturates.
        let fits = (items as f64 * longest.as_secs_f64() / took.as_secs_f64().max(1e-6)) as usize;
        // A small one that was quick says little of what is possible: its commit cost more than its items.
        let next = if took > longest { fits } else { fits.min(items.saturating_mul(2)).max(self.items) };
        self.items = next.clamp(LEAST.min(self.most), self.ceiling);
    }

    /// The store did not take a transaction. Perhaps it was too large for a timeout of the server's: tried again as it is,
    /// or as large in the middle of the same batch, it would never be taken.
    pub fn failed(&mut self) {
        self.ceiling = (self.items / 2).max(LEAST.min(self.most));
        self.items = self.ceiling;
    }

    /// All of a batch is durable.
    pub fn batch_taken(&mut self) {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn transactions_grow_while_the_store_is_quick_and_end_at_the_bound() {
        let mut size = Size::new(20_000);
        let mut seen = vec![size.items()];
        for _ in 0..6 {
            size.learn(size.items(), MS * size.items() as u32 / 30, false);
            seen.push(size.items());
        }
        assert_eq!(seen, [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
    }

    #[test]
    fn a_slow_store_gets_smaller_transactions_not_longer_ones() {
        let mut size = Size::new(20_000);
        size.learn(1_000, MS * 10_000, false);
        assert_eq!(size.items(), LEAST);
        size.learn(LEAST, MS * 2_000, false);
        assert_eq!(size.items(), LEAST);
    }

    #[test]
    fn mails_that_wait_for_their_moment_get_the_store_between() {
        let mut size = Size::new(20_000);
        size.items = 20_000;
        size.learn(7_000, MS * 233, true);
        assert!(size.items() <= 601, "{size:?}");
        size.learn(size.items(), MS * 10, false);
        assert!(size.items() > 1_000, "{size:?}");
    }

    #[test]
    fn a_small_rest_changes_little() {
        let mut size = Size::new(20_000);
        size.items = 8_000;
        size.learn(10, MS * 5, false);
        assert_eq!(size.items(), 8_000);
    }
}

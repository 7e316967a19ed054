//! What the old tables certainly lack, in memory: an event that is new, as nearly all are, needs none of their pages. They
//! fall on any page, so that the more there are the less the cache helps: at a million events that was a third of a batch.
//!
//! Each part of each table has a Bloom filter, in blocks of a cache line (Putze, Sanders, Singler: "Cache-, Hash- and
//! Space-Efficient Bloom Filters", 2007). It may name a row that is not there (one that left, or whose transaction was taken
//! back), and never lacks one that is. So what a transaction takes out of an old table, and would be back there if it failed,
//! must be young again before a part is read: `add_one` of a renamed event does that before `young::age`, and purge moves
//! nothing.

/// All hashes in so many parts of equal width.
pub const PARTS: u32 = 32;

/// Bits of a full filter a row, of which [`LOOKS`] are set for it: of the rows that are not there some two in a hundred are
/// looked up all the same.
const ROW_BITS: usize = 10;
const LOOKS: u32 = 7;
/// Bits of a block; nine bits of a hash choose one.
const BLOCK_BITS: usize = 512;

/// Rows of a part for which there is a filter, of three million for all: at most 12 MB for both tables. Larger ones have
/// none until the worker starts anew.
pub const ROWS_MAX: usize = 98_304;
/// A filter has room for half as many rows again as it begins with, and for these at least.
const ROWS_MIN: usize = 1_024;

/// Hashes that are shorter are not put into filters, and always looked up.
const HASH_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Keys,
    Topics,
}

#[derive(Default)]
enum Part {
    /// To be read at its next move.
    #[default]
    Unknown,
    Known(Filter),
    /// More rows than a filter is made for.
    Large,
}

#[derive(Default)]
pub struct Old {
    /// Says whether others have committed: what they moved is in no filter.
    others: Option<i64>,
    parts: [[Part; PARTS as usize]; 2],
}

impl Old {
    /// A number that changes when another connection commits (`PRAGMA data_version`), as the transaction sees it.
    pub fn as_of(&mut self, others: i64) {
        if self.others != Some(others) {
            *self = Old { others: Some(others), ..Old::default() };
        }
    }

    /// Whether the old table has no such row.
    pub fn lacks(&self, table: Table, hash: &[u8]) -> bool {
        match (&self.parts[table as usize][part_of(hash)], bits(hash)) {
            (Part::Known(filter), Some(bits)) => !filter.has(bits),
            _ => false,
        }
    }

    /// Whether what moves on to this part has to be put.
    pub fn is_known(&self, table: Table, part: u32) -> bool {
        matches!(self.parts[table as usize][part as usize], Part::Known(_))
    }

    /// Whether this part has to be read.
    pub fn is_unknown(&self, table: Table, part: u32) -> bool {
        matches!(self.parts[table as usize][part as usize], Part::Unknown)
    }

    /// A row moves on. A filter that has no more room is made anew.
    pub fn put(&mut self, table: Table, hash: &[u8]) {
        let part = &mut self.parts[table as usize][part_of(hash)];
        let (Part::Known(filter), Some(bits)) = (&mut *part, bits(hash)) else { return };
        if !filter.put(bits) {
            *part = Part::Unknown;
        }
    }

    /// All rows of a part, as they are after a move; of more than [`ROWS_MAX`] as many more as were read.
    pub fn learn(&mut self, table: Table, part: u32, rows: &[Bits]) {
        let part = &mut self.parts[table as usize][part as usize];
        if rows.len() > ROWS_MAX {
            *part = Part::Large;
            return;
        }
        let mut filter = Filter::new((rows.len() + rows.len() / 2).max(ROWS_MIN));
        *part = if rows.iter().all(|bits| filter.put(*bits)) { Part::Known(filter) } else { Part::Unknown };
    }
}

/// Two hashes of a row, of its own last bytes: those are a hash already.
pub type Bits = (u64, u64);

pub fn bits(hash: &[u8]) -> Option<Bits> {
    let (rest, second) = hash.split_last_chunk::<8>()?;
    let (_, first) = rest.split_last_chunk::<8>()?;
    (hash.len() >= HASH_BYTES).then(|| (u64::from_be_bytes(*first), u64::from_be_bytes(*second)))
}

/// All hashes in [`PARTS`] of equal width, in their order.
fn part_of(hash: &[u8]) -> usize {
    let first = hash.first_chunk::<2>().map_or(0, |two| u32::from(u16::from_be_bytes(*two)));
    (first * PARTS / 0x1_0000) as usize
}

struct Filter {
    blocks: Vec<[u64; BLOCK_BITS / 64]>,
    rows: usize,
    rows_max: usize,
}

impl Filter {
    fn new(rows_max: usize) -> Filter {
        Filter { blocks: vec![[0; BLOCK_BITS / 64]; (rows_max * ROW_BITS).div_ceil(BLOCK_BITS)], rows: 0, rows_max }
    }

    /// `false`: it has no room.
    fn put(&mut self, bits: Bits) -> bool {
        self.rows += 1;
        let block = self.block(bits);
        for (word, bit) in looks(bits) {
            self.blocks[block][word] |= bit;
        }
        self.rows <= self.rows_max
    }

    fn has(&self, bits: Bits) -> bool {
        let block = &self.blocks[self.block(bits)];
        looks(bits).all(|(word, bit)| block[word] & bit != 0)
    }

    fn block(&self, (first, _): Bits) -> usize {
        // The hash's first bits are those of the part, the same for all its rows.
        let spread = u128::from(first.rotate_left(16));
        ((spread * self.blocks.len() as u128) >> 64) as usize
    }
}

/// Word and bit of each look.
fn looks((_, second): Bits) -> impl Iterator<Item = (usize, u64)> {
    (0..LOOKS).map(move |n| {
        let at = (second >> (9 * n)) as usize % BLOCK_BITS;
        (at / 64, 1 << (at % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash16;

    fn hash(n: usize) -> [u8; 16] {
        hash16(b"test", &[&n.to_string()])
    }

    fn known(table: Table) -> Old {
        let mut old = Old::default();
        old.as_of(1);
        (0..PARTS).for_each(|part| old.learn(table, part, &[]));
        old
    }

    #[test]
    fn a_filter_lacks_nothing_that_was_put_or_read() {
        let mut old = known(Table::Topics);
        let rows = ROWS_MIN * PARTS as usize / 2;
        (0..rows).for_each(|n| old.put(Table::Topics, &hash(n)));
        for part in 0..PARTS {
            assert!(old.is_known(Table::Topics, part));
        }
        assert!((0..rows).all(|n| !old.lacks(Table::Topics, &hash(n))));
        // Read again, as after another process has written.
        old.as_of(2);
        assert!((0..PARTS).all(|part| old.is_unknown(Table::Topics, part)));
        for part in 0..PARTS {
            let of_part = (0..rows).map(hash).filter(|hash| part_of(hash) == part as usize);
            let of_part: Vec<Bits> = of_part.map(|hash| bits(&hash).unwrap()).collect();
            old.learn(Table::Topics, part, &of_part);
        }
        assert!((0..rows).all(|n| !old.lacks(Table::Topics, &hash(n))));
        // A full one, of what is not there.
        let told = (rows..10 * rows).filter(|n| !old.lacks(Table::Topics, &hash(*n))).count();
        assert!(told * 100 < 9 * rows * 3, "{told} of {}", 9 * rows);
        assert!(!old.lacks(Table::Keys, &hash(rows)), "nothing is known of the other table");
    }

    #[test]
    fn what_is_not_known_is_not_lacking() {
        let mut old = Old::default();
        assert!(!old.lacks(Table::Keys, &hash(1)));
        old = known(Table::Keys);
        assert!(old.lacks(Table::Keys, &hash(1)));
        assert!(!old.lacks(Table::Keys, b"short"), "too short to be put");
        old.as_of(1);
        assert!(old.lacks(Table::Keys, &hash(1)), "nobody else has written");
        // Full: to be read again.
        let of_first = (0..).map(hash).filter(|hash| part_of(hash) == 0);
        of_first.take(ROWS_MIN + 1).for_each(|hash| old.put(Table::Keys, &hash));
        assert!(old.is_unknown(Table::Keys, 0) && old.is_known(Table::Keys, 1));
        // As many as a filter is made for at most: there is room, or each move would read the part again.
        let rows: Vec<Bits> = (0..ROWS_MAX as u64).map(|n| (n << 32, n)).collect();
        old.learn(Table::Keys, 2, &rows);
        let of_second = (0..).map(hash).filter(|hash| part_of(hash) == 2);
        of_second.take(ROWS_MIN).for_each(|hash| old.put(Table::Keys, &hash));
        assert!(old.is_known(Table::Keys, 2));
        // More than a filter is made for.
        old.learn(Table::Keys, 1, &vec![(1, 1); ROWS_MAX + 1]);
        assert!(!old.is_unknown(Table::Keys, 1) && !old.is_known(Table::Keys, 1));
        assert!((0..500).all(|n| part_of(&hash(n)) != 1 || !old.lacks(Table::Keys, &hash(n))));
    }
}

//! What the loops agree on beside the store: how far `run --until-idle` has come.

/// What `run --until-idle` is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Windows decide.
    Normal,
    /// Nothing is sent before every source is at its end.
    Holding,
    /// Everything is due; the loop ends when nothing is left that could leave.
    Flushing,
}

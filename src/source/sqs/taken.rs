//! A message as it was received, and how long it may be held.

use std::time::Duration;

use crate::source::Message;

/// How long a message that was received for the first time is kept hidden while the store is away. Each further receive
/// halves it, down to the queue's own visibility timeout: what comes again and again is left to the queue's redrive policy.
pub const HOLD_MAX: Duration = Duration::from_secs(3_600);
/// From its receive on no message can be hidden for longer in all (SQS, visibility timeout).
pub const HIDDEN_MAX: Duration = Duration::from_secs(12 * 3_600);
/// What a message takes beside its text: its receipt (some 350 bytes), position, id and places in the maps.
pub const OVERHEAD: usize = 768;

/// A message as it was received.
#[derive(Debug)]
pub struct Taken {
    pub message: Message,
    pub receipt: String,
    /// Of a FIFO queue.
    pub group: Option<String>,
    /// `ApproximateReceiveCount`, from 1.
    pub count: u32,
}

impl Taken {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let headers = self.message.headers.iter().map(|(name, value)| name.len() + value.len());
        self.message.body.len() + headers.sum::<usize>() + OVERHEAD
    }
}

/// How long a message that was received so often may be held.
pub fn hold_for(count: u32, visibility: Duration) -> Duration {
    let halved = HOLD_MAX.checked_div(1u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    halved.unwrap_or_default().max(visibility)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_often_is_not_held_for_longer_than_the_queue_says() {
        let visible = Duration::from_secs(30);
        assert_eq!(hold_for(1, visible), HOLD_MAX);
        assert_eq!(hold_for(2, visible), HOLD_MAX / 2);
        assert_eq!(hold_for(8, visible), visible);
        assert_eq!(hold_for(4_000_000_000, visible), visible);
        assert_eq!(hold_for(0, visible), HOLD_MAX);
    }
}

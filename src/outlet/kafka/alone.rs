//! Messages that were refused with others they went with: each for itself, within a time for all of them.

use std::time::Duration;

use tokio::time::Instant;

use crate::outlet::OutletError;

/// All of them together, but for the last one's own time. A broker that is there answers each within some milliseconds.
const WITHIN: Duration = Duration::from_secs(60);

/// Asks for one after the other. Once a broker is not there, or the time is over, the others are not tried: they wait for
/// the next call, and nothing that was answered is lost with them.
#[derive(Debug)]
pub(super) struct Alone {
    by: Instant,
    over: Option<OutletError>,
}

impl Alone {
    pub fn new() -> Alone {
        Alone { by: Instant::now() + WITHIN, over: None }
    }

    pub async fn ask(&mut self, one: impl Future<Output = Result<(), OutletError>>) -> Result<(), OutletError> {
        if self.over.is_none() && Instant::now() >= self.by {
            let seconds = WITHIN.as_secs();
            let why = format!("the broker takes messages one by one, and did not take all of them in {seconds} s");
            self.over = Some(OutletError::Unavailable(why));
        }
        if let Some(why) = &self.over {
            return Err(why.clone());
        }
        let answer = one.await;
        if let Err(why @ (OutletError::Unavailable(_) | OutletError::Fatal(_))) = &answer {
            self.over = Some(why.clone());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are asked for, and how long a hundred take.
    async fn hundred(
        takes: Duration,
        answer: Result<(), OutletError>,
    ) -> (usize, Vec<Result<(), OutletError>>, Duration) {
        let (mut alone, began) = (Alone::new(), Instant::now());
        let (mut asked, mut told) = (0, Vec::new());
        for _ in 0..100 {
            let one = async {
                asked += 1;
                tokio::time::sleep(takes).await;
                answer.clone()
            };
            told.push(alone.ask(one).await);
        }
        (asked, told, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_goes_away_is_waited_for_once() {
        let away = Err(OutletError::Unavailable("no broker answers".to_owned()));
        let (asked, told, took) = hundred(Duration::from_secs(30), away.clone()).await;
        assert_eq!((asked, told), (1, vec![away; 100]));
        assert!(took <= Duration::from_secs(30), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_broker_keeps_what_it_took_and_the_rest_waits() {
        let (asked, told, took) = hundred(Duration::from_secs(7), Ok(())).await;
        assert!(asked == 9 && told[..9].iter().all(Result::is_ok), "{asked}");
        assert!(told[9..].iter().all(|one| matches!(one, Err(OutletError::Unavailable(_)))));
        assert!(took <= WITHIN + Duration::from_secs(7), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_refused_for_ever_stops_no_other() {
        let (asked, _, _) = hundred(Duration::ZERO, Err(OutletError::Refused("too large".to_owned()))).await;
        assert_eq!(asked, 100);
    }
}

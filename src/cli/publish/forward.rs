//! Handing events on to a broker's outlet, again where it says so.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Sum;
use super::encode::{self, Mode};
use super::input::Item;
use crate::cli::Failure;
use crate::outlet::{Outlet, OutletError};

/// An outlet tries for half a minute itself before it says that the broker is away; a broker that restarts is back by
/// then.
const TRIES: u32 = 5;
const WAIT: Duration = Duration::from_secs(1);

pub(super) struct Forwarder {
    outlet: Arc<dyn Outlet>,
    mode: Mode,
    /// Names this run, in the ids of messages that have none of their own.
    run: String,
    /// Of messages so far.
    count: u64,
    /// The broker has confirmed or refused something: if it does not now, it may be restarting. If it never did, the URL is wrong.
    answered: bool,
}

impl Forwarder {
    pub(super) fn new(outlet: Arc<dyn Outlet>, mode: Mode) -> Forwarder {
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Forwarder {
            outlet,
            mode,
            run: format!("publish-{moment:x}-{:x}", std::process::id()),
            count: 0,
            answered: false,
        }
    }

    /// Hands all items on, in their order, and adds up what became of them.
    pub(super) async fn post(&mut self, items: Vec<Item>, sum: &mut Sum) -> Result<(), Failure> {
        let mut messages = Vec::with_capacity(items.len());
        for item in &items {
            messages.push(encode::message(item, self.mode, format!("{}-{}", self.run, self.count)));
            self.count += 1;
        }
        let mut items = items;
        let mut last = String::new();
        for _ in 0..TRIES {
            if items.is_empty() {
                return Ok(());
            }
            let answers = self.outlet.send(&messages).await;
            let mut fatal = None;
            let mut left = (Vec::new(), Vec::new());
            for ((item, message), answer) in items.into_iter().zip(messages).zip(answers) {
                match answer {
                    Ok(()) => {
                        self.answered = true;
                        sum.accepted += item.events.unwrap_or(1) as u64;
                    }
                    Err(OutletError::Refused(why)) => {
                        self.answered = true;
                        sum.reject(&item, why);
                    }
                    Err(OutletError::Fatal(why)) => fatal = Some(why),
                    Err(OutletError::Unavailable(why)) => {
                        last = why;
                        left.0.push(item);
                        left.1.push(message);
                    }
                }
            }
            if let Some(why) = fatal {
                return Err(Failure::failed(why));
            }
            (items, messages) = left;
            if !items.is_empty() {
                if !self.answered {
                    return Err(Failure::failed(last));
                }
                // Sending again is safe: what arrived is known by its id, which this run gives to what has none.
                tokio::time::sleep(WAIT).await;
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!("gave up after {TRIES} tries: {last}. What was accepted stays; {}", super::AGAIN)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::outlet::Outgoing;

    type Answers = Vec<Result<(), OutletError>>;

    /// Answers as scripted, then takes everything.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<VecDeque<Answers>>,
        sent: Mutex<Vec<Vec<String>>>,
    }

    #[async_trait]
    impl Outlet for Scripted {
        fn place(&self) -> String {
            "scripted".to_owned()
        }

        async fn send(&self, messages: &[Outgoing]) -> Answers {
            let bodies = messages.iter().map(|m| String::from_utf8(m.body.clone()).unwrap()).collect();
            self.sent.lock().unwrap().push(bodies);
            self.answers.lock().unwrap().pop_front().unwrap_or_else(|| messages.iter().map(|_| Ok(())).collect())
        }
    }

    fn items(n: u64) -> Vec<Item> {
        (0..n)
            .map(|n| Item { file: "f".into(), line: n + 1, index: n, body: n.to_string().into_bytes(), events: None })
            .collect()
    }

    async fn post(script: &[&[&str]]) -> (Result<(), Failure>, Sum, Vec<Vec<String>>) {
        let answer = |word: &&str| match *word {
            "ok" => Ok(()),
            "refused" => Err(OutletError::Refused("too large".to_owned())),
            "fatal" => Err(OutletError::Fatal("no such topic".to_owned())),
            _ => Err(OutletError::Unavailable("away".to_owned())),
        };
        let scripted = Arc::new(Scripted::default());
        *scripted.answers.lock().unwrap() = script.iter().map(|one| one.iter().map(answer).collect()).collect();
        let mut sum = Sum::default();
        let mut forwarder = Forwarder::new(Arc::clone(&scripted) as Arc<dyn Outlet>, Mode::Structured);
        let outcome = forwarder.post(items(3), &mut sum).await;
        let sent = scripted.sent.lock().unwrap().clone();
        (outcome, sum, sent)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_confirmed_goes_out_again_and_nothing_else_does() {
        let (outcome, sum, sent) = post(&[&["ok", "away", "refused"], &["away"]]).await;
        assert!(outcome.is_ok());
        assert_eq!((sum.accepted, sum.rejected), (2, 1));
        assert_eq!(sent, [vec!["0", "1", "2"], vec!["1"], vec!["1"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_never_answered_or_stays_away_is_given_up() {
        let (outcome, sum, sent) = post(&[&["away", "away", "away"]]).await;
        assert_eq!((outcome.unwrap_err().message.as_str(), sum.accepted, sent.len()), ("away", 0, 1));
        let (outcome, sum, sent) =
            post(&[&["ok", "away", "away"], &["away"; 2], &["away"; 2], &["away"; 2], &["away"; 2]]).await;
        let why = outcome.unwrap_err();
        assert!(why.code == 1 && why.message.starts_with("gave up after 5 tries: away"), "{}", why.message);
        assert_eq!((sum.accepted, sent.len()), (1, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_refuses_a_message_is_there_for_the_others() {
        let (outcome, sum, sent) = post(&[&["refused", "away", "away"]]).await;
        assert!(outcome.is_ok());
        assert_eq!((sum.accepted, sum.rejected, sent.len()), (2, 1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_a_person_can_mend_ends_it_at_once() {
        let (outcome, sum, sent) = post(&[&["ok", "fatal", "fatal"]]).await;
        assert_eq!((outcome.unwrap_err().message.as_str(), sum.accepted, sent.len()), ("no such topic", 1, 1));
    }
}

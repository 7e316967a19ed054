//! Messages to an SQS queue: ten a call, headers as message attributes. To a FIFO queue one call at a time; only if SQS
//! fails for single messages of a call are these sent again behind the others of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::{BatchResultErrorEntry, MessageAttributeValue, SendMessageBatchRequestEntry as Entry};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;

use crate::aws::Identity;
use crate::aws::queue::{self, Caller, Named, Queue};
use crate::aws::trouble::{Class, Trouble};
use crate::outlet::{Outgoing, Outlet, OutletError};

/// Entries of one call (SQS, `SendMessageBatch`).
const CALL_MESSAGES: usize = 10;
/// Bytes of one message, and of all messages of one call: bodies and attributes (SQS quotas, 1 MiB since 2025).
const CALL_BYTES: usize = 1024 * 1024;
/// Attributes of one message (SQS, message metadata); further headers are left out.
const ATTRIBUTES_MAX: usize = 10;
/// Calls at the same time to a standard queue: 10 ms each make some thousand messages a second. To a FIFO queue one,
/// since they would overtake each other.
const CALLS: usize = 4;
/// Tries of ours for what SQS did not take for the moment, each with the SDK's own.
const TRIES: u32 = 3;
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// The group of messages of a FIFO queue that have no key.
const NO_KEY: &str = "owlpost";

/// What the outlet is made with.
#[derive(Clone, Debug)]
pub struct Options {
    pub identity: Identity,
    pub endpoint_url: Option<String>,
    pub queue: Named,
}

/// The outlet of kind `sqs`.
pub struct SqsOutlet {
    caller: Caller,
    queue: Arc<Queue>,
}

/// What a call answered for each message.
type Answered = Vec<(usize, Result<(), Trouble>)>;
/// An answer for each message, if there is one by now.
type Answers = Vec<Option<Result<(), OutletError>>>;

impl SqsOutlet {
    /// Finds the queue.
    ///
    /// # Errors
    /// No region, no queue, no right to look, or nobody answers.
    pub async fn open(options: Options) -> Result<SqsOutlet, OutletError> {
        let endpoint = options.endpoint_url.as_deref();
        let caller = queue::caller(options.identity, endpoint, &options.queue, Duration::ZERO)
            .await
            .map_err(OutletError::Fatal)?;
        let queue = match caller.queue(&options.queue).await {
            Ok(queue) => queue,
            // Whoever may only send may not look: a URL and the name in it say enough.
            Err(Trouble { class: Class::Denied, .. }) if matches!(options.queue, Named::Url(_)) => {
                Queue::unseen(&options.queue)
            }
            Err(trouble) => return Err(refusal(&trouble)),
        };
        Ok(SqsOutlet { caller, queue: Arc::new(queue) })
    }

    /// One call; gives what it answered for each index. If it is refused as a whole, nobody says for which of its entries:
    /// then each goes alone, in order.
    async fn call(caller: Caller, queue: Arc<Queue>, entries: Vec<(usize, Entry)>) -> Answered {
        let alone = if entries.len() > 1 { entries.clone() } else { Vec::new() };
        let answered = SqsOutlet::call_once(&caller, &queue, entries).await;
        let is_refusal = |why: &Trouble| refusal(why) == OutletError::Refused(why.text.clone());
        let whole = answered.iter().all(|(_, result)| result.as_ref().is_err_and(is_refusal));
        if !whole || alone.is_empty() {
            return answered;
        }
        let mut each: Answered = Vec::with_capacity(alone.len());
        for (index, entry) in alone {
            // To a FIFO queue nothing overtakes what is to be sent again.
            let result = match each.last() {
                Some((_, Err(why))) if queue.is_fifo && is_for_later(why) => Err(why.clone()),
                _ => match SqsOutlet::call_once(&caller, &queue, vec![(index, entry)]).await.pop() {
                    Some((_, result)) => result,
                    None => continue,
                },
            };
            each.push((index, result));
        }
        each
    }

    async fn call_once(caller: &Caller, queue: &Queue, entries: Vec<(usize, Entry)>) -> Answered {
        let indexes: Vec<usize> = entries.iter().map(|(index, _)| *index).collect();
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        let call = caller.quick.send_message_batch().queue_url(&queue.url).set_entries(Some(entries));
        match call.send().await {
            Err(error) => {
                let trouble = Trouble::of("sqs:SendMessage", &error);
                indexes.into_iter().map(|index| (index, Err(trouble.clone()))).collect()
            }
            Ok(answer) => {
                let failed: HashMap<&str, &BatchResultErrorEntry> =
                    answer.failed().iter().map(|e| (e.id(), e)).collect();
                let of = |index: usize| match failed.get(index.to_string().as_str()) {
                    None => Ok(()),
                    Some(entry) => {
                        let status = if entry.sender_fault() { 400 } else { 500 };
                        let words = entry.message().unwrap_or_default();
                        Err(Trouble::answered("sqs:SendMessage", entry.code(), words, status))
                    }
                };
                indexes.into_iter().map(|index| (index, of(index))).collect()
            }
        }
    }

    /// All of them once; what may be tried again has no answer after it but the reason.
    async fn round(&self, messages: &[Outgoing], answers: &mut Answers) -> Option<Trouble> {
        let mut calls = Vec::new();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (index, message) in messages.iter().enumerate() {
            if answers[index].is_some() {
                continue;
            }
            let (entry, size) = match entry(index, message, self.queue.is_fifo) {
                Ok(made) => made,
                Err(why) => {
                    answers[index] = Some(Err(OutletError::Refused(why)));
                    continue;
                }
            };
            if entries.len() == CALL_MESSAGES || (bytes + size > CALL_BYTES && !entries.is_empty()) {
                calls.push(std::mem::take(&mut entries));
                bytes = 0;
            }
            bytes += size;
            entries.push((index, entry));
        }
        if !entries.is_empty() {
            calls.push(entries);
        }
        let at_once = if self.queue.is_fifo { 1 } else { CALLS };
        let (mut running, mut calls) = (JoinSet::new(), calls.into_iter());
        let mut last = None;
        loop {
            while running.len() < at_once
                && let Some(entries) = calls.next()
            {
                running.spawn(SqsOutlet::call(self.caller.clone(), Arc::clone(&self.queue), entries));
            }
            let Some(done) = running.join_next().await else { return last };
            let Ok(done) = done else { continue };
            let mut stops = false;
            for (index, result) in done {
                match result {
                    Ok(()) => answers[index] = Some(Ok(())),
                    Err(trouble) if is_for_later(&trouble) => {
                        stops |= self.queue.is_fifo;
                        last = Some(trouble);
                    }
                    Err(trouble) => answers[index] = Some(Err(refusal(&trouble))),
                }
            }
            if stops {
                // What comes behind it would overtake it.
                return last;
            }
        }
    }
}

/// Whether it may be tried again.
fn is_for_later(trouble: &Trouble) -> bool {
    matches!(trouble.class, Class::Throttled | Class::Unavailable)
}

fn refusal(trouble: &Trouble) -> OutletError {
    match trouble.class {
        Class::Throttled | Class::Unavailable => OutletError::Unavailable(trouble.text.clone()),
        Class::NoQueue | Class::Denied | Class::NoCredentials => OutletError::Fatal(trouble.text.clone()),
        Class::Refused | Class::Expired => OutletError::Refused(trouble.text.clone()),
    }
}

/// The entry for a message, and its bytes as SQS counts them.
fn entry(index: usize, message: &Outgoing, is_fifo: bool) -> Result<(Entry, usize), String> {
    let mut entry = Entry::builder().id(index.to_string());
    let mut headers = message.headers.clone();
    let body = match std::str::from_utf8(&message.body) {
        Ok(text) if !text.is_empty() && text.chars().all(is_taken) => text.to_owned(),
        Ok("") => return Err("SQS takes no empty body".into()),
        // Bytes that SQS would not take: as base64, which the source of kind sqs undoes.
        _ => {
            // Another encoding, of what is inside, would hide that it is ours.
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-encoding"));
            headers.insert(0, ("content-encoding".to_owned(), "base64".to_owned()));
            STANDARD.encode(&message.body)
        }
    };
    let mut bytes = body.len();
    headers.retain(|(name, value)| is_name(name) && !value.is_empty() && value.chars().all(is_taken));
    for (name, value) in headers.into_iter().take(ATTRIBUTES_MAX) {
        bytes += name.len() + value.len() + "String".len();
        let attribute = MessageAttributeValue::builder().data_type("String").string_value(value).build();
        entry = entry.message_attributes(name, attribute.map_err(|e| format!("a header can't be sent: {e}"))?);
    }
    if bytes > CALL_BYTES {
        return Err(format!("{bytes} bytes with its headers; SQS takes {CALL_BYTES}"));
    }
    if is_fifo {
        let mut hasher = blake3::Hasher::new();
        for part in message.headers.iter().flat_map(|(n, v)| [n.as_bytes(), v.as_bytes()]).chain([&message.body[..]]) {
            // With its length, so that no two lists of parts look alike.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let key = message.key.as_deref().unwrap_or(NO_KEY);
        entry = entry.message_group_id(group(key)).message_deduplication_id(hasher.finalize().to_hex().as_str());
    }
    let entry = entry.message_body(body).build().map_err(|e| format!("the message can't be sent: {e}"))?;
    Ok((entry, bytes))
}

/// At most 128 letters, digits and punctuation (SQS, `MessageGroupId`); any other key has its hash.
fn group(key: &str) -> String {
    let plain = key.len() <= 128 && !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    if plain { key.to_owned() } else { blake3::hash(key.as_bytes()).to_hex().to_string() }
}

/// SQS takes the characters of XML 1.0.
fn is_taken(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// At most 256 letters, digits, `_`, `-` and `.`, not at either end, nor two in a row; AWS's own prefixes are reserved.
fn is_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let lower = name.to_ascii_lowercase();
    let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
    plain && !dots && (1..=256).contains(&name.len()) && !lower.starts_with("aws.") && !lower.starts_with("amazon.")
}

#[async_trait]
impl Outlet for SqsOutlet {
    fn place(&self) -> String {
        format!("sqs://{}", self.queue.name)
    }

    async fn send(&self, messages: &[Outgoing]) -> Vec<Result<(), OutletError>> {
        let mut answers: Answers = vec![None; messages.len()];
        let mut why = None;
        for round in 0..TRIES {
            if round > 0 {
                tokio::time::sleep(RETRY_WAIT * round).await;
            }
            why = self.round(messages, &mut answers).await;
            if why.is_none() {
                break;
            }
        }
        let unanswered = why.map_or("no answer".to_owned(), |trouble| trouble.text);
        let answer =
            |a: Option<Result<(), OutletError>>| a.unwrap_or(Err(OutletError::Unavailable(unanswered.clone())));
        answers.into_iter().map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(body: &[u8]) -> Outgoing {
        Outgoing { key: None, headers: Vec::new(), body: body.to_vec() }
    }

    #[test]
    fn headers_are_attributes_within_what_sqs_takes() {
        let mut message = outgoing(b"{}");
        message.headers = (0..12).map(|n| (format!("h{n}"), "v".to_owned())).collect();
        message.headers.insert(0, ("not a name".into(), "v".into()));
        message.headers.insert(0, ("empty".into(), String::new()));
        message.headers.insert(0, ("aws.reserved".into(), "v".into()));
        let (entry, bytes) = entry(3, &message, false).unwrap();
        let attributes = entry.message_attributes().unwrap();
        assert_eq!((entry.id(), attributes.len()), ("3", ATTRIBUTES_MAX));
        assert!(attributes.contains_key("h0") && attributes.contains_key("h9"));
        assert_eq!(bytes, 2 + 10 * ("h0v".len() + "String".len()));
        assert_eq!((entry.message_group_id(), entry.message_deduplication_id()), (None, None));
    }

    #[test]
    fn what_sqs_does_not_take_as_text_goes_as_base64() {
        let (entry, _) = entry(0, &outgoing(b"\xff\0"), false).unwrap();
        assert_eq!(entry.message_body(), "/wA=");
        assert_eq!(entry.message_attributes().unwrap()["content-encoding"].string_value(), Some("base64"));
        let zipped = Outgoing { headers: vec![("Content-Encoding".into(), "gzip".into())], ..outgoing(b"\xff\0") };
        let attributes = super::entry(0, &zipped, false).unwrap().0.message_attributes.unwrap();
        assert_eq!((attributes.len(), attributes["content-encoding"].string_value()), (1, Some("base64")));
        assert!(super::entry(0, &outgoing(b""), false).is_err());
        assert!(super::entry(0, &outgoing(&vec![b'x'; CALL_BYTES + 1]), false).is_err());
        assert!(super::entry(0, &outgoing(&vec![b'x'; CALL_BYTES]), false).is_ok());
    }

    #[test]
    fn a_fifo_message_has_its_keys_group_and_is_known_again() {
        let made = |key: Option<&str>, body: &[u8]| {
            let message = Outgoing { key: key.map(str::to_owned), ..outgoing(body) };
            let (entry, _) = entry(0, &message, true).unwrap();
            (entry.message_group_id.unwrap(), entry.message_deduplication_id.unwrap())
        };
        assert_eq!(made(Some("sports"), b"1").0, "sports");
        assert_eq!(made(None, b"1").0, NO_KEY);
        assert_eq!(made(Some("a b"), b"1").0.len(), 64);
        assert_eq!(made(None, b"1").1, made(Some("x"), b"1").1);
        assert_ne!(made(None, b"1").1, made(None, b"2").1);
    }
}

//! What librdkafka has to tell, event by event.
//!
//! `BaseConsumer::poll` of the `rdkafka` crate takes the same events from the same queue, but drops what is needed here:
//! at the end of a partition and in an error it says neither topic nor offset, and it panics at a header whose name is no
//! UTF-8. So the queue is read here, by the functions of librdkafka that `poll` uses too. The only unsafe code of sources.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::kept::Record;

mod ids;
mod notes;

pub(super) use ids::TopicId;
pub(super) use notes::{Note, written};

/// The queue of a consumer. It lives no longer than the consumer.
pub(super) struct Events<'c, C: ConsumerContext> {
    consumer: &'c BaseConsumer<C>,
    queue: NonNull<sys::rd_kafka_queue_t>,
}

/// One event; what it refers to is gone with it.
pub(super) struct Event<'q> {
    event: NonNull<sys::rd_kafka_event_t>,
    _queue: PhantomData<&'q ()>,
}

/// What an event says.
pub(super) enum Told<'e> {
    Message(Fetched<'e>),
    /// All messages of the partition before this offset have been given.
    End {
        topic: String,
        partition: i32,
        offset: i64,
    },
    Failed(Failure),
    Assigned(TopicPartitionList),
    Revoked(TopicPartitionList),
    /// The broker has these offsets.
    Committed(TopicPartitionList),
    /// It does not have these, and why it refused the first.
    NotCommitted(RDKafkaErrorCode, TopicPartitionList),
    Statistics(&'e [u8]),
    /// A line of librdkafka's log: syslog level, facility, text.
    Line(i32, String, String),
    /// The ids of topics that are there, by name; the answer to [`Events::ask_ids`].
    Ids(Vec<(String, TopicId)>),
    /// What the group has committed; the answer to [`Events::ask_notes`].
    Notes(Vec<Note>),
    /// A sign-in by OAUTHBEARER needs a token.
    TokenWanted,
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub code: RDKafkaErrorCode,
    /// Of librdkafka, in English.
    pub text: String,
    pub topic: Option<String>,
    /// Of one partition: librdkafka told it while it fetched. `None`: of the topic as a whole, or of something else.
    pub partition: Option<i32>,
    pub fatal: bool,
}

impl<'c, C: ConsumerContext> Events<'c, C> {
    /// `None`: the consumer has no group, so it has no queue.
    pub fn of(consumer: &'c BaseConsumer<C>) -> Option<Events<'c, C>> {
        // SAFETY: the client is alive as long as the consumer that is borrowed here.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Events { consumer, queue: NonNull::new(queue)? })
    }

    /// Waits no longer than `within`, which has milliseconds.
    pub fn next(&self, within: Duration) -> Option<Event<'_>> {
        let ms = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is ours until drop.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), ms) };
        NonNull::new(event).map(|event| Event { event, _queue: PhantomData })
    }

    /// Whether only the partitions that move are given back; else all are, before they are shared out anew.
    pub fn is_incremental(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
    }

    /// Does what an event of assignment says: takes the partitions, or lets them go. The list is passed on as it came,
    /// since it has more in it than names and numbers (KIP-848 knows topics by id).
    ///
    /// # Errors
    /// librdkafka can't: why.
    pub fn apply(&self, event: &Event<'_>) -> Result<(), String> {
        let client = self.consumer.client().native_ptr();
        let incremental = self.is_incremental();
        // SAFETY: client and event are alive; an error is ours to destroy.
        unsafe {
            let list = sys::rd_kafka_event_topic_partition_list(event.event.as_ptr());
            let is_assigned = sys::rd_kafka_event_error(event.event.as_ptr())
                == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
            if !incremental {
                let code = sys::rd_kafka_assign(client, if is_assigned { list } else { std::ptr::null_mut() });
                return code_of(code).map_or(Ok(()), |code| Err(code.to_string()));
            }
            let error = match is_assigned {
                true => sys::rd_kafka_incremental_assign(client, list),
                false => sys::rd_kafka_incremental_unassign(client, list),
            };
            if error.is_null() {
                return Ok(());
            }
            let why = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            Err(why)
        }
    }

    /// Commits, and waits for nothing: the answer comes as [`Told::Committed`] or [`Told::NotCommitted`].
    /// `BaseConsumer::commit` with `CommitMode::Async` names no queue for the answer, so that nobody hears of a failure.
    ///
    /// # Errors
    /// librdkafka can't ask: there is no group.
    pub fn commit(&self, list: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: client, list and queue live through the call, which copies the list and holds on to the queue itself.
        let code =
            unsafe { sys::rd_kafka_commit_queue(client, list.ptr(), self.queue.as_ptr(), None, std::ptr::null_mut()) };
        code_of(code).map_or(Ok(()), Err)
    }

    /// # Errors
    /// librdkafka refuses the token: why.
    pub fn set_token(&self, token: &str, principal: &str, expires_ms: i64) -> Result<(), String> {
        let c = |text: &str| std::ffi::CString::new(text).map_err(|_| "the token holds a null byte".to_owned());
        let (token, principal) = (c(token)?, c(principal)?);
        let mut why = [0 as c_char; 512];
        // SAFETY: all pointers live through the call; the buffer is as long as said.
        let code = unsafe {
            sys::rd_kafka_oauthbearer_set_token(
                self.consumer.client().native_ptr(),
                token.as_ptr(),
                expires_ms,
                principal.as_ptr(),
                std::ptr::null_mut(),
                0,
                why.as_mut_ptr(),
                why.len(),
            )
        };
        // SAFETY: librdkafka ends its text with a null byte inside of the buffer.
        let why = || unsafe { text(why.as_ptr()) };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(why()) }
    }
}

impl<C: ConsumerContext> Drop for Events<'_, C> {
    fn drop(&mut self) {
        // SAFETY: got in `of`, given back once; the client is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: got from the queue, destroyed once; nothing that borrows from it is left.
        unsafe { sys::rd_kafka_event_destroy(self.event.as_ptr()) }
    }
}

impl Event<'_> {
    pub fn told(&self) -> Told<'_> {
        let event = self.event.as_ptr();
        // SAFETY: each function is called for the kinds of event that it is for, while the event is alive; the texts they
        // give live as long as the event.
        unsafe {
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_FETCH => self.message(),
                sys::RD_KAFKA_EVENT_ERROR => self.failure(),
                sys::RD_KAFKA_EVENT_REBALANCE => {
                    let list = partitions(sys::rd_kafka_event_topic_partition_list(event));
                    match sys::rd_kafka_event_error(event) {
                        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Told::Assigned(list),
                        _ => Told::Revoked(list),
                    }
                }
                sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                    let list = sys::rd_kafka_event_topic_partition_list(event);
                    // An error of the whole request stands at each partition too, except where none was sent.
                    let of_list = elements(list).iter().find_map(|of_partition| code_of(of_partition.err));
                    match of_list.or_else(|| code_of(sys::rd_kafka_event_error(event))) {
                        Some(code) => Told::NotCommitted(code, some_of(list, |e| of_list.is_none() || is_failed(e))),
                        None => Told::Committed(partitions(list)),
                    }
                }
                sys::RD_KAFKA_EVENT_STATS => {
                    let json = sys::rd_kafka_event_stats(event);
                    if json.is_null() { Told::Nothing } else { Told::Statistics(CStr::from_ptr(json).to_bytes()) }
                }
                sys::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                    match sys::rd_kafka_event_log(event, &mut facility, &mut line, &mut level) {
                        0 => Told::Line(level, text(facility), text(line)),
                        _ => Told::Nothing,
                    }
                }
                sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT => Told::Ids(self.ids()),
                sys::RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT => Told::Notes(self.notes()),
                sys::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH => Told::TokenWanted,
                _ => Told::Nothing,
            }
        }
    }

    /// Of an event of messages: librdkafka puts one into each.
    fn message(&self) -> Told<'_> {
        // SAFETY: the message and what it points to live as long as the event.
        unsafe {
            let message = sys::rd_kafka_event_message_next(self.event.as_ptr());
            let Some(message) = message.as_ref() else { return Told::Nothing };
            let topic = || if message.rkt.is_null() { None } else { Some(text(sys::rd_kafka_topic_name(message.rkt))) };
            match code_of(message.err) {
                None => Told::Message(Fetched { message }),
                Some(code) => {
                    let partition = Some(message.partition).filter(|number| *number >= 0);
                    Told::Failed(Failure { code, text: code.to_string(), topic: topic(), partition, fatal: false })
                }
            }
        }
    }

    fn failure(&self) -> Told<'_> {
        let event = self.event.as_ptr();
        // SAFETY: as in `told`; the partition is a copy, which is destroyed here.
        unsafe {
            let at = sys::rd_kafka_event_topic_partition(event);
            let place = at.as_ref().map(|at| (text(at.topic), at.partition, at.offset));
            if !at.is_null() {
                sys::rd_kafka_topic_partition_destroy(at);
            }
            let Some(code) = code_of(sys::rd_kafka_event_error(event)) else { return Told::Nothing };
            match (code, place) {
                (RDKafkaErrorCode::PartitionEOF, Some((topic, partition, offset))) => {
                    Told::End { topic, partition, offset }
                }
                (RDKafkaErrorCode::PartitionEOF, None) => Told::Nothing,
                (code, place) => {
                    let text = text(sys::rd_kafka_event_error_string(event));
                    let of_subscription = subscribed(&text);
                    let partition = place.as_ref().filter(|_| of_subscription.is_none()).map(|(_, number, _)| *number);
                    let partition = partition.filter(|number| *number >= 0);
                    let topic = place.map(|(topic, ..)| topic).or(of_subscription);
                    let fatal = sys::rd_kafka_event_error_is_fatal(event) != 0;
                    Told::Failed(Failure { code, text, topic, partition, fatal })
                }
            }
        }
    }
}

/// A message, as long as its event lives.
#[derive(Clone, Copy)]
pub(super) struct Fetched<'e> {
    message: &'e sys::rd_kafka_message_t,
}

impl Record for Fetched<'_> {
    fn topic(&self) -> &[u8] {
        if self.message.rkt.is_null() {
            return b"";
        }
        // SAFETY: the message keeps its topic alive, and with it the name.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) }.to_bytes()
    }

    fn partition(&self) -> i32 {
        self.message.partition
    }

    fn offset(&self) -> i64 {
        self.message.offset
    }

    fn payload(&self) -> Option<&[u8]> {
        // SAFETY: so many bytes stand there as long as the message lives.
        unsafe { slice(self.message.payload.cast(), self.message.len) }
    }

    fn time_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.message, &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && ms >= 0).then_some(ms)
    }

    /// Names end at a null byte; values may be null.
    fn headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive, and owns its headers.
        let count = unsafe {
            match sys::rd_kafka_message_headers(self.message, &mut headers) {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => sys::rd_kafka_header_cnt(headers),
                _ => 0,
            }
        };
        (0..count).filter_map(move |index| {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: as above; name and value live as long as the headers.
            unsafe {
                match sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) {
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR if !name.is_null() => {
                        Some((CStr::from_ptr(name).to_bytes(), slice(value.cast(), size)))
                    }
                    _ => None,
                }
            }
        })
    }
}

/// # Safety
/// Null, or so many bytes that live as long as the result is used.
unsafe fn slice<'a>(at: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at, len) })
}

/// # Safety
/// Null, or a text that ends with a null byte.
unsafe fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().trim().to_owned()
}

/// An error of a topic as a whole has its name only in its text (`rd_kafka_propagate_consumer_topic_errors`).
fn subscribed(text: &str) -> Option<String> {
    let (topic, _) = text.strip_prefix("Subscribed topic not available: ")?.split_once(": ")?;
    Some(topic.to_owned())
}

/// `None`: no error.
fn code_of(error: sys::rd_kafka_resp_err_t) -> Option<RDKafkaErrorCode> {
    (error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
}

/// # Safety
/// Null, or a list that lives as long as the result is used.
unsafe fn elements<'a>(list: *const sys::rd_kafka_topic_partition_list_t) -> &'a [sys::rd_kafka_topic_partition_t] {
    // SAFETY: the caller's promise; librdkafka keeps `cnt` elements there.
    unsafe {
        match list.as_ref() {
            Some(list) if !list.elems.is_null() => {
                std::slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
            }
            _ => &[],
        }
    }
}

/// A copy, with the offsets that the broker's answer or librdkafka put there.
///
/// # Safety
/// As [`elements`].
unsafe fn partitions(list: *const sys::rd_kafka_topic_partition_list_t) -> TopicPartitionList {
    // SAFETY: the caller's promise.
    unsafe { some_of(list, |_| true) }
}

fn is_failed(element: &sys::rd_kafka_topic_partition_t) -> bool {
    code_of(element.err).is_some()
}

/// # Safety
/// As [`elements`].
unsafe fn some_of(
    list: *const sys::rd_kafka_topic_partition_list_t,
    which: impl Fn(&sys::rd_kafka_topic_partition_t) -> bool,
) -> TopicPartitionList {
    let mut copy = TopicPartitionList::new();
    // SAFETY: the caller's promise.
    for element in unsafe { elements(list) }.iter().filter(|element| which(element)) {
        // SAFETY: an element has a name.
        let topic = unsafe { text(element.topic) };
        // An offset that the list can't hold is one to be looked up.
        if copy.add_partition_offset(&topic, element.partition, Offset::from_raw(element.offset)).is_err() {
            copy.add_partition(&topic, element.partition);
        }
    }
    copy
}

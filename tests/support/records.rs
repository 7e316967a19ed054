//! Messages as a test produces and reads them, and a producer that answers for each of them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message};

use crate::process::{PATIENCE, until};

/// A message. Of one to be sent, `partition` `None` is the key's, or any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub value: Option<Vec<u8>>,
    /// Milliseconds; `None`: now.
    pub timestamp: Option<i64>,
    /// Of one that was read.
    pub offset: i64,
}

impl Record {
    pub fn of(value: impl Into<Vec<u8>>) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Record {
        self.key = Some(key.into());
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Record {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    pub fn to(mut self, partition: i32) -> Record {
        self.partition = Some(partition);
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.value.clone().unwrap()).unwrap()
    }

    pub(super) fn read(message: &impl Message) -> Record {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
        });
        Record {
            partition: Some(message.partition()),
            key: message.key().map(<[u8]>::to_vec),
            headers,
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp().to_millis(),
            offset: message.offset(),
        }
    }
}

/// What the broker said of each message.
#[derive(Default)]
pub struct Told {
    failed: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, told: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = told {
            self.failed.lock().unwrap().push(error.clone());
        }
    }
}

pub struct Producer {
    inner: BaseProducer<Told>,
}

impl Producer {
    pub(super) fn new(config: &ClientConfig) -> Producer {
        Producer { inner: config.create_with_context(Told::default()).unwrap() }
    }

    /// Waits for room while the queue is full, so that a test can produce on while its broker is down.
    pub fn send(&self, topic: &str, record: &Record) {
        until("room in the producer's queue", || {
            let mut next: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
            next.partition = record.partition;
            next.key = record.key.as_deref();
            next.payload = record.value.as_deref();
            next.timestamp = record.timestamp;
            if !record.headers.is_empty() {
                let headers = record
                    .headers
                    .iter()
                    .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_deref() }));
                next = next.headers(headers);
            }
            match self.inner.send(next) {
                Ok(()) => Some(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.inner.poll(Duration::from_millis(10));
                    None
                }
                Err((error, _)) => panic!("{error}"),
            }
        });
        self.inner.poll(Duration::ZERO);
    }

    /// Waits until the broker has confirmed everything.
    pub fn flush(&self) {
        self.inner.flush(PATIENCE).unwrap();
        let failed = self.inner.context().failed.lock().unwrap();
        assert!(failed.is_empty(), "{} messages were not taken, first: {}", failed.len(), failed[0]);
    }

    /// Of a producer with `transactional.id`, before its first transaction.
    pub fn begin_transactions(&self) {
        self.inner.init_transactions(PATIENCE).unwrap();
    }

    /// One transaction with these messages, committed or aborted.
    pub fn transaction(&self, topic: &str, records: &[Record], commits: bool) {
        self.inner.begin_transaction().unwrap();
        for record in records {
            self.send(topic, record);
        }
        self.flush();
        if commits {
            self.inner.commit_transaction(PATIENCE).unwrap();
        } else {
            self.inner.abort_transaction(PATIENCE).unwrap();
        }
    }
}

/// How the batches of a segment are stored, see [`super::Broker::codecs`].
pub(super) fn codecs(segment: &[u8]) -> BTreeSet<u8> {
    let (mut codecs, mut rest) = (BTreeSet::new(), segment);
    // Offset, length of what follows; behind leader's epoch, version and checksum the attributes, whose last bits they are.
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        assert_eq!(rest[16], 2, "a batch of the format that has attributes there");
        codecs.insert(rest[22] & 7);
        rest = &rest[12 + length..];
    }
    codecs
}

//! Apache Kafka (KRaft, one node) as a child process of the test, and what a test asks of a broker: topics, messages,
//! what a group has committed.
//!
//! Listeners: plain text, SASL over TLS (PLAIN, SCRAM-SHA-256 and -512), TLS with client certificates. The certificate
//! names `localhost`, so TLS to `127.0.0.1` is a wrong name.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

#[path = "certificates.rs"]
mod certificates;
#[path = "java.rs"]
mod java;
#[path = "msk.rs"]
mod msk;
#[path = "records.rs"]
mod records;

pub use certificates::{Certificates, certificates};
use java::{Server, jars};
pub use java::{free_ports, unique};
pub use msk::Msk;
pub use records::{Producer, Record};

use crate::process::{PATIENCE, until};

/// Of SASL, with every mechanism.
pub const USER: &str = "owlpost";
pub const PASSWORD: &str = "of-the-tests";

/// Of one call to the broker; the calls are repeated until [`PATIENCE`] is over.
const CALL: Duration = Duration::from_secs(10);

/// Small, quick in rebalances, and nothing made by itself.
const SETTINGS: &str = "
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=3
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=300
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=3000
ssl.keystore.type=PEM
ssl.keystore.location=broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=ca.pem
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
";

pub struct Broker {
    server: Server,
    ports: [u16; 4],
    certificates: Certificates,
}

impl Broker {
    /// The one that the tests of this binary share: topics and groups are theirs alone, faults are not to be made here.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Broker::start)
    }

    /// One of the test's own, which may be killed.
    pub fn start() -> Broker {
        Broker::start_with("")
    }

    /// One with access control: whoever signs in may do what no rule is made for, and who does not is its administrator.
    pub fn guarded() -> Broker {
        Broker::start_with(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n",
        )
    }

    /// One whose SASL over TLS is that of Amazon MSK, for this identity; plain text is open.
    pub fn of_msk(of: &Msk) -> Broker {
        Broker::start_filled(msk::SETTINGS, &|folder| of.fill(folder))
    }

    fn start_with(more: &str) -> Broker {
        Broker::start_filled(more, &|_| {})
    }

    /// `fill`: puts into its folder what `more` names.
    fn start_filled(more: &str, fill: &dyn Fn(&Path)) -> Broker {
        let mut why = String::new();
        // Somebody else may take a port between its being found free and being bound.
        for _ in 0..3 {
            let broker = Broker::prepare(more);
            fill(broker.folder());
            match broker.server.start() {
                Ok(()) => {
                    broker.warm_up();
                    return broker;
                }
                Err(told) => why = told,
            }
        }
        panic!("{why}");
    }

    fn prepare(more: &str) -> Broker {
        let ports @ [plain, controller, sasl, tls] = free_ports();
        let folder = tempfile::Builder::new().prefix("owlpost-kafka-").tempdir().unwrap().keep();
        let certificates = certificates();
        let read = |path| fs::read_to_string(path).unwrap();
        let pem = read(&certificates.key) + &read(&certificates.cert) + &read(&certificates.ca);
        fs::write(folder.join("broker.pem"), pem).unwrap();
        fs::copy(&certificates.ca, folder.join("ca.pem")).unwrap();
        let public = format!("PLAINTEXT://127.0.0.1:{plain},SASL_SSL://localhost:{sasl},SSL://localhost:{tls}");
        // The same names bound: localhost would be an address of IPv6 for some.
        let bound = public.replace("localhost", "127.0.0.1");
        let mut settings = format!(
            "{SETTINGS}{more}log.dirs={}\nlisteners={bound},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={public}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n",
            folder.join("data").display()
        );
        settings += &format!(
            "listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_{USER}=\"{PASSWORD}\";\n"
        );
        fs::write(folder.join("server.properties"), settings).unwrap();

        let args = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "kafka.Kafka", "server.properties"];
        let server = Server::new(folder, jars("kafka"), &args, "Kafka Server started");
        let mut format = server.java();
        // A cluster's id is 16 bytes in base64; the folder's name tells this one from others.
        let id = "b3dscG9zdC10ZXN0cy0xNg";
        format.args(["kafka.tools.StorageTool", "format", "-t", id, "-c", "server.properties"]);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.args(["--add-scram", &format!("{mechanism}=[name={USER},password={PASSWORD}]")]);
        }
        let formatted = format.output().expect("java is installed");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        Broker { server, ports, certificates }
    }

    /// A fresh broker makes the topic of groups' offsets when the first group asks, which takes seconds.
    fn warm_up(&self) {
        let topic = self.topic("warm-up", 1);
        self.committed("warm-up", &topic);
        self.delete_topic(&topic);
    }

    /// `host:port` of plain text.
    pub fn plaintext(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// `host:port` of SASL over TLS.
    pub fn sasl_ssl(&self) -> String {
        format!("localhost:{}", self.ports[2])
    }

    /// `host:port` of TLS that asks for a client certificate.
    pub fn ssl(&self) -> String {
        format!("localhost:{}", self.ports[3])
    }

    /// `ca`: what the broker's certificate is signed by, and what it wants client certificates to be signed by; `cert`
    /// and `key` are one such.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Its data, its settings, its log; gone when it is dropped.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// Of the last start.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// How the batches of partition 0 are stored: 0 as they are, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codecs(&self, topic: &str) -> BTreeSet<u8> {
        let log = self.folder().join("data").join(format!("{topic}-0")).join("00000000000000000000.log");
        records::codecs(&fs::read(log).unwrap())
    }

    /// Of the leader of partition 0, once something was written under it.
    pub fn leader_epoch(&self, topic: &str) -> u32 {
        let file = self.folder().join("data").join(format!("{topic}-0")).join("leader-epoch-checkpoint");
        let text = fs::read_to_string(file).unwrap();
        text.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// On the same data and ports; waits until it is ready.
    pub fn restart(&self) {
        self.server.start().unwrap();
    }

    /// `STOP`: it hangs, and its connections stay. `CONT`: it goes on.
    pub fn signal(&self, name: &str) {
        self.server.signal(name);
    }

    /// A client of the plain listener.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.plaintext()).set("broker.address.family", "v4");
        config
    }

    /// On a thread of its own, since the caller may be inside a runtime.
    fn admin<T: Send>(&self, call: impl AsyncFnOnce(AdminClient<DefaultClientContext>) -> T + Send) -> T {
        let admin = self.client().create().unwrap();
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(call(admin));
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// A new topic whose name begins with `prefix`.
    pub fn topic(&self, prefix: &str, partitions: i32) -> String {
        let name = unique(prefix);
        self.create_topic(&name, partitions, &[]);
        name
    }

    /// `settings`: of the topic, such as `max.message.bytes`.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.admin(async |admin| {
            let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            for (key, value) in settings {
                topic = topic.set(key, value);
            }
            admin.create_topics([&topic], &options()).await.unwrap().remove(0).unwrap();
        });
        // Created is not yet known: a client asking at once may be told that there is none.
        let consumer: BaseConsumer = self.client().create().unwrap();
        until("the topic's partitions", || {
            let found = consumer.fetch_metadata(Some(name), CALL).ok()?;
            let [topic] = found.topics() else { return None };
            let led = topic.partitions().iter().filter(|p| p.leader() >= 0).count();
            (topic.error().is_none() && led == usize::try_from(partitions).unwrap()).then_some(())
        });
    }

    pub fn delete_topic(&self, name: &str) {
        self.admin(async |admin| {
            admin.delete_topics(&[name], &options()).await.unwrap().remove(0).unwrap();
        });
    }

    pub fn add_partitions(&self, name: &str, in_all: usize) {
        self.admin(async |admin| {
            let more = NewPartitions::new(name, in_all);
            admin.create_partitions([&more], &options()).await.unwrap().remove(0).unwrap();
        });
    }

    /// Everything before these offsets is gone, as if its retention were over.
    pub fn delete_records(&self, topic: &str, before: &[i64]) {
        self.admin(async |admin| {
            let mut list = TopicPartitionList::new();
            for (partition, offset) in (0..).zip(before) {
                list.add_partition_offset(topic, partition, Offset::Offset(*offset)).unwrap();
            }
            admin.delete_records(&list, &options()).await.unwrap();
        });
    }

    /// Of partition 0 and on: (first offset, offset of the next message). Markers of transactions count.
    pub fn watermarks(&self, topic: &str) -> Vec<(i64, i64)> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let found = until("the topic", || {
            let found = consumer.fetch_metadata(Some(topic), CALL).ok()?;
            let topic = found.topics().first()?;
            topic.error().is_none().then(|| i32::try_from(topic.partitions().len()).unwrap())
        });
        (0..found).map(|p| until("offsets", || consumer.fetch_watermarks(topic, p, CALL).ok())).collect()
    }

    /// What the group has committed, of partition 0 and on; `None`: nothing.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let partitions = i32::try_from(self.watermarks(topic).len()).unwrap();
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        until("the group's committed offsets", || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(topic, 0, partitions - 1);
            // The answer is dropped before the consumer, which would else wait for ever at its end.
            let found = consumer.committed_offsets(list, CALL).ok()?;
            let offset = |p| match found.find_partition(topic, p)?.offset() {
                Offset::Offset(n) => Some(n),
                _ => None,
            };
            Some((0..partitions).map(offset).collect())
        })
    }

    /// What was committed beside the group's offset of partition 0.
    pub fn note(&self, group: &str, topic: &str) -> String {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        until("the group's note", || {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, 0);
            let found = consumer.committed_offsets(list, CALL).ok()?;
            found.find_partition(topic, 0).map(|element| element.metadata().to_owned())
        })
    }

    /// In the name of the group, which must have no member: offsets and notes of partition 0 and on.
    pub fn commit(&self, group: &str, topic: &str, offsets: &[(i64, &str)]) {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, (offset, note)) in (0..).zip(offsets) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset)).unwrap();
            list.find_partition(topic, partition).unwrap().set_metadata(note);
        }
        // Its last member may still be on its way out.
        until("the group takes its offsets", || consumer.commit(&list, CommitMode::Sync).ok());
    }

    /// How many messages the group has before it, as KEDA counts: ends minus committed.
    pub fn lag(&self, group: &str, topic: &str) -> i64 {
        let committed = self.committed(group, topic);
        let ends = self.watermarks(topic);
        ends.iter().zip(committed).map(|((first, next), at)| next - at.unwrap_or(*first).max(*first)).sum()
    }

    /// Waits until the group has committed everything.
    pub fn until_no_lag(&self, group: &str, topic: &str) {
        until(&format!("group {group} at the end of {topic}"), || (self.lag(group, topic) == 0).then_some(()));
    }

    /// Members of a group of the classic protocol; `None`: it is not stable (nobody is in it, or it rebalances).
    pub fn members(&self, group: &str) -> Option<usize> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let found = consumer.fetch_group_list(Some(group), CALL).ok()?;
        let group = found.groups().first()?;
        (group.state() == "Stable").then(|| group.members().len())
    }

    /// `settings` of librdkafka on top of an idempotent producer's.
    pub fn producer(&self, settings: &[(&str, &str)]) -> Producer {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.max.bytes", "16000000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        Producer::new(&config)
    }

    /// Produces all, and returns when the broker has confirmed them.
    pub fn produce(&self, topic: &str, records: &[Record]) {
        let producer = self.producer(&[]);
        for record in records {
            producer.send(topic, record);
        }
        producer.flush();
    }

    /// All committed messages of a topic, partition by partition.
    pub fn consume(&self, topic: &str) -> Vec<Record> {
        let mut config = self.client();
        // Its offsets are never committed: the group is a formality.
        config.set("group.id", unique("reader")).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.set("auto.offset.reset", "earliest").create().unwrap();
        let mut open: BTreeMap<i32, i64> = (0..).zip(self.watermarks(topic)).map(|(p, (_, next))| (p, next)).collect();
        let mut list = TopicPartitionList::new();
        for partition in open.keys() {
            list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut all = Vec::new();
        let by = Instant::now() + PATIENCE;
        while !open.is_empty() {
            assert!(Instant::now() < by, "{topic} is not read to its end: {open:?} remain");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => all.push(Record::read(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(e)) => panic!("{topic}: {e}"),
                None => {}
            }
        }
        all.sort_by_key(|r| (r.partition, r.offset));
        all
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(CALL)).request_timeout(Some(PATIENCE))
}

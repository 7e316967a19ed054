//! What every Kafka client here is made of, source and outlet alike: brokers, security, and any setting of librdkafka.
//!
//! The rule of security: TLS, unless every broker is on this machine. Whoever wants plain text to another machine writes
//! it down (`security.protocol`).

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

pub mod iam;
mod names;

pub use names::plain;
use names::{Known, canonical, known, twins};

/// What a client does: some settings of librdkafka are for one of the two only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Consumer,
    Producer,
}

/// What a source decides itself, and what to write instead.
const OF_A_SOURCE: [(&str, &str); 16] = [
    ("bootstrap.servers", "write brokers instead"),
    ("metadata.broker.list", "write brokers instead"),
    ("group.id", "write group instead"),
    ("group.instance.id", "write instance_id instead"),
    ("group.protocol", "write protocol instead"),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("enable.partition.eof", "owlpost needs it, to commit what lies behind the last message; leave it out"),
    ("statistics.interval.ms", "owlpost reads the statistics itself; leave it out"),
    ("log.queue", "librdkafka's log is a part of owlpost's; leave it out"),
    ("consume.callback.max.messages", "there is no such callback here; leave it out"),
    ("allow.auto.create.topics", "owlpost makes no topics; leave it out"),
    ("sasl.oauthbearer.config", "tokens are made for MSK only: write iam = true instead"),
];
const COMMITS: &str = "an offset is committed once the store has committed what follows from its message; leave it out";

/// What an outlet decides itself, and what to write instead.
const OF_AN_OUTLET: [(&str, &str); 17] = [
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
    ("acks", CONFIRMED),
    ("request.required.acks", CONFIRMED),
    ("enable.idempotence", CONFIRMED),
    ("enable.gapless.guarantee", CONFIRMED),
    ("transactional.id", "messages go out one by one, not in transactions; leave it out"),
    ("message.timeout.ms", BOUNDED),
    ("delivery.timeout.ms", BOUNDED),
    ("request.timeout.ms", BOUNDED),
    ("queue.buffering.max.messages", BOUNDED),
    ("queue.buffering.max.kbytes", BOUNDED),
    ("delivery.report.only.error", "owlpost waits for the confirmation of each message; leave it out"),
    ("statistics.interval.ms", "nobody reads a producer's statistics here; leave it out"),
    ("log.queue", "librdkafka's log is a part of owlpost's; leave it out"),
    ("allow.auto.create.topics", "owlpost makes no topics; leave it out"),
    ("sasl.oauthbearer.config", "tokens are made for MSK only, by iam = true of the configuration's source"),
];
const BROKERS: &str = "the brokers stand in the URL, kafka://HOST:PORT/TOPIC; leave it out";
const CONFIRMED: &str = "each message is confirmed by all replicas in sync, once; leave it out";
const BOUNDED: &str = "owlpost decides how long and how much it waits; leave it out";

/// What the broker decides with `protocol = "consumer"` (KIP-848); librdkafka refuses to start with them.
const OF_THE_BROKER: [&str; 4] =
    ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"];

/// Everything that is wrong with the properties of a source. `broker_decides`: `protocol = "consumer"`.
pub fn flaws_of_source(cluster: &Cluster, broker_decides: bool) -> Vec<Flaw> {
    let mut owned = OF_A_SOURCE.to_vec();
    if broker_decides {
        owned.extend(
            OF_THE_BROKER.map(|name| (name, "the broker decides this with protocol = \"consumer\"; leave it out")),
        );
    }
    cluster.flaws(Side::Consumer, &owned)
}

/// Everything that is wrong with the properties of an outlet.
pub fn flaws_of_outlet(cluster: &Cluster) -> Vec<Flaw> {
    cluster.flaws(Side::Producer, &OF_AN_OUTLET)
}

/// A cluster and how to sign in there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port` each.
    pub brokers: Vec<String>,
    /// Settings of librdkafka. Names may be written with `_` for `.`, as in a variable of the environment.
    pub properties: BTreeMap<String, String>,
    /// Sign in with an AWS identity (MSK).
    pub iam: bool,
}

/// Properties may be passwords.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("brokers", &self.brokers).field("iam", &self.iam).finish_non_exhaustive()
    }
}

/// A property that can't be used, or should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// As it was written.
    pub property: String,
    pub what: String,
    /// Of a misspelt one: all that librdkafka knows, to find the nearest.
    pub known: Vec<String>,
    pub is_warning: bool,
}

/// Kafka takes no longer name of a topic.
const TOPIC_BYTES: usize = 249;

/// Brokers and topic of `kafka://HOST:PORT[,HOST:PORT]/TOPIC`.
///
/// # Errors
/// What is wrong with it, without the text itself: somebody may have written a password into it.
pub fn address(url: &str) -> Result<(Vec<String>, String), &'static str> {
    let rest = url.strip_prefix("kafka://").ok_or("expected kafka://HOST:PORT/TOPIC")?;
    let (brokers, topic) = rest.split_once('/').ok_or("names no topic; expected kafka://HOST:PORT/TOPIC")?;
    let brokers: Vec<String> = brokers.split(',').map(str::to_owned).collect();
    for broker in &brokers {
        check_broker(broker)?;
    }
    // As Kafka's own Topic.validate has it.
    let of_topic = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > TOPIC_BYTES || !topic.chars().all(of_topic) || matches!(topic, "." | "..") {
        return Err("the topic is no name of Kafka's: 1 to 249 letters, digits, '.', '_' and '-'");
    }
    Ok((brokers, topic.to_owned()))
}

/// `host:port`, `[v6]:port`.
///
/// # Errors
/// What is wrong with it.
pub fn check_broker(broker: &str) -> Result<(), &'static str> {
    let what = "expected HOST:PORT, as in \"broker.example.com:9093\"";
    let (host, port) = broker.rsplit_once(':').ok_or(what)?;
    let bare = host.strip_prefix('[').map_or(host, |host| host.strip_suffix(']').unwrap_or(""));
    let clean = bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c));
    let is_v6 = host.starts_with('[');
    if bare.is_empty() || !clean || (bare.contains(':') && !is_v6) || port.parse::<u16>().is_err() {
        return Err(what);
    }
    Ok(())
}

impl Cluster {
    /// Whether nothing leaves this machine.
    pub fn is_local(&self) -> bool {
        !self.brokers.is_empty() && self.brokers.iter().all(|broker| is_loopback(broker))
    }

    /// `broker.address.family`, unless somebody writes it: `localhost` may be two addresses, and a broker mostly listens to
    /// one. `None`: as librdkafka finds them.
    pub fn address_family(&self) -> Option<&'static str> {
        (self.is_local() && !self.brokers.iter().any(|broker| broker.starts_with('['))).then_some("v4")
    }

    fn property(&self, name: &str) -> Option<&str> {
        // The last one written wins; a variable's name sorts after the file's, since `_` comes after `.`.
        let name = canonical(name);
        self.properties.iter().rev().find(|(key, _)| canonical(key) == name).map(|(_, value)| value.as_str())
    }

    /// `security.protocol` as it applies.
    pub fn protocol(&self) -> String {
        if let Some(given) = self.property("security.protocol") {
            return given.to_ascii_lowercase();
        }
        let signs_in = self.iam || self.property("sasl.mechanism").is_some();
        // Whoever writes one of them means TLS, on this machine too.
        let is_plain = self.is_local() && !self.properties.keys().any(|key| plain(key).starts_with("ssl."));
        match (signs_in, is_plain) {
            (true, _) => "sasl_ssl".to_owned(),
            (false, true) => "plaintext".to_owned(),
            (false, false) => "ssl".to_owned(),
        }
    }

    /// Everything that is wrong with the properties. `owned`: those that something else decides, and what to do instead.
    pub fn flaws(&self, side: Side, owned: &[(&str, &str)]) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        for (key, value) in &self.properties {
            let name = plain(key);
            let mut flaw = |what: String, known: &[Known], is_warning| {
                let known = known.iter().map(|k| k.name.clone()).collect();
                flaws.push(Flaw { property: key.clone(), what, known, is_warning });
            };
            if let Some((_, instead)) = owned.iter().find(|(owned, _)| canonical(owned) == canonical(&name)) {
                flaw((*instead).to_owned(), &[], false);
                continue;
            }
            if self.iam && (name.starts_with("sasl.") || (name == "security.protocol" && value != "sasl_ssl")) {
                flaw("iam = true decides how to sign in; leave this out, or iam".to_owned(), &[], false);
                continue;
            }
            let Some(found) = known().iter().find(|known| known.name == name) else {
                flaw("is no setting of librdkafka".to_owned(), known(), false);
                continue;
            };
            if name.starts_with("sasl.mechanism") && value.eq_ignore_ascii_case("OAUTHBEARER") {
                flaw("tokens are made for MSK only: write iam = true instead".to_owned(), &[], false);
                continue;
            }
            if found.side.is_some_and(|of| of != side) {
                let whose = if side == Side::Consumer { "producers" } else { "consumers" };
                flaw(format!("is a setting of {whose}"), &[], false);
                continue;
            }
            let alone = ClientConfig::from_iter([(name.clone(), value.clone())]);
            if let Err(why) = alone.create_native_config() {
                flaw(reason(&why, &name), &[], false);
                continue;
            }
            if name == "security.protocol" && value.to_ascii_lowercase().contains("plaintext") && !self.is_local() {
                flaw("everything is sent in plain text to another machine, passwords too".to_owned(), &[], true);
            }
            let unchecked = match name.as_str() {
                "enable.ssl.certificate.verification" => {
                    matches!(value.to_ascii_lowercase().as_str(), "false" | "f" | "0")
                }
                "ssl.endpoint.identification.algorithm" => value.eq_ignore_ascii_case("none"),
                _ => false,
            };
            if unchecked && !self.is_local() {
                flaw(
                    "anybody in between can pass for a broker, and reads what is sent, passwords too".to_owned(),
                    &[],
                    true,
                );
            }
        }
        flaws
    }

    /// What all clients have in common, over the defaults that `client` has.
    pub fn apply(&self, client: &mut ClientConfig) {
        client.set("bootstrap.servers", self.brokers.join(","));
        client.set("client.id", "owlpost");
        // The certificates that the system trusts, wherever it keeps them.
        client.set("ssl.ca.location", "probe");
        for (key, value) in &self.properties {
            let name = plain(key);
            // librdkafka would get both names of a setting, in no order.
            for twin in twins(&name) {
                client.remove(twin);
            }
            client.set(name, value.clone());
        }
        let protocol = self.protocol();
        client.set("security.protocol", protocol.clone());
        let unused = !protocol.contains("ssl") || self.property("ssl.ca.pem").is_some();
        if unused && self.property("ssl.ca.location").is_none() {
            client.remove("ssl.ca.location");
        }
        if self.iam {
            client.set("sasl.mechanism", "OAUTHBEARER");
        }
    }
}

/// Names this machine only: nothing else can answer there.
fn is_loopback(broker: &str) -> bool {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// In words without the value: it may be a password.
fn reason(why: &KafkaError, name: &str) -> String {
    match why {
        KafkaError::ClientConfig(_, what, ..) if !is_secret(name) && !what.is_empty() => what.clone(),
        _ => "has a value that librdkafka does not take".to_owned(),
    }
}

/// Whether the setting's value may be a secret, so that not even an error may repeat it.
pub fn is_secret(name: &str) -> bool {
    ["password", "username", "pem", "key", "secret", "token", "config"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(brokers: &[&str], properties: &[(&str, &str)]) -> Cluster {
        Cluster {
            brokers: brokers.iter().map(|b| (*b).to_owned()).collect(),
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            iam: false,
        }
    }

    #[test]
    fn everything_that_leaves_the_machine_is_encrypted_unless_somebody_writes_otherwise() {
        for (brokers, properties, expected) in [
            (&["127.0.0.1:9092"][..], &[][..], "plaintext"),
            (&["localhost:9092", "[::1]:9092"], &[], "plaintext"),
            (&["kafka.example.com:9092"], &[], "ssl"),
            (&["127.0.0.1:9092", "kafka.example.com:9092"], &[], "ssl"),
            (&["127.0.0.1.example.com:9092"], &[], "ssl"),
            (&["127.0.0.1:9092"], &[("sasl.mechanism", "PLAIN")], "sasl_ssl"),
            (&["127.0.0.1:9092"], &[("sasl.mechanisms", "PLAIN")], "sasl_ssl"),
            (&["127.0.0.1:9092"], &[("ssl_ca_location", "ca.pem")], "ssl"),
            (&["kafka.example.com:9092"], &[("security_protocol", "plaintext")], "plaintext"),
        ] {
            assert_eq!(cluster(brokers, properties).protocol(), expected, "{brokers:?} {properties:?}");
        }
    }

    #[test]
    fn a_variable_of_the_environment_wins_over_the_file() {
        let of = cluster(&["k:1"], &[("sasl.password", "file"), ("sasl_password", "variable")]);
        let mut client = ClientConfig::new();
        of.apply(&mut client);
        assert_eq!(client.get("sasl.password"), Some("variable"));
    }

    #[test]
    fn of_two_names_of_a_setting_one_is_handed_on() {
        let of =
            cluster(&["k:1"], &[("max.partition.fetch.bytes", "5"), ("sasl.mechanism", "A"), ("sasl_mechanisms", "B")]);
        let mut client = ClientConfig::new();
        client.set("fetch.message.max.bytes", "1");
        of.apply(&mut client);
        let of_name = |name| client.get(name);
        assert_eq!((of_name("fetch.message.max.bytes"), of_name("max.partition.fetch.bytes")), (None, Some("5")));
        assert_eq!((of_name("sasl.mechanism"), of_name("sasl.mechanisms")), (None, Some("B")));
    }

    #[test]
    fn addresses_of_ipv6_are_not_ruled_out_on_this_machine() {
        assert_eq!(cluster(&["localhost:9092"], &[]).address_family(), Some("v4"));
        assert_eq!(cluster(&["[::1]:9092"], &[]).address_family(), None);
        assert_eq!(cluster(&["kafka.example.com:9092"], &[]).address_family(), None);
    }

    #[test]
    fn checks_that_are_switched_off_are_warned_of_where_somebody_is_in_between() {
        let off = [("enable.ssl.certificate.verification", "false"), ("ssl.endpoint.identification.algorithm", "none")];
        let warned =
            |broker| cluster(&[broker], &off).flaws(Side::Consumer, &[]).iter().filter(|f| f.is_warning).count();
        assert_eq!((warned("kafka.example.com:9093"), warned("127.0.0.1:9093")), (2, 0));
    }

    #[test]
    fn properties_that_cant_be_used_are_told_without_their_values() {
        let of = cluster(
            &["kafka.example.com:9092"],
            &[
                ("sasl.usernme", "joe"),
                ("linger.ms", "5"),
                ("session.timeout.ms", "soon"),
                ("group.id", "x"),
                ("security.protocol", "plaintext"),
                ("fetch.min.bytes", "1"),
            ],
        );
        let flaws = of.flaws(Side::Consumer, &[("group.id", "set group instead")]);
        let told: Vec<(&str, bool)> = flaws.iter().map(|f| (f.property.as_str(), f.is_warning)).collect();
        let expected = [
            ("group.id", false),
            ("linger.ms", false),
            ("sasl.usernme", false),
            ("security.protocol", true),
            ("session.timeout.ms", false),
        ];
        assert_eq!(told, expected);
        assert!(flaws[2].known.contains(&"sasl.username".to_owned()));
        assert!(flaws.iter().all(|f| !f.what.contains("joe")));
    }

    #[test]
    fn brokers_are_host_and_port() {
        for good in ["localhost:9092", "b-1.msk.eu-west-1.amazonaws.com:9098", "[::1]:9092", "10.0.0.1:1"] {
            assert_eq!(check_broker(good), Ok(()), "{good}");
        }
        for bad in ["", "localhost", "kafka://host:9092", "a b:1", "host:99999", ":9092", "::1:9092", "user:pw@host:1"]
        {
            assert!(check_broker(bad).is_err(), "{bad}");
        }
    }
}

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Sends what happened to one access request to Kafka, with kafka-clients: one event binary, one structured.
 *
 * <pre>KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
 *     java -cp … KafkaPlain 4711 user.joe</pre>
 */
public final class KafkaPlain {
    private static final String SOURCE = "access-desk/java-kafka-plain";
    private static final ObjectMapper JSON = new ObjectMapper();

    private static Map<String, Object> settings() {
        return Map.of(
                "bootstrap.servers", System.getenv("KAFKA_BROKERS"),
                "security.protocol", "SASL_SSL",
                "sasl.mechanism", "SCRAM-SHA-512",
                "sasl.jaas.config",
                        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\""
                                + System.getenv("KAFKA_USER") + "\" password=\"" + System.getenv("KAFKA_PASSWORD") + "\";",
                "ssl.truststore.type", "PEM",
                "ssl.truststore.location", System.getenv("KAFKA_CA"),
                // Every replica in sync has it, and a retry neither repeats nor reorders.
                "acks", "all",
                "enable.idempotence", true,
                // How long a message is tried before its delivery is reported as failed.
                "delivery.timeout.ms", 120_000);
    }

    public static void main(String[] args) throws Exception {
        String request = args[0], member = args[1];
        Map<String, Object> asked = Map.of(
                "domain", "sports",
                "collection", Map.of("kind", "role", "name", "writers"),
                "member", member,
                "change", "add",
                "requester", member);
        String topic = System.getenv("KAFKA_TOPIC");
        // The key keeps the events of one domain in order: same key, same partition.
        String key = "sports";
        String now = Instant.now().toString();

        // Binary: attributes are headers, the value is the data alone.
        // The id names what happened, so it is the same when this runs again.
        Map<String, Object> data = with(asked, Map.of("recipients", List.of("user.alice")));
        ProducerRecord<String, byte[]> requested = new ProducerRecord<>(topic, key, JSON.writeValueAsBytes(data));
        requested.headers()
                .add("ce_specversion", "1.0".getBytes(UTF_8))
                .add("ce_id", (request + "-requested").getBytes(UTF_8))
                .add("ce_source", SOURCE.getBytes(UTF_8))
                .add("ce_type", "io.athenz.membership.requested.v1".getBytes(UTF_8))
                .add("ce_time", now.getBytes(UTF_8))
                .add("content-type", "application/json".getBytes(UTF_8));

        // Structured: the value is the whole event, and the header content-type says so.
        Map<String, Object> event = Map.of(
                "specversion", "1.0",
                "id", request + "-decided",
                "source", SOURCE,
                "type", "io.athenz.membership.decided.v1",
                "time", now,
                "data", with(asked, Map.of("decision", "approve", "actor", "user.alice", "recipients", List.of(member))));
        ProducerRecord<String, byte[]> decided = new ProducerRecord<>(topic, key, JSON.writeValueAsBytes(event));
        decided.headers().add("content-type", "application/cloudevents+json; charset=UTF-8".getBytes(UTF_8));

        try (var producer = new KafkaProducer<>(settings(), new StringSerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = List.of(producer.send(requested), producer.send(decided));
            // `send` only queues: an event is there when its future ends without an exception.
            for (Future<RecordMetadata> confirmation : sent) {
                confirmation.get();
            }
        }
    }

    private static Map<String, Object> with(Map<String, Object> data, Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(data);
        all.putAll(more);
        return all;
    }
}

import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.data.PojoCloudEventData;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.KafkaMessageFactory;
import java.net.URI;
import java.time.OffsetDateTime;
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
 * Sends what happened to one access request to Kafka, with the CloudEvents SDK: one event binary, one structured.
 *
 * <pre>KAFKA_BROKERS=broker-1.example.com:9093 KAFKA_TOPIC=athenz-events KAFKA_USER=… KAFKA_PASSWORD=… KAFKA_CA=ca.pem \
 *     java -cp … KafkaSdk 4711 user.joe</pre>
 */
public final class KafkaSdk {
    private static final URI SOURCE = URI.create("access-desk/java-kafka-sdk");
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

        // The id names what happened, so it is the same when this runs again.
        CloudEvent requested = event(
                request + "-requested",
                "io.athenz.membership.requested.v1",
                with(asked, Map.of("recipients", List.of("user.alice"))));
        CloudEvent decided = event(
                request + "-decided",
                "io.athenz.membership.decided.v1",
                with(asked, Map.of("decision", "approve", "actor", "user.alice", "recipients", List.of(member))));

        String topic = System.getenv("KAFKA_TOPIC");
        // The key keeps the events of one domain in order: same key, same partition.
        String key = "sports";
        ProducerRecord<String, byte[]> binary = KafkaMessageFactory.createWriter(topic, key).writeBinary(requested);
        ProducerRecord<String, byte[]> structured =
                KafkaMessageFactory.createWriter(topic, key).writeStructured(decided, new JsonFormat());

        try (var producer = new KafkaProducer<>(settings(), new StringSerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = List.of(producer.send(binary), producer.send(structured));
            // `send` only queues: an event is there when its future ends without an exception.
            for (Future<RecordMetadata> confirmation : sent) {
                confirmation.get();
            }
        }
    }

    private static CloudEvent event(String id, String type, Map<String, Object> data) {
        return CloudEventBuilder.v1()
                .withId(id)
                .withSource(SOURCE)
                .withType(type)
                .withTime(OffsetDateTime.now())
                .withData("application/json", PojoCloudEventData.wrap(data, JSON::writeValueAsBytes))
                .build();
    }

    private static Map<String, Object> with(Map<String, Object> data, Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(data);
        all.putAll(more);
        return all;
    }
}

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.data.PojoCloudEventData;
import io.cloudevents.jackson.JsonFormat;
import java.net.URI;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import software.amazon.awssdk.core.retry.RetryMode;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.services.sqs.SqsClient;
import software.amazon.awssdk.services.sqs.model.SendMessageBatchRequestEntry;
import software.amazon.awssdk.services.sqs.model.SendMessageBatchResponse;

/**
 * Sends what happened to one access request to an SQS queue, with the AWS SDK and the CloudEvents SDK. Region and
 * credentials come as for every AWS tool.
 *
 * <pre>SQS_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/111122223333/owlpost-events java -cp … Sqs 4711 user.joe</pre>
 */
public final class Sqs {
    private static final URI SOURCE = URI.create("access-desk/java-sqs");
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) {
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

        // Throttling, 5xx and lost connections are repeated by the client.
        try (SqsClient sqs = SqsClient.builder()
                .httpClientBuilder(UrlConnectionHttpClient.builder())
                .overrideConfiguration(c -> c.retryStrategy(RetryMode.STANDARD))
                .build()) {
            // Up to 10 messages a call.
            SendMessageBatchResponse answer = sqs.sendMessageBatch(batch -> batch
                    .queueUrl(System.getenv("SQS_QUEUE_URL"))
                    .entries(entry("0", requested), entry("1", decided)));
            // The call succeeds although single messages of it failed.
            if (answer.hasFailed()) {
                throw new IllegalStateException("SQS did not take " + answer.failed());
            }
        }
    }

    /**
     * The body is a structured event. A FIFO queue wants besides messageGroupId (such as the domain) and
     * messageDeduplicationId (such as source and id).
     */
    private static SendMessageBatchRequestEntry entry(String id, CloudEvent event) {
        return SendMessageBatchRequestEntry.builder()
                .id(id)
                .messageBody(new String(new JsonFormat().serialize(event), UTF_8))
                .build();
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

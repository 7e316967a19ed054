import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.data.PojoCloudEventData;
import io.cloudevents.core.message.MessageWriter;
import io.cloudevents.http.HttpMessageFactory;
import io.cloudevents.jackson.JsonFormat;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Sends what happened to one access request to owlpost over HTTP, with the CloudEvents SDK: structured, binary, batch.
 *
 * <pre>OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… java -cp … HttpSdk 4711 user.joe</pre>
 */
public final class HttpSdk {
    private static final URI SOURCE = URI.create("access-desk/java-http-sdk");
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final JsonFormat FORMAT = new JsonFormat();
    private static final HttpClient HTTP =
            HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();

    /** May go better the next time. Any other answer would be the same again. */
    private static final Set<Integer> AGAIN = Set.of(408, 429, 502, 503, 504);

    public static void main(String[] args) throws Exception {
        String request = args[0], member = args[1];
        Map<String, Object> writers = Map.of(
                "domain", "sports", "collection", Map.of("kind", "role", "name", "writers"), "member", member);
        Map<String, Object> asked = with(writers, Map.of("change", "add", "requester", member));

        // The id names what happened, so it is the same when this runs again.
        CloudEvent requested = event(
                request + "-requested",
                "io.athenz.membership.requested.v1",
                with(asked, Map.of("recipients", List.of("user.alice"))));
        CloudEvent decided = event(
                request + "-decided",
                "io.athenz.membership.decided.v1",
                with(asked, Map.of("decision", "approve", "actor", "user.alice", "recipients", List.of(member))));
        CloudEvent added = event(
                request + "-added",
                "io.athenz.membership.added.v1",
                with(writers, Map.of("recipients", List.of(member))));
        CloudEvent oncall = event(
                request + "-oncall",
                "com.example.oncall.started.v1",
                Map.of("team", "sports", "recipients", List.of(member)));

        HttpRequest.Builder structured = request();
        writer(structured).writeStructured(requested, FORMAT);
        post(structured);

        HttpRequest.Builder binary = request();
        writer(binary).writeBinary(decided);
        post(binary);

        // The SDK writes single events; a batch is a JSON array of them, up to 10,000 and 8 MiB.
        ByteArrayOutputStream array = new ByteArrayOutputStream();
        array.write('[');
        array.write(FORMAT.serialize(added));
        array.write(',');
        array.write(FORMAT.serialize(oncall));
        array.write(']');
        post(request()
                .header("Content-Type", "application/cloudevents-batch+json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(array.toByteArray())));
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

    private static HttpRequest.Builder request() {
        return HttpRequest.newBuilder(URI.create(System.getenv("OWLPOST_URL") + "/v1/events"))
                .timeout(Duration.ofSeconds(30))
                .header("Authorization", "Bearer " + System.getenv("OWLPOST_TOKEN"));
    }

    private static MessageWriter<?, Void> writer(HttpRequest.Builder request) {
        return HttpMessageFactory.createWriter(
                request::header, body -> request.POST(HttpRequest.BodyPublishers.ofByteArray(body)));
    }

    private static void post(HttpRequest.Builder request) throws IOException, InterruptedException {
        HttpResponse<String> answer = send(request.build());
        if (answer.statusCode() != 202) { // 400, 401, 413, 415
            throw new IOException("owlpost refused the request: " + answer.statusCode() + " " + answer.body());
        }
        JsonNode rejected = JSON.readTree(answer.body()).get("rejected");
        if (!rejected.isEmpty()) { // the others of the batch are stored
            throw new IOException("owlpost refused events: " + rejected);
        }
    }

    /** Eight attempts at most, as far apart as Retry-After says; repeating is safe, since the ids stay. */
    private static HttpResponse<String> send(HttpRequest request) throws IOException, InterruptedException {
        for (int attempt = 1; ; attempt++) {
            long seconds = Math.min(1L << attempt, 60);
            try {
                HttpResponse<String> answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
                if (!AGAIN.contains(answer.statusCode()) || attempt == 8) {
                    return answer;
                }
                seconds = answer.headers().firstValueAsLong("Retry-After").orElse(seconds);
            } catch (IOException lost) {
                if (attempt == 8) {
                    throw lost;
                }
            }
            Thread.sleep(Duration.ofSeconds(seconds).toMillis());
        }
    }
}

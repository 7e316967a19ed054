import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Sends what happened to one access request to owlpost over HTTP, with the JDK's client: structured, binary and as a batch.
 *
 * <pre>OWLPOST_URL=https://owlpost.example.com OWLPOST_TOKEN=… java -cp … HttpPlain 4711 user.joe</pre>
 */
public final class HttpPlain {
    private static final String SOURCE = "access-desk/java-http-plain";
    private static final ObjectMapper JSON = new ObjectMapper();
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
        Map<String, Object> requested = event(
                request + "-requested",
                "io.athenz.membership.requested.v1",
                with(asked, Map.of("recipients", List.of("user.alice"))));
        Map<String, Object> added = event(
                request + "-added",
                "io.athenz.membership.added.v1",
                with(writers, Map.of("recipients", List.of(member))));
        Map<String, Object> oncall = event(
                request + "-oncall",
                "com.example.oncall.started.v1",
                Map.of("team", "sports", "recipients", List.of(member)));

        // Structured: the event is one JSON document.
        post(Map.of("Content-Type", "application/cloudevents+json"), requested);
        // Binary: attributes are headers, the body is the data alone.
        post(
                Map.of(
                        "ce-specversion", "1.0",
                        "ce-id", request + "-decided",
                        "ce-source", SOURCE,
                        "ce-type", "io.athenz.membership.decided.v1",
                        "ce-time", Instant.now().toString(),
                        "Content-Type", "application/json"),
                with(asked, Map.of("decision", "approve", "actor", "user.alice", "recipients", List.of(member))));
        // Batch: several events in one request, up to 10,000 and 8 MiB.
        post(Map.of("Content-Type", "application/cloudevents-batch+json"), List.of(added, oncall));
    }

    private static Map<String, Object> event(String id, String type, Map<String, Object> data) {
        return Map.of(
                "specversion", "1.0", "id", id, "source", SOURCE, "type", type, "time", Instant.now().toString(),
                "data", data);
    }

    private static Map<String, Object> with(Map<String, Object> data, Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(data);
        all.putAll(more);
        return all;
    }

    private static void post(Map<String, String> headers, Object body) throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(System.getenv("OWLPOST_URL") + "/v1/events"))
                .timeout(Duration.ofSeconds(30))
                .header("Authorization", "Bearer " + System.getenv("OWLPOST_TOKEN"))
                .POST(HttpRequest.BodyPublishers.ofByteArray(JSON.writeValueAsBytes(body)));
        headers.forEach(request::header);
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

import com.yahoo.athenz.auth.PrivateKeyStore;
import com.yahoo.athenz.common.server.notification.Notification;
import com.yahoo.athenz.common.server.notification.NotificationService;
import com.yahoo.athenz.common.server.notification.NotificationServiceFactory;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.StringJoiner;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;

/**
 * Hands every notification of ZMS or ZTS to owlpost, as it is, over HTTP. No library but the server's own and the JDK.
 *
 * <pre>
 * athenz.zms.notification_service_factory_class=OwlpostPlugin
 * OWLPOST_URL=http://owlpost.owlpost:80        without /v1/events
 * OWLPOST_TOKEN_FILE=/run/secrets/owlpost      or OWLPOST_TOKEN
 * </pre>
 *
 * The API's thread only puts it into a queue. A thread of its own sends, again and again until owlpost has stored it, so a
 * restart of owlpost loses nothing. What is still in the queue when this server dies is lost, as it was with any plugin.
 */
public final class OwlpostPlugin implements NotificationServiceFactory {
    @Override
    public NotificationService create(PrivateKeyStore privateKeyStore) {
        return new Sender(System.getenv("OWLPOST_URL"), System.getenv("OWLPOST_TOKEN"), System.getenv("OWLPOST_TOKEN_FILE"));
    }

    private record Letter(String id, String type, String body) {}

    private static final class Sender implements NotificationService, Runnable {
        /** Some megabytes. A day's reminders of a large installation are some thousand. */
        private static final int WAITING_MAX = 10_000;
        /** How long a stop waits for what is in the queue. */
        private static final Duration DRAIN = Duration.ofSeconds(5);
        private static final Duration FIRST_WAIT = Duration.ofSeconds(1), LAST_WAIT = Duration.ofSeconds(60);

        private static final System.Logger LOG = System.getLogger(OwlpostPlugin.class.getName());

        private final BlockingQueue<Letter> waiting = new ArrayBlockingQueue<>(WAITING_MAX);
        private final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        private final URI events;
        private final String token, tokenFile;

        Sender(String url, String token, String tokenFile) {
            if (url == null || url.isBlank()) {
                throw new IllegalStateException("OWLPOST_URL is not set: where owlpost listens, http://owlpost.owlpost:80");
            }
            this.events = URI.create(url.strip().replaceAll("/+$", "") + "/v1/events");
            this.token = token;
            this.tokenFile = tokenFile;
            Thread sender = new Thread(this, "owlpost");
            sender.setDaemon(true);
            sender.start();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                sender.interrupt();
                try {
                    sender.join(DRAIN.plusSeconds(1).toMillis());
                } catch (InterruptedException gone) {
                    Thread.currentThread().interrupt();
                }
            }, "owlpost-drain"));
        }

        @Override
        public boolean notify(Notification notification) {
            if (notification == null) {
                return false;
            }
            // One id for all attempts: owlpost counts copies once.
            String type = String.valueOf(notification.getType());
            boolean kept = waiting.offer(new Letter(UUID.randomUUID().toString(), type, json(notification)));
            if (!kept) {
                LOG.log(System.Logger.Level.ERROR, "owlpost has not answered for long: a notification of type " + type + " is lost");
            }
            return kept;
        }

        @Override
        public void run() {
            Letter letter = null;
            try {
                while (true) {
                    letter = waiting.take();
                    Duration wait = FIRST_WAIT;
                    while (!sent(letter)) {
                        Thread.sleep(wait.toMillis());
                        wait = wait.multipliedBy(2).compareTo(LAST_WAIT) < 0 ? wait.multipliedBy(2) : LAST_WAIT;
                    }
                    letter = null;
                }
            } catch (InterruptedException stopping) {
                drain(letter);
            }
        }

        /** Each once more, as long as the time lasts. `inHand`: left the queue and did not arrive. */
        private void drain(Letter inHand) {
            long until = System.nanoTime() + DRAIN.toNanos();
            int lost = 0;
            for (Letter letter = inHand == null ? waiting.poll() : inHand; letter != null; letter = waiting.poll()) {
                try {
                    lost += System.nanoTime() < until && sent(letter) ? 0 : 1;
                } catch (InterruptedException again) {
                    lost += 1;
                }
            }
            if (lost > 0) {
                LOG.log(System.Logger.Level.ERROR, lost + " notifications were not handed to owlpost before the stop");
            }
        }

        /** False: try again. */
        private boolean sent(Letter letter) throws InterruptedException {
            try {
                HttpRequest.Builder request = HttpRequest.newBuilder(events)
                        .timeout(Duration.ofSeconds(10))
                        .header("Content-Type", "application/json")
                        .header("Idempotency-Key", letter.id())
                        .POST(HttpRequest.BodyPublishers.ofString(letter.body()));
                String bearer = bearer();
                if (bearer != null) {
                    request.header("Authorization", "Bearer " + bearer);
                }
                int status = http.send(request.build(), HttpResponse.BodyHandlers.discarding()).statusCode();
                // 400: owlpost can't read it, and has kept it as a dead letter. The same again would be refused again.
                if (status == 202 || status == 400 || status == 413) {
                    return true;
                }
                LOG.log(System.Logger.Level.WARNING, "owlpost answered " + status + " to a notification of type " + letter.type()
                        + "; tried again");
            } catch (IOException away) {
                LOG.log(System.Logger.Level.WARNING, "owlpost can't be reached at " + events.getAuthority() + "; tried again");
            }
            return false;
        }

        /** Read anew each time, since a secret may be renewed. */
        private String bearer() throws IOException {
            return tokenFile == null ? token : Files.readString(Path.of(tokenFile)).strip();
        }
    }

    private static String json(Notification notification) {
        StringJoiner fields = new StringJoiner(",", "{", "}");
        fields.add("\"type\":" + quoted(String.valueOf(notification.getType())));
        fields.add("\"consolidatedBy\":" + quoted(String.valueOf(notification.getConsolidatedBy())));
        StringJoiner recipients = new StringJoiner(",", "[", "]");
        for (String recipient : notification.getRecipients() == null ? Set.<String>of() : notification.getRecipients()) {
            recipients.add(quoted(recipient));
        }
        fields.add("\"recipients\":" + recipients);
        if (notification.getDetails() != null) {
            StringJoiner details = new StringJoiner(",", "{", "}");
            for (Map.Entry<String, String> detail : notification.getDetails().entrySet()) {
                details.add(quoted(detail.getKey()) + ":" + (detail.getValue() == null ? "null" : quoted(detail.getValue())));
            }
            fields.add("\"details\":" + details);
        }
        return fields.toString();
    }

    /** RFC 8259: the quote, the backslash and control characters must be escaped. */
    private static String quoted(String text) {
        StringBuilder out = new StringBuilder(text.length() + 2).append('"');
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20 || Character.isSurrogate(c)) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }
}

import java.io.IOException;
import java.io.Reader;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/**
 * Lets in whoever Amazon MSK would, as far as a signature tells: whose token is a URL for kafka-cluster:Connect, signed
 * (Signature Version 4) with the key that iam.properties in the broker's folder has, and not over yet.
 */
public class SignedUrls implements AuthenticateCallbackHandler {
    private static final DateTimeFormatter STAMP =
            DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC);

    private final Properties known = new Properties();

    @Override
    public void configure(Map<String, ?> settings, String mechanism, List<AppConfigurationEntry> entries) {
        try (Reader file = Files.newBufferedReader(Path.of("iam.properties"))) {
            known.load(file);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void close() {}

    @Override
    public void handle(Callback[] callbacks) throws UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (callback instanceof OAuthBearerValidatorCallback asked) {
                try {
                    asked.token(read(asked.tokenValue()));
                } catch (IllegalArgumentException | GeneralSecurityException e) {
                    System.out.println("token refused: " + e.getMessage());
                    asked.error("invalid_token", "", "");
                }
            } else if (callback instanceof OAuthBearerExtensionsValidatorCallback asked) {
                asked.inputExtensions().map().keySet().forEach(asked::valid);
            } else {
                throw new UnsupportedCallbackException(callback);
            }
        }
    }

    private OAuthBearerToken read(String token) throws GeneralSecurityException {
        URI url = URI.create(new String(Base64.getUrlDecoder().decode(token), StandardCharsets.UTF_8));
        Map<String, String> query = new TreeMap<>();
        for (String pair : url.getRawQuery().split("&")) {
            String[] halves = pair.split("=", 2);
            check(query.put(halves[0], halves[1]) == null, halves[0] + " stands twice");
        }
        String region = known.getProperty("region");
        String host = "kafka." + region + ".amazonaws.com";
        check("https".equals(url.getScheme()) && host.equals(url.getRawAuthority()), "another host");
        check("kafka-cluster%3AConnect".equals(query.get("Action")), "another action");
        check("AWS4-HMAC-SHA256".equals(query.get("X-Amz-Algorithm")), "another algorithm");
        check("host".equals(query.get("X-Amz-SignedHeaders")), "other headers");
        check(known.getProperty("session").equals(decoded(query.get("X-Amz-Security-Token"))), "another session");

        String stamp = query.get("X-Amz-Date");
        Instant from = Instant.from(STAMP.parse(stamp));
        Instant to = from.plusSeconds(Long.parseLong(query.get("X-Amz-Expires")));
        // MSK takes no longer ones.
        check(Duration.between(from, to).compareTo(Duration.ofMinutes(15)) <= 0, "too long");
        Instant now = Instant.now();
        check(from.minusSeconds(60).isBefore(now) && now.isBefore(to), "not of now");

        String scope = stamp.substring(0, 8) + "/" + region + "/kafka-cluster/aws4_request";
        String key = known.getProperty("key");
        check((key + "/" + scope).equals(decoded(query.get("X-Amz-Credential"))), "another key, day, region or service");
        // Whoever signs adds the client's name afterwards.
        Set<String> unsigned = Set.of("X-Amz-Signature", "User-Agent");
        String signed = query.entrySet().stream()
                .filter(pair -> !unsigned.contains(pair.getKey()))
                .map(pair -> pair.getKey() + "=" + pair.getValue())
                .collect(Collectors.joining("&"));
        String request = String.join("\n", "GET", "/", signed, "host:" + host, "", "host", sha256(""));
        String text = String.join("\n", "AWS4-HMAC-SHA256", stamp, scope, sha256(request));
        byte[] mac = ("AWS4" + known.getProperty("secret")).getBytes(StandardCharsets.UTF_8);
        for (String part : scope.split("/")) {
            mac = hmac(mac, part);
        }
        String signature = HexFormat.of().formatHex(hmac(mac, text));
        check(signature.equals(query.get("X-Amz-Signature")), "another signature");
        return new SignedIn(token, key, from.toEpochMilli(), to.toEpochMilli());
    }

    private static void check(boolean isRight, String otherwise) {
        if (!isRight) {
            throw new IllegalArgumentException(otherwise);
        }
    }

    private static String decoded(String value) {
        check(value != null, "something is missing");
        return java.net.URLDecoder.decode(value.replace("+", "%2B"), StandardCharsets.UTF_8);
    }

    private static String sha256(String text) throws GeneralSecurityException {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    }

    private static byte[] hmac(byte[] key, String text) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    }

    private record SignedIn(String value, String principalName, Long startTimeMs, long lifetimeMs)
            implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }
    }
}

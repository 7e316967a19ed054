import com.yahoo.athenz.common.server.notification.Notification;
import com.yahoo.athenz.common.server.notification.Notification.ConsolidatedBy;
import com.yahoo.athenz.common.server.notification.Notification.Type;
import com.yahoo.athenz.common.server.notification.NotificationService;
import java.util.Map;
import java.util.Set;

/** Does with the plugin what ZMS does: makes the service once, and notifies of each thing twice. */
public final class Zms {
    public static void main(String[] args) throws Exception {
        NotificationService service = new OwlpostPlugin().create(null);
        Map<String, String> request = Map.of(
                "domain", "sports", "role", "readers", "member", "user.joe", "requester", "user.joe",
                "reason", "\"quoted\", a \\ and\na line, \u00fc \ud83e\udd89");
        boolean all = service.notify(new Notification(Type.ROLE_MEMBER_APPROVAL, ConsolidatedBy.PRINCIPAL, Set.of("user.alice"), request));
        all &= service.notify(new Notification(Type.ROLE_MEMBER_APPROVAL, ConsolidatedBy.DOMAIN, Set.of("sports"), request));
        // Athenz's weekly reminder has no details.
        all &= service.notify(new Notification(Type.PENDING_ROLE_APPROVAL, ConsolidatedBy.PRINCIPAL, Set.of("user.alice"), null));
        System.out.println(all ? "all were taken" : "some were lost");
        // The server goes on until it is stopped; then the rest of the queue is sent.
        System.in.read();
    }
}

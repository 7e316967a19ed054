package com.yahoo.athenz.common.server.notification;

import java.util.Map;
import java.util.Set;

/** As much of Athenz's type as the plugin names. */
public record Notification(Type type, ConsolidatedBy consolidatedBy, Set<String> recipients, Map<String, String> details) {
    public enum Type { ROLE_MEMBER_APPROVAL, PENDING_ROLE_APPROVAL }

    public enum ConsolidatedBy { DOMAIN, PRINCIPAL }

    public Type getType() {
        return type;
    }

    public ConsolidatedBy getConsolidatedBy() {
        return consolidatedBy;
    }

    public Set<String> getRecipients() {
        return recipients;
    }

    public Map<String, String> getDetails() {
        return details;
    }
}

package com.yahoo.athenz.common.server.notification;

/** As much of Athenz's type as the plugin names. */
public interface NotificationService {
    boolean notify(Notification notification);
}

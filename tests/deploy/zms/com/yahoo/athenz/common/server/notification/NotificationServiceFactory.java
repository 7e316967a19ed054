package com.yahoo.athenz.common.server.notification;

import com.yahoo.athenz.auth.PrivateKeyStore;

/** As much of Athenz's type as the plugin names. */
public interface NotificationServiceFactory {
    default NotificationService create(PrivateKeyStore privateKeyStore) {
        return null;
    }
}

package com.yahoo.athenz.auth;

/** As much of Athenz's type as the plugin names. */
public interface PrivateKeyStore {}

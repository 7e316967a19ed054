{{/* What makes no sense, each in words that say what to do. All that are found are told at once. (Names, types and the
program's own keys are checked by values.schema.json before; what else the program would refuse, `owlpost check` tells.) */}}

{{- define "owlpost.refusals" -}}
{{- $found := concat
      (include "owlpost.refusals.parts" . | fromJsonArray)
      (include "owlpost.refusals.store" . | fromJsonArray)
      (include "owlpost.refusals.identity" . | fromJsonArray)
      (include "owlpost.refusals.keda" . | fromJsonArray)
      (include "owlpost.refusals.pods" . | fromJsonArray) }}
{{- with $found }}
{{- fail (printf "\n\nThese values make no sense together:\n  - %s\n" (join "\n  - " .)) }}
{{- end }}
{{- end }}

{{/* What every deployment needs. */}}
{{- define "owlpost.refusals.parts" -}}
{{- $no := list }}
{{- $config := .Values.config }}
{{- $mailer := include "owlpost.mailer" . }}
{{- $listen := (default dict $config.http).listen }}
{{- if not $config.source }}
{{- $no = append $no "config.source is empty: name where events come from, as in config.source = [{name: events, kind: http}] (kinds: http, kafka, sqs)" }}
{{- end }}
{{- range default list $config.source }}
{{- if eq (default "" .kind) "file" }}{{ $no = append $no (printf "config.source %q is of kind file: a pod has no file that is read once; publish it with `owlpost publish` to an http source" .name) }}{{ end }}
{{- end }}
{{- if not $mailer }}
{{- $no = append $no "config.mailer.kind is missing: say how mails leave: ses, smtp, or, for a trial, outbox (files on the volume)" }}
{{- end }}
{{- if and (has $mailer (list "ses" "smtp")) (not (default dict $config.recipients).allowed_domains) }}
{{- $no = append $no "config.recipients.allowed_domains is empty: name the domains that may get mail, as in [example.com]; nobody else is ever mailed" }}
{{- end }}
{{- if regexMatch "^(127[.]|\\[::1\\]|localhost)" (default "127.0.0.1:8080" $listen) }}
{{- $no = append $no "config.http.listen is on loopback, where no probe reaches it: use 0.0.0.0:8080, or [::]:8080 in an IPv6 cluster" }}
{{- end }}
{{- if and (include "owlpost.takesPosts" .) (not $config.http.token) (not $config.http.allow_anonymous) }}
{{- $no = append $no "config.source has one of kind http, and anybody in the cluster could publish: set config.http.token to ${OWLPOST_TOKEN} and secrets.env.OWLPOST_TOKEN to a Secret's {name, key}; or config.http.allow_anonymous: true if something in front checks who comes" }}
{{- end }}
{{- $secrets := dict "http.token" (default dict $config.http).token "http.previous_token" (default dict $config.http).previous_token "mailer.password" (default dict $config.mailer).password "store.password" (default dict $config.store).password }}
{{- range default list $config.source }}{{ range $key, $value := default dict .properties }}{{ if hasSuffix "password" $key }}{{ $_ := set $secrets (printf "source.properties.%s" $key) $value }}{{ end }}{{ end }}{{ end }}
{{- range $key, $value := default dict (default dict $config.dead_letters).properties }}{{ if hasSuffix "password" $key }}{{ $_ := set $secrets (printf "dead_letters.properties.%s" $key) $value }}{{ end }}{{ end }}
{{- range $key, $value := $secrets }}
{{- if and $value (not (regexMatch "[$][{]" (toString $value))) }}{{ $no = append $no (printf "config.%s is written out, and everybody who may read ConfigMaps could read it: use ${NAME} with secrets.env, or ${file:/run/secrets/SECRET/KEY} with secrets.files" $key) }}{{ end }}
{{- end }}
{{- if and (not .Values.builtinRoutes) (not $config.route) }}
{{- $no = append $no "builtinRoutes is false and config.route is empty: nobody would hear of anything" }}
{{- end }}
{{- $no | toJson }}
{{- end }}

{{- define "owlpost.refusals.store" -}}
{{- $no := list }}
{{- $values := .Values }}
{{- if include "owlpost.needsVolume" . }}
{{- $what := ternary "SQLite's file has one worker" "the outbox is a folder on one volume" (ne (include "owlpost.sqlite" .) "") }}
{{- $instead := "; more of them need config.store.url: postgres://… and a mailer that sends" }}
{{- if $values.split }}{{ $no = append $no (printf "split is true, but %s%s" $what $instead) }}{{ end }}
{{- if and (not $values.split) (gt (int $values.all.replicas) 1) }}{{ $no = append $no (printf "all.replicas is %d, but %s%s" (int $values.all.replicas) $what $instead) }}{{ end }}
{{- if $values.keda.enabled }}{{ $no = append $no (printf "keda.enabled is true, but %s, and nothing could see from outside what is due in it%s" $what $instead) }}{{ end }}
{{- end }}
{{- if and (include "owlpost.sqlite" .) (ne (default "sqlite:/data/owlpost.db" (default dict $values.config.store).url | trimPrefix "sqlite:" | dir) "/data") }}
{{- $no = append $no "config.store.url is a SQLite file that is not in /data, where the volume is: the ledger would end with the pod" }}
{{- end }}
{{- if and (eq (include "owlpost.mailer" .) "outbox") (not (hasPrefix "/data/" (default "" $values.config.mailer.dir))) }}
{{- $no = append $no "config.mailer.dir is not below /data, the only folder that can be written: use /data/outbox" }}
{{- end }}
{{- if $values.migrations.job }}
{{- if include "owlpost.sqlite" . }}{{ $no = append $no "migrations.job is for PostgreSQL: with SQLite the worker itself migrates its file" }}
{{- else }}
{{- $iam := eq (default "" $values.config.store.auth) "iam" }}
{{- if not (regexMatch "^postgres(ql)?://" $values.config.store.url) }}{{ $no = append $no "migrations.job needs config.store.url written out, postgres://USER@HOST/DATABASE: migrations.user takes the place of USER in it" }}{{ end }}
{{- if not $values.migrations.user }}{{ $no = append $no "migrations.job needs migrations.user: the role that owns the tables" }}{{ end }}
{{- if and $iam (not $values.migrations.serviceAccountName) }}{{ $no = append $no "migrations.job with store.auth = iam needs migrations.serviceAccountName: a ServiceAccount that is there before the release, whose role may connect as migrations.user" }}{{ end }}
{{- if has (default "" $values.migrations.password.name) $values.secrets.files }}{{ $no = append $no (printf "migrations.password is in the Secret %s, which secrets.files gives to the workers as well: they would have the owner's password; put it into a Secret of its own" $values.migrations.password.name) }}{{ end }}
{{- if and (not $iam) (not $values.migrations.password) }}{{ $no = append $no "migrations.job needs migrations.password: {name: SECRET, key: KEY} of migrations.user" }}{{ end }}
{{- end }}
{{- end }}
{{- $no | toJson }}
{{- end }}

{{- define "owlpost.refusals.identity" -}}
{{- $no := list }}
{{- $identity := .Values.identity }}
{{- $aws := include "owlpost.usesAws" . }}
{{- if and $aws (eq $identity.kind "none") }}
{{- $no = append $no "the configuration uses AWS, but identity.kind is none: choose irsa or pod-identity (EKS), web-identity (GKE and others), or static-keys" }}
{{- end }}
{{- if and $aws (not $identity.region) }}{{ $no = append $no "identity.region is empty: without it AWS's clients would ask the machine, as in identity.region: eu-west-1" }}{{ end }}
{{- if and (not $aws) (ne $identity.kind "none") }}{{ $no = append $no (printf "identity.kind is %s, but nothing in the configuration uses AWS" $identity.kind) }}{{ end }}
{{- if and (has $identity.kind (list "irsa" "web-identity")) (not (hasPrefix "arn:" $identity.roleArn)) }}
{{- $no = append $no (printf "identity.kind %s needs identity.roleArn: the ARN of the role whose trust policy names this ServiceAccount" $identity.kind) }}
{{- end }}
{{- if and (has $identity.kind (list "pod-identity" "static-keys")) $identity.roleArn }}
{{- $no = append $no (printf "identity.roleArn has no effect with identity.kind %s: %s" $identity.kind (ternary "the role stands in the cluster's association" "to assume a role, set config.mailer.assume_role_arn" (eq $identity.kind "pod-identity"))) }}
{{- end }}
{{- if and (eq $identity.kind "static-keys") (not $identity.secret) }}
{{- $no = append $no "identity.kind static-keys needs identity.secret: a Secret with the keys access-key-id and secret-access-key" }}
{{- end }}
{{- if and (eq $identity.kind "irsa") (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- $no = append $no "identity.kind irsa with serviceAccount.create false needs serviceAccount.name: the one that has the annotation" }}
{{- end }}
{{- if and (has $identity.kind (list "pod-identity" "web-identity")) (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- $no = append $no (printf "identity.kind %s with serviceAccount.create false needs serviceAccount.name: the one that the role is for" $identity.kind) }}
{{- end }}
{{- $no | toJson }}
{{- end }}

{{- define "owlpost.refusals.keda" -}}
{{- $no := list }}
{{- $keda := .Values.keda }}
{{- if and $keda.enabled (not (include "owlpost.needsVolume" .)) }}
{{- if not (or (include "owlpost.triggers.sources" .) (include "owlpost.triggers.due" .)) }}
{{- $no = append $no "keda.enabled is true, but there is no trigger: it takes a source of kind kafka or sqs, or keda.backlog.enabled with PostgreSQL" }}
{{- end }}
{{- range $role := include "owlpost.roles" . | fromJsonArray }}
{{- $own := index $.Values $role }}
{{- if include "owlpost.scaled" (dict "root" $ "role" $role) }}
{{- if gt (int $own.min) (int $own.max) }}{{ $no = append $no (printf "%s.min (%d) is more than %s.max (%d)" $role (int $own.min) $role (int $own.max)) }}{{ end }}
{{- if and (eq (int $own.min) 0) (ne $role "deliver") (include "owlpost.takesPosts" $) }}
{{- $no = append $no (printf "%s.min is 0, but a source is of kind http: with no pod nobody would take a request, and no trigger would see it; use %s.min: 1" $role $role) }}
{{- end }}
{{- if and (eq (int $own.min) 0) (ne $role "intake") (not (include "owlpost.triggers.due" $)) }}
{{- $no = append $no (printf "%s.min is 0, but keda.backlog is off: nothing would wake a pod for mails that are due; use %s.min: 1, or keda.backlog.enabled: true" $role $role) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (include "owlpost.triggers.due" .) (not (and (default dict $keda.backlog.connection).name (default dict $keda.backlog.connection).key)) }}
{{- $no = append $no "keda.backlog.connection is empty: {name: SECRET, key: KEY} of a connection string for a role that may read owlpost_keda_backlog, with connect_timeout; or keda.backlog.enabled: false" }}
{{- end }}
{{- range $source := default list .Values.config.source }}
{{- if eq (default "" .kind) "kafka" }}
{{- $mechanism := include "owlpost.triggers.mechanism" . }}
{{- range include "owlpost.triggers.topics" (dict "root" $ "source" .) | fromJsonArray }}
{{- if hasPrefix "^" . }}{{ $no = append $no (printf "source %q takes topics by a pattern, which KEDA can't: list them in keda.kafka.topics: {%s: [TOPIC, …]}" $source.name $source.name) }}{{ end }}
{{- end }}
{{- if and $mechanism (not (has $mechanism (list "PLAIN" "SCRAM-SHA-256" "SCRAM-SHA-512"))) }}
{{- $no = append $no (printf "source %q signs in with %s, which this chart can't set up for KEDA: use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or iam, or keda.enabled: false" $source.name $mechanism) }}
{{- else if and $mechanism (not (and (default dict $keda.kafka.auth).username (default dict $keda.kafka.auth).password)) }}
{{- $no = append $no (printf "source %q signs in with %s, and KEDA has to as well: set keda.kafka.auth.username and .password to {name: SECRET, key: KEY}" $source.name $mechanism) }}
{{- end }}
{{- $no = concat $no (include "owlpost.refusals.tls" (dict "source" . "auth" (default dict $keda.kafka.auth)) | fromJsonArray) }}
{{- end }}
{{- range $key, $texts := dict "brokers" .brokers "topics" (include "owlpost.triggers.topics" (dict "root" $ "source" .) | fromJsonArray) "group" (list .group) "queue_url" (list .queue_url) "queue" (list .queue) "region" (list .region) "endpoint_url" (list .endpoint_url) "assume_role_arn" (list .assume_role_arn) "external_id" (list .external_id) }}
{{- $known := has $key (list "brokers" "topics" "group" "queue_url" "queue") }}
{{- if and (regexMatch "[$][{]" (join "," (compact (default list $texts)))) (not (and $known (regexMatch "^[$][{][A-Za-z_][A-Za-z0-9_]*[}]$" (join "," (compact $texts))))) }}
{{- $no = append $no (printf "source %q has a variable in %s, where KEDA would read it as it is written: %s" $source.name $key (ternary "let ${NAME} be all of it, which KEDA looks up in the pod, or write the value out" "write the value out" $known)) }}
{{- end }}
{{- end }}
{{- if and .assume_role_arn (eq $.Values.identity.kind "static-keys") }}
{{- $no = append $no (printf "source %q is read through a role (assume_role_arn), which KEDA can't take on with static keys: use another identity.kind, or keda.enabled: false" .name) }}
{{- end }}
{{- if and .assume_role_arn (eq $keda.aws.identityOwner "workload") }}
{{- $no = append $no (printf "source %q is read through a role (assume_role_arn), which KEDA takes on itself: keda.aws.identityOwner: operator, and let the role's trust policy name KEDA's role, too" .name) }}
{{- end }}
{{- if and (eq (default "" .kind) "sqs") (not (or (include "owlpost.triggers.queueRegion" (dict "root" $ "source" .)))) }}
{{- $no = append $no (printf "source %q has no region that KEDA could ask in: set its region, or identity.region" .name) }}
{{- end }}
{{- end }}
{{- if and (eq $keda.aws.identityOwner "workload") (ne .Values.identity.kind "irsa") }}
{{- $no = append $no "keda.aws.identityOwner workload reads the role from the ServiceAccount's annotation, which only identity.kind irsa has; use operator, or keda.aws.roleArn" }}
{{- end }}
{{- if and $keda.aws.secret (ne .Values.identity.kind "static-keys") }}{{ $no = append $no (printf "keda.aws.secret has no effect with identity.kind %s, where KEDA has a role: leave it out, or use keda.aws.roleArn" .Values.identity.kind) }}{{ end }}
{{- if and (eq $keda.aws.identityOwner "workload") $keda.aws.roleArn }}{{ $no = append $no "keda.aws: identityOwner workload and roleArn exclude each other" }}{{ end }}
{{- end }}
{{- $no | toJson }}
{{- end }}

{{/* {source, auth}: certificates of a Kafka source that KEDA needs as well. The workers have them as files of the pod, KEDA from
Secrets. */}}
{{- define "owlpost.refusals.tls" -}}
{{- $no := list }}
{{- $auth := .auth }}
{{- $properties := default dict .source.properties }}
{{- $has := dict }}
{{- range $key, $value := $properties }}{{ if $value }}{{ $_ := set $has ($key | lower | replace "_" ".") "yes" }}{{ end }}{{ end }}
{{- if and (or (get $has "ssl.ca.location") (get $has "ssl.ca.pem")) (not $auth.ca) }}
{{- $no = append $no (printf "source %q trusts authorities of its own (ssl.ca.…), and KEDA has to as well: set keda.kafka.auth.ca to {name: SECRET, key: KEY}" .source.name) }}
{{- end }}
{{- if and (or (get $has "ssl.certificate.location") (get $has "ssl.certificate.pem") (get $has "ssl.keystore.location")) (not (and $auth.cert $auth.key)) }}
{{- $no = append $no (printf "source %q shows a certificate of its own, and KEDA has to as well: set keda.kafka.auth.cert and .key to {name: SECRET, key: KEY}, in PEM" .source.name) }}
{{- end }}
{{- if and (get $has "ssl.key.password") (not $auth.keyPassword) }}
{{- $no = append $no (printf "source %q has a key with a password, and KEDA needs it as well: set keda.kafka.auth.keyPassword to {name: SECRET, key: KEY}" .source.name) }}
{{- end }}
{{- if eq (toString (get $properties "ssl.endpoint.identification.algorithm")) "none" }}
{{- $no = append $no (printf "source %q does not compare brokers' names with their certificates, which KEDA always does: give the brokers certificates with their names, or keda.enabled: false" .source.name) }}
{{- end }}
{{- if ne (empty $auth.cert) (empty $auth.key) }}{{ $no = append $no "keda.kafka.auth.cert and .key go together" }}{{ end }}
{{- $no | toJson }}
{{- end }}

{{- define "owlpost.refusals.pods" -}}
{{- $no := list }}
{{- if (default dict .Values.config.delivery).drain }}
{{- $no = append $no "config.delivery.drain is set by drainSeconds, from which the pod's grace period follows, too: use drainSeconds" }}
{{- end }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- range $role := include "owlpost.roles" $ | fromJsonArray }}
{{- $least := add (include "owlpost.longestStop" $ | int) (include "owlpost.preStop" (dict "root" $ "role" $role) | int) }}
{{- if lt (int $.Values.terminationGracePeriodSeconds) (int $least) }}
{{- $no = append $no (printf "terminationGracePeriodSeconds is %d, but a stop with drainSeconds %d may take %d s, and mails in flight would be cut off; raise the one or lower the other" (int $.Values.terminationGracePeriodSeconds) (int $.Values.drainSeconds) (int $least)) }}
{{- end }}
{{- end }}
{{- end }}
{{- range list "name" "instance" "component" }}
{{- if hasKey $.Values.podLabels (printf "app.kubernetes.io/%s" .) }}{{ $no = append $no (printf "podLabels has app.kubernetes.io/%s, by which Deployment, Service and NetworkPolicy find their pods: use another label" .) }}{{ end }}
{{- end }}
{{- $places := dict }}
{{- range .Values.secrets.files }}
{{- $place := replace "." "-" . }}
{{- if hasKey $places $place }}{{ $no = append $no (printf "secrets.files has %s and %s, which would be one volume: leave one out, or copy it into a Secret of another name" (get $places $place) .) }}{{ end }}
{{- $_ := set $places $place . }}
{{- end }}
{{- if and (has "aws" .Values.secrets.files) (eq .Values.identity.kind "web-identity") }}{{ $no = append $no "secrets.files has aws, whose files would be in /run/secrets/aws, where the token for AWS is: copy it into a Secret of another name" }}{{ end }}
{{- $places = dict }}
{{- range .Values.configFiles }}
{{- $place := replace "." "-" . }}
{{- if hasKey $places $place }}{{ $no = append $no (printf "configFiles has %s and %s, which would be one volume: leave one out, or copy it into a ConfigMap of another name" (get $places $place) .) }}{{ end }}
{{- $_ := set $places $place . }}
{{- end }}
{{- $variables := dict }}
{{- range include "owlpost.env" (dict "Values" (merge (dict "secrets" (dict "env" nil)) (omit .Values "secrets" "extraEnv")) "Release" .Release "Chart" .Chart) | fromYamlArray }}{{ $_ := set $variables .name "the chart itself" }}{{ end }}
{{- range $name, $_ := .Values.secrets.env }}
{{- if hasKey $variables $name }}{{ $no = append $no (printf "secrets.env has %s, which %s sets: which of the two counts is an accident; use another name" $name (get $variables $name)) }}{{ end }}
{{- $_ := set $variables $name "secrets.env" }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasKey $variables .name }}{{ $no = append $no (printf "extraEnv has %s, which %s sets: which of the two counts is an accident; use another name" .name (get $variables .name)) }}{{ end }}
{{- $_ := set $variables .name "extraEnv" }}
{{- end }}
{{- if .Values.monitoring.rules }}
{{- range (lookup "monitoring.coreos.com/v1" "PrometheusRule" .Release.Namespace "").items }}
{{- $labels := default dict .metadata.labels }}
{{- if and (eq (default "" (get $labels "app.kubernetes.io/name")) (include "owlpost.name" $)) (ne (default "" (get $labels "app.kubernetes.io/instance")) $.Release.Name) }}
{{- $no = append $no (printf "monitoring.rules is true, but the release %s has brought the rules, which are for every owlpost that this Prometheus sees: twice they would record the same and wake twice; use monitoring.rules: false" (get $labels "app.kubernetes.io/instance")) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.extraEgress) }}
{{- range $key, $ports := include "owlpost.places" . | fromJson }}
{{- if has "0" (toStrings $ports) }}{{ $no = append $no (printf "%s has its port in a variable, and the NetworkPolicy would close it: write HOST:PORT out, or open it with networkPolicy.extraEgress: [{ports: [{protocol: TCP, port: PORT}]}]" $key) }}{{ end }}
{{- end }}
{{- end }}
{{- if and .Values.monitoring.rules (not .Values.monitoring.runbook) }}{{ $no = append $no "monitoring.rules is true, but monitoring.runbook is empty, and who is woken at night could follow no alert's link: say where your people read deploy/runbook.md, as in monitoring.runbook: https://git.example.com/owlpost/deploy/runbook.md" }}{{ end }}
{{- if and .Values.monitoring.rules (not (.Files.Get "files/rules.yaml")) }}{{ $no = append $no "monitoring.rules is true, but this copy of the chart has no files/rules.yaml" }}{{ end }}
{{- if and .Values.monitoring.dashboard (not (.Files.Get "files/dashboard.json")) }}{{ $no = append $no "monitoring.dashboard is true, but this copy of the chart has no files/dashboard.json" }}{{ end }}
{{- $no | toJson }}
{{- end }}

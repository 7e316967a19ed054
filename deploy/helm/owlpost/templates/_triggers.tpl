{{/* What KEDA asks, from what the workers read: the same brokers, groups, queues. */}}

{{/* Sources that can be asked how much waits: not empty means there is one. */}}
{{- define "owlpost.triggers.sources" -}}
{{- range default list .Values.config.source }}{{ if has (default "" .kind) (list "kafka" "sqs") }}yes{{ end }}{{ end }}
{{- end }}

{{- define "owlpost.triggers.due" -}}
{{- if and .Values.keda.backlog.enabled (not (include "owlpost.sqlite" .)) }}yes{{ end }}
{{- end }}

{{/* Whether KEDA sets the replicas of {root, role}. */}}
{{- define "owlpost.scaled" -}}
{{- if .root.Values.keda.enabled }}
{{- if and (ne .role "deliver") (include "owlpost.triggers.sources" .root) }}yes{{ end }}
{{- if and (ne .role "intake") (include "owlpost.triggers.due" .root) }}yes{{ end }}
{{- end }}
{{- end }}

{{/* What stands in the Deployment of {root, role}. Where KEDA scales, nothing: a number would be a second hand on the wheel at
each upgrade. But a number that Helm itself set before KEDA came would become 1 when it is left out, so as long as it is Helm's
(or Helm patches instead of applying, and could not leave it alone) it stays what it is in the cluster. */}}
{{- define "owlpost.replicas" -}}
{{- if not (include "owlpost.scaled" .) }}{{ index .root.Values .role "replicas" | int }}
{{- else }}
{{- with lookup "apps/v1" "Deployment" .root.Release.Namespace (include "owlpost.worker" .) }}
{{- $applies := "" }}{{ $ours := "" }}
{{- range .metadata.managedFields }}
{{- if eq (default "" .operation) "Apply" }}
{{- $applies = "yes" }}
{{- if hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas" }}{{ $ours = "yes" }}{{ end }}
{{- end }}
{{- end }}
{{- if or $ours (not $applies) }}{{ int .spec.replicas }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "owlpost.triggers" -}}
{{- if ne .role "deliver" }}
{{- range default list .root.Values.config.source }}
{{- $one := dict "root" $.root "source" . }}
{{- if eq (default "" .kind) "kafka" }}{{ include "owlpost.triggers.kafka" $one }}{{ end }}
{{- if eq (default "" .kind) "sqs" }}{{ include "owlpost.triggers.sqs" $one }}{{ end }}
{{- end }}
{{- end }}
{{- if and (ne .role "intake") (include "owlpost.triggers.due" .root) }}
- type: postgresql
  name: due
  useCachedMetrics: true
  metadata:
    query: SELECT due FROM owlpost_keda_backlog
    targetQueryValue: {{ .root.Values.keda.backlog.target | int | quote }}
    activationTargetQueryValue: "0"
  authenticationRef:
    name: {{ include "owlpost.fullname" .root }}-backlog
{{- end }}
{{- end }}

{{/* The topics of a source as they are called; of patterns, those that the values list. */}}
{{- define "owlpost.triggers.topics" -}}
{{- $listed := get .root.Values.keda.kafka.topics (default "" .source.name) }}
{{- default (default list .source.topics) $listed | toJson }}
{{- end }}

{{- define "owlpost.triggers.mechanism" -}}
{{- $properties := default dict .properties }}
{{- default (default "" (get $properties "sasl.mechanisms")) (get $properties "sasl.mechanism") | upper }}
{{- end }}

{{/* {key, value}: a parameter of KEDA's that may be a variable of the pod; KEDA reads those itself. (A variable inside of a text
is refused: KEDA would take it as it is written.) */}}
{{- define "owlpost.triggers.parameter" -}}
{{- if regexMatch "^[$][{][A-Za-z_][A-Za-z0-9_]*[}]$" .value }}{{ .key }}FromEnv: {{ trimAll "${}" .value }}
{{- else }}{{ .key }}: {{ .value | quote }}
{{- end }}
{{- end }}

{{/* {root, source}: the TriggerAuthentication of a source that signs in at AWS. One that is read through a role of another account
has one of its own: KEDA takes that role on, too. */}}
{{- define "owlpost.triggers.aws" -}}
{{- include "owlpost.fullname" .root }}-aws
{{- if and .source.assume_role_arn (not .root.Values.keda.aws.roleArn) }}
{{- $plain := .source.name | lower | replace "_" "-" | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- /* Two names may be one when they are written as Kubernetes wants them. */}}
{{- if eq $plain .source.name }}-{{ $plain }}{{ else }}-{{ $plain }}-{{ sha256sum .source.name | trunc 6 }}{{ end }}
{{- end }}
{{- end }}

{{- define "owlpost.triggers.kafka" -}}
{{- $keda := .root.Values.keda }}
{{- $source := .source }}
{{- $properties := default dict $source.properties }}
{{- $protocol := default "" (get $properties "security.protocol") | lower }}
{{- $mechanism := include "owlpost.triggers.mechanism" $source }}
{{- range $n, $topic := include "owlpost.triggers.topics" . | fromJsonArray }}
- type: kafka
  name: {{ printf "kafka-%s-%d" $source.name $n }}
  useCachedMetrics: true
  metadata:
    {{ include "owlpost.triggers.parameter" (dict "key" "bootstrapServers" "value" (join "," $source.brokers)) }}
    {{ include "owlpost.triggers.parameter" (dict "key" "consumerGroup" "value" (default "" $source.group)) }}
    # Without it KEDA would count every topic of the group.
    {{ include "owlpost.triggers.parameter" (dict "key" "topic" "value" $topic) }}
    version: {{ $keda.kafka.version | quote }}
    lagThreshold: {{ $keda.kafka.lagThreshold | int | quote }}
    activationLagThreshold: {{ $keda.kafka.activationLagThreshold | int | quote }}
    # As the workers: else a group that never committed would count otherwise here than there.
    offsetResetPolicy: {{ ternary "latest" "earliest" (has (default "" (get $properties "auto.offset.reset")) (list "latest" "largest" "end")) }}
    {{- if $source.iam }}
    sasl: oauthbearer
    saslTokenProvider: aws_msk_iam
    awsRegion: {{ default $.root.Values.identity.region $source.region | quote }}
    {{- else if $mechanism }}
    sasl: {{ get (dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") $mechanism }}
    {{- end }}
    tls: {{ ternary "disable" "enable" (has $protocol (list "plaintext" "sasl_plaintext")) }}
    {{- if eq (toString (get $properties "enable.ssl.certificate.verification")) "false" }}
    # As the workers: whoever answers is believed.
    unsafeSsl: "true"
    {{- end }}
  {{- if $source.iam }}
  authenticationRef:
    name: {{ include "owlpost.triggers.aws" (dict "root" $.root "source" $source) }}
  {{- else if $keda.kafka.auth }}
  authenticationRef:
    name: {{ include "owlpost.fullname" $.root }}-kafka
  {{- end }}
{{- end }}
{{- end }}

{{/* A queue's ARN has its URL in it; a name is taken by KEDA as it is. */}}
{{- define "owlpost.triggers.queue" -}}
{{- if .queue_url }}{{ .queue_url }}
{{- else if hasPrefix "arn:" (default "" .queue) }}
{{- $arn := splitList ":" .queue }}
{{- printf "https://sqs.%s.%s/%s/%s" (index $arn 3) (ternary "amazonaws.com.cn" "amazonaws.com" (eq (index $arn 1) "aws-cn")) (index $arn 4) (index $arn 5) }}
{{- else }}{{ .queue }}
{{- end }}
{{- end }}

{{- define "owlpost.triggers.queueRegion" -}}
{{- if .source.region }}{{ .source.region }}
{{- else if hasPrefix "arn:" (default "" .source.queue) }}{{ index (splitList ":" .source.queue) 3 }}
{{- else if regexMatch "^https://sqs[.-][a-z0-9-]+[.]" (default "" .source.queue_url) }}{{ index (splitList "." .source.queue_url) 1 }}
{{- else }}{{ .root.Values.identity.region }}
{{- end }}
{{- end }}

{{- define "owlpost.triggers.sqs" -}}
{{- $sqs := .root.Values.keda.sqs }}
- type: aws-sqs-queue
  name: {{ printf "sqs-%s" .source.name }}
  useCachedMetrics: true
  metadata:
    {{ include "owlpost.triggers.parameter" (dict "key" "queueURL" "value" (include "owlpost.triggers.queue" .source)) }}
    awsRegion: {{ include "owlpost.triggers.queueRegion" . | quote }}
    queueLength: {{ $sqs.queueLength | int | quote }}
    activationQueueLength: {{ $sqs.activationQueueLength | int | quote }}
    # What a worker has received and not yet deleted keeps it alive.
    scaleOnInFlight: "true"
    scaleOnDelayed: "false"
    {{- with .source.endpoint_url }}
    awsEndpoint: {{ . | quote }}
    {{- end }}
  authenticationRef:
    name: {{ include "owlpost.triggers.aws" . }}
{{- end }}

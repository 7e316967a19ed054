{{/* The configuration that the workers read, and what follows from it. */}}

{{/* config as the workers get it, as JSON: the user's, with what the chart decides. */}}
{{- define "owlpost.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $http := default dict $config.http }}
{{- if not (include "owlpost.takesPosts" .) }}
{{- /* Nothing can be posted: there are only probes and metrics, which need no token. */ -}}
{{- $http = merge (dict "allow_anonymous" true) $http }}
{{- end }}
{{- $_ := set $config "http" $http }}
{{- $delivery := merge (dict "drain" (printf "%ds" (int .Values.drainSeconds))) (default dict $config.delivery) }}
{{- $_ := set $config "delivery" $delivery }}
{{- if .Values.migrations.job }}
{{- $_ := set $config "store" (merge (dict "migrate" false) (default dict $config.store)) }}
{{- end }}
{{- if .Values.people }}
{{- $people := list (dict "kind" "file" "path" "/etc/owlpost/people/people.toml") }}
{{- $_ := set $config "directory" (concat $people (default list $config.directory)) }}
{{- end }}
{{- $config | toRawJson }}
{{- end }}

{{- define "owlpost.config.files" -}}
{{- if .Values.builtinRoutes }}
routes.toml: |
  {{- .Files.Get "files/routes.toml" | nindent 2 }}
{{- end }}
owlpost.toml: |
  {{- include "owlpost.toml" (include "owlpost.config" . | fromJson) | trim | nindent 2 }}
{{- end }}

{{/* Later files win. */}}
{{- define "owlpost.config.paths" -}}
{{ if .Values.builtinRoutes }}/etc/owlpost/config/routes.toml:{{ end }}/etc/owlpost/config/owlpost.toml
{{- end }}

{{/* Facts: not empty means yes. */}}

{{- define "owlpost.sqlite" -}}
{{- if hasPrefix "sqlite:" (default "sqlite:" (default dict .Values.config.store).url) }}yes{{ end }}
{{- end }}

{{- define "owlpost.mailer" -}}
{{- default "" (default dict .Values.config.mailer).kind }}
{{- end }}

{{/* A folder of its own has one writer, too. */}}
{{- define "owlpost.needsVolume" -}}
{{- if or (include "owlpost.sqlite" .) (eq (include "owlpost.mailer" .) "outbox") }}yes{{ end }}
{{- end }}

{{- define "owlpost.takesPosts" -}}
{{- range default list .Values.config.source }}{{ if eq (default "" .kind) "http" }}yes{{ end }}{{ end }}
{{- end }}

{{- define "owlpost.usesAws" -}}
{{- $config := .Values.config }}
{{- if eq (include "owlpost.mailer" .) "ses" }}yes{{ end }}
{{- if eq (default "" (default dict $config.store).auth) "iam" }}yes{{ end }}
{{- range default list $config.source }}{{ if or (eq (default "" .kind) "sqs") .iam }}yes{{ end }}{{ end }}
{{- $letters := default dict $config.dead_letters }}
{{- if or $letters.iam (regexMatch "^(sqs|https?)://" (default "" $letters.forward_to)) }}yes{{ end }}
{{- end }}

{{- define "owlpost.port" -}}
{{- regexFind "[0-9]+$" (default "0.0.0.0:8080" (default dict .Values.config.http).listen) }}
{{- end }}

{{- define "owlpost.roles" -}}
{{- if .Values.split }}{{ list "intake" "deliver" | toJson }}{{ else }}{{ list "all" | toJson }}{{ end }}
{{- end }}

{{/* The fewest pods of a role {root, role} that are there when nothing goes wrong. */}}
{{- define "owlpost.fewest" -}}
{{- $worker := index .root.Values .role }}
{{- if include "owlpost.scaled" . }}{{ $worker.min }}{{ else }}{{ $worker.replicas }}{{ end }}
{{- end }}

{{/* What a stop may take: each of the three groups of loops has its drain time and 5 s to spare (app::longest_stop). */}}
{{- define "owlpost.longestStop" -}}
{{- mul 3 (add .Values.drainSeconds 5) }}
{{- end }}

{{/* Looks, 2 s apart, that a start may take until it answers: what connecting may take, and, where workers migrate, what that may
(app::longest_start). */}}
{{- define "owlpost.startFailures" -}}
{{- if .Values.migrations.job }}150{{ else }}1050{{ end }}
{{- end }}

{{/* Where posts come in, a pod leaves its Service before it stops to answer. */}}
{{- define "owlpost.preStop" -}}
{{- if and (include "owlpost.takesPosts" .root) (ne .role "deliver") }}5{{ else }}0{{ end }}
{{- end }}

{{- define "owlpost.grace" -}}
{{- $least := add (include "owlpost.longestStop" .root | int) (include "owlpost.preStop" . | int) }}
{{- with .root.Values.terminationGracePeriodSeconds }}{{ int . }}{{ else }}{{ add $least 5 }}{{ end }}
{{- end }}

{{/* Ports that the configuration makes the workers speak to. Where they are is the network's to know: no address is fixed. */}}

{{/* {urls, usual}: the ports of every host of a list of URLs or HOST:PORTs, as JSON; `usual` where none is named, 0 where only a
variable knows it. */}}
{{- define "owlpost.ports" -}}
{{- $usual := .usual }}
{{- $ports := list }}
{{- range .urls }}
{{- /* Several hosts may stand in one URL, which Go's own reader of URLs does not take. */ -}}
{{- /* Variables, which may have any character in them, are one word here. */ -}}
{{- $url := regexReplaceAll "[$][{][^}]*[}]" . "VARIABLE" }}
{{- /* A host that a variable names has the usual port; but brokers' names never come without one. */ -}}
{{- $named := and (contains "://" $url) (not (hasPrefix "kafka:" $url)) }}
{{- range regexReplaceAll "^([a-z0-9+]+://)?([^@/]*@)?([^/?]*).*$" $url "${3}" | splitList "," }}
{{- if or (hasSuffix ":VARIABLE" .) (and (eq . "VARIABLE") (not $named)) }}{{ $ports = append $ports 0 }}
{{- else }}{{ $ports = append $ports (default $usual (regexFind ":[0-9]+$" . | trimPrefix ":") | int) }}
{{- end }}
{{- end }}
{{- end }}
{{- $ports | toJson }}
{{- end }}

{{/* Every place that the configuration names: its key, its ports as above. */}}
{{- define "owlpost.places" -}}
{{- $config := .Values.config }}
{{- $mailer := default dict $config.mailer }}
{{- $letters := default dict $config.dead_letters }}
{{- $places := dict }}
{{- if include "owlpost.usesAws" . }}{{ $_ := set $places "AWS" (list 443) }}{{ end }}
{{- if not (include "owlpost.sqlite" .) }}
{{- $_ := set $places "config.store.url" (include "owlpost.ports" (dict "urls" (list $config.store.url) "usual" 5432) | fromJsonArray) }}
{{- end }}
{{- $signIn := "sasl.oauthbearer.token.endpoint.url" }}
{{- $endpoints := dict "config.mailer.endpoint_url" $mailer.endpoint_url "config.dead_letters.endpoint_url" $letters.endpoint_url }}
{{- $_ := set $endpoints (printf "config.dead_letters.properties.%s" $signIn) (get (default dict $letters.properties) $signIn) }}
{{- range default list $config.source }}
{{- $of := printf "config.source %q: " (default "" .name) }}
{{- $_ := set $places (print $of "brokers") (include "owlpost.ports" (dict "urls" (default list .brokers) "usual" 9092) | fromJsonArray) }}
{{- $_ := set $endpoints (print $of "endpoint_url") .endpoint_url }}
{{- $_ := set $endpoints (print $of "properties." $signIn) (get (default dict .properties) $signIn) }}
{{- /* A queue whose URL is a variable's is AWS's, at its usual port. */ -}}
{{- if not (hasPrefix "${" (default "" .queue_url)) }}{{ $_ := set $endpoints (print $of "queue_url") .queue_url }}{{ end }}
{{- end }}
{{- if eq (default "" $mailer.kind) "smtp" }}
{{- $usual := get (dict "implicit" 465 "none" 25 "starttls" 587) (default "starttls" $mailer.tls) }}
{{- $_ := set $places "config.mailer.port" (list (default $usual $mailer.port | int)) }}
{{- end }}
{{- with $letters.forward_to }}
{{- $usual := ternary 9092 (ternary 80 443 (hasPrefix "http:" .)) (hasPrefix "kafka:" .) }}
{{- $_ := set $places "config.dead_letters.forward_to" (include "owlpost.ports" (dict "urls" (list .) "usual" $usual) | fromJsonArray) }}
{{- end }}
{{- range $key, $url := $endpoints }}
{{- if $url }}
{{- $url = toString $url }}
{{- $usual := ternary 80 443 (hasPrefix "http:" $url) }}
{{- $_ := set $places $key (include "owlpost.ports" (dict "urls" (list $url) "usual" $usual) | fromJsonArray) }}
{{- end }}
{{- end }}
{{- $places | toJson }}
{{- end }}

{{- define "owlpost.egressPorts" -}}
{{- $once := dict }}
{{- range include "owlpost.places" . | fromJson }}
{{- range . }}{{ if int . }}{{ $_ := set $once (printf "%05d" (int .)) (int .) }}{{ end }}{{ end }}
{{- end }}
{{- $sorted := list }}
{{- range $once }}{{ $sorted = append $sorted . }}{{ end }}
{{- $sorted | toJson }}
{{- end }}

{{/* Where pods of this release may go: rules of a NetworkPolicy. */}}
{{- define "owlpost.egress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- with include "owlpost.egressPorts" . | fromJsonArray }}
- ports:
    {{- range . }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}
{{- if eq .Values.identity.kind "pod-identity" }}
# The agent of EKS Pod Identity, on each node.
- to:
    - ipBlock: {cidr: 169.254.170.23/32}
    - ipBlock: {cidr: "fd00:ec2::23/128"}
  ports:
    - {protocol: TCP, port: 80}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

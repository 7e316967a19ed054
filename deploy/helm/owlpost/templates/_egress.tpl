{{/* Ports that the configuration makes the workers speak to. Where they are is the network's to know: no address is fixed. */}}

{{/* {urls, usual}: the ports of every host of a list of URLs or HOST:PORTs, as JSON; `usual` where none is named. */}}
{{- define "owlpost.ports" -}}
{{- $usual := .usual }}
{{- $ports := list }}
{{- range .urls }}
{{- /* Several hosts may stand in one URL, which Go's own reader of URLs does not take. */ -}}
{{- range regexReplaceAll "^([a-z0-9+]+://)?([^@/]*@)?([^/?]*).*$" . "${3}" | splitList "," }}
{{- $ports = append $ports (default $usual (regexFind ":[0-9]+$" . | trimPrefix ":") | int) }}
{{- end }}
{{- end }}
{{- $ports | toJson }}
{{- end }}

{{- define "owlpost.egressPorts" -}}
{{- $config := .Values.config }}
{{- $mailer := default dict $config.mailer }}
{{- $letters := default dict $config.dead_letters }}
{{- $ports := list }}
{{- if include "owlpost.usesAws" . }}{{ $ports = append $ports 443 }}{{ end }}
{{- if not (include "owlpost.sqlite" .) }}
{{- $ports = concat $ports (include "owlpost.ports" (dict "urls" (list $config.store.url) "usual" 5432) | fromJsonArray) }}
{{- end }}
{{- $endpoints := list $mailer.endpoint_url $letters.endpoint_url }}
{{- range default list $config.source }}
{{- $ports = concat $ports (include "owlpost.ports" (dict "urls" (default list .brokers) "usual" 9092) | fromJsonArray) }}
{{- $endpoints = append $endpoints .endpoint_url }}
{{- end }}
{{- if eq (default "" $mailer.kind) "smtp" }}
{{- $usual := get (dict "implicit" 465 "none" 25 "starttls" 587) (default "starttls" $mailer.tls) }}
{{- $ports = append $ports (default $usual $mailer.port | int) }}
{{- end }}
{{- with $letters.forward_to }}
{{- $usual := ternary 9092 443 (hasPrefix "kafka:" .) }}
{{- $ports = concat $ports (include "owlpost.ports" (dict "urls" (list .) "usual" $usual) | fromJsonArray) }}
{{- end }}
{{- range compact $endpoints }}
{{- $usual := ternary 80 443 (hasPrefix "http:" .) }}
{{- $ports = concat $ports (include "owlpost.ports" (dict "urls" (list .) "usual" $usual) | fromJsonArray) }}
{{- end }}
{{- $once := dict }}
{{- range $ports }}{{ $_ := set $once (printf "%05d" (int .)) (int .) }}{{ end }}
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

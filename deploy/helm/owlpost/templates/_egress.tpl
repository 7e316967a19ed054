{{/* Ports that the configuration makes the workers speak to. Where they are is the network's to know: no address is fixed. */}}

{{- define "owlpost.egressPorts" -}}
{{- $config := .Values.config }}
{{- $ports := list }}
{{- $urls := list }}
{{- if include "owlpost.usesAws" . }}{{ $ports = append $ports 443 }}{{ end }}
{{- if not (include "owlpost.sqlite" .) }}
{{- $host := (urlParse $config.store.url).host }}
{{- $ports = append $ports (default "5432" (regexFind ":[0-9]+$" $host | trimPrefix ":") | int) }}
{{- end }}
{{- range default list $config.source }}
{{- range default list .brokers }}{{ $ports = append $ports (default "9092" (regexFind ":[0-9]+$" . | trimPrefix ":") | int) }}{{ end }}
{{- with .endpoint_url }}{{ $urls = append $urls . }}{{ end }}
{{- end }}
{{- with (default dict $config.mailer) }}
{{- if eq (default "" .kind) "smtp" }}
{{- $usual := get (dict "implicit" 465 "none" 25 "starttls" 587) (default "starttls" .tls) }}
{{- $ports = append $ports (default $usual .port | int) }}
{{- end }}
{{- with .endpoint_url }}{{ $urls = append $urls . }}{{ end }}
{{- end }}
{{- with (default dict $config.dead_letters) }}
{{- with .forward_to }}
{{- range splitList "," (urlParse .).host }}
{{- $ports = append $ports (default (ternary "9092" "443" (hasPrefix "kafka:" $config.dead_letters.forward_to)) (regexFind ":[0-9]+$" . | trimPrefix ":") | int) }}
{{- end }}
{{- end }}
{{- with .endpoint_url }}{{ $urls = append $urls . }}{{ end }}
{{- end }}
{{- range $urls }}
{{- $usual := ternary "80" "443" (hasPrefix "http:" .) }}
{{- $ports = append $ports (default $usual (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":") | int) }}
{{- end }}
{{- $sorted := dict }}
{{- range $ports }}{{ $_ := set $sorted (printf "%05d" .) . }}{{ end }}
{{- $once := list }}
{{- range $sorted }}{{ $once = append $once . }}{{ end }}
{{- $once | toJson }}
{{- end }}

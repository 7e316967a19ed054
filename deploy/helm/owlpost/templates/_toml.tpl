{{/* Values as TOML. Helm's own toToml writes whole numbers as 10.0, which is no count. */}}

{{- define "owlpost.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ . | toRawJson }}{{ end }}
{{- end }}

{{- define "owlpost.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}{{ if not $first }},{{ end }} {{ include "owlpost.toml.key" $key }} = {{ include "owlpost.toml.value" $value }}{{ $first = false }}{{ end }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $n, $value := . }}{{ if $n }}, {{ end }}{{ include "owlpost.toml.value" $value }}{{ end }}]
{{- else if kindIs "string" . -}}
{{ . | toRawJson }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end }}
{{- end }}

{{- define "owlpost.toml.table" -}}
{{- range $key, $value := . }}{{ if not (kindIs "invalid" $value) }}
{{ include "owlpost.toml.key" $key }} = {{ include "owlpost.toml.value" $value }}
{{- end }}{{ end }}
{{- end }}

{{/* A whole document: plain keys, then sections, then lists of sections in their order. */}}
{{- define "owlpost.toml" -}}
{{- $plain := dict }}{{ $sections := dict }}{{ $lists := dict }}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}{{ $_ := set $sections $key $value }}
{{- else if kindIs "slice" $value }}{{ $_ := set $lists $key $value }}
{{- else }}{{ $_ := set $plain $key $value }}
{{- end }}
{{- end }}
{{- include "owlpost.toml.table" $plain | trim }}
{{- range $key, $value := $sections }}

[{{ $key }}]
{{- include "owlpost.toml.table" $value }}
{{- end }}
{{- range $key, $entries := $lists }}{{ range $entries }}

[[{{ $key }}]]
{{- include "owlpost.toml.table" . }}
{{- end }}{{ end }}
{{- end }}

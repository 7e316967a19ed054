{{/* Names and labels. A ScaledObject's name has at most 54 characters, and ours end in "-deliver" at most. */}}

{{- define "owlpost.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 46 | trimSuffix "-" }}
{{- end }}

{{- define "owlpost.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else if contains (include "owlpost.name" .) .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "owlpost.name" .) | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of one worker: {root, role}. */}}
{{- define "owlpost.worker" -}}
{{- $name := include "owlpost.fullname" .root }}
{{- if eq .role "all" }}{{ $name }}{{ else }}{{ $name }}-{{ .role }}{{ end }}
{{- end }}

{{- define "owlpost.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "owlpost.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "owlpost.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "owlpost.selector" -}}
app.kubernetes.io/name: {{ include "owlpost.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "owlpost.labels" -}}
{{ include "owlpost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

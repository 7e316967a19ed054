{{/* What all pods of the release have in common: workers, checks, migrations. */}}

{{- define "owlpost.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "owlpost.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "owlpost.env" -}}
- name: OWLPOST_CONFIG
  value: {{ include "owlpost.config.paths" . }}
{{- range $name, $from := .Values.secrets.env }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.name }}
      key: {{ $from.key }}
{{- end }}
{{- include "owlpost.identity.env" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* {root, config, people}: the names of the ConfigMaps; nothing of AWS, which needs a ServiceAccount. */}}
{{- define "owlpost.volumes" -}}
- name: config
  configMap:
    name: {{ .config }}
    items:
      {{- if .root.Values.builtinRoutes }}
      - {key: routes.toml, path: routes.toml}
      {{- end }}
      - {key: owlpost.toml, path: owlpost.toml}
{{- if .root.Values.people }}
- name: people
  configMap:
    name: {{ .people }}
    items:
      - {key: people.toml, path: people.toml}
{{- end }}
{{- range .root.Values.secrets.files }}
- name: secret-{{ . | replace "." "-" }}
  secret:
    secretName: {{ . }}
    # 0440
    defaultMode: 288
{{- end }}
{{- range .root.Values.configFiles }}
- name: files-{{ . | replace "." "-" }}
  configMap:
    name: {{ . }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end }}

{{- define "owlpost.mounts" -}}
- name: config
  mountPath: /etc/owlpost/config
  readOnly: true
{{- if .Values.people }}
- name: people
  mountPath: /etc/owlpost/people
  readOnly: true
{{- end }}
{{- range .Values.secrets.files }}
- name: secret-{{ . | replace "." "-" }}
  mountPath: /run/secrets/{{ . }}
  readOnly: true
{{- end }}
{{- range .Values.configFiles }}
- name: files-{{ . | replace "." "-" }}
  mountPath: /etc/owlpost/files/{{ . }}
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end }}

{{/* {root, name, args, resources, env (optional)}: a container that runs one command and ends. */}}
{{- define "owlpost.command" -}}
name: {{ .name }}
image: {{ include "owlpost.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .args }}
securityContext:
  {{- include "owlpost.container.security" .root | nindent 2 }}
env:
  {{- include "owlpost.env" .root | nindent 2 }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml .resources | nindent 2 }}
volumeMounts:
  {{- include "owlpost.mounts" .root | nindent 2 }}
{{- end }}

{{- define "owlpost.pod.placing" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

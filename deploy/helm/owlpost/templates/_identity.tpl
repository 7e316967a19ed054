{{/* Who the pods are at AWS. Metadata of the machine is never asked: what it answered would be the node's role, or nothing. */}}

{{- define "owlpost.identity.env" -}}
{{- $identity := .Values.identity }}
{{- if include "owlpost.usesAws" . }}
- name: AWS_EC2_METADATA_DISABLED
  value: "true"
{{- with $identity.region }}
- name: AWS_REGION
  value: {{ . }}
{{- end }}
{{- end }}
{{- if eq $identity.kind "web-identity" }}
- name: AWS_ROLE_ARN
  value: {{ $identity.roleArn }}
- name: AWS_WEB_IDENTITY_TOKEN_FILE
  value: /var/run/secrets/aws/token
- name: AWS_ROLE_SESSION_NAME
  {{- /* AWS takes 64 characters; a pod's name is the release's and up to 25 more ("-deliver", two hashes). */}}
  {{- if gt (include "owlpost.fullname" . | len) 39 }}
  value: {{ include "owlpost.fullname" . }}
  {{- else }}
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
  {{- end }}
{{- else if eq $identity.kind "static-keys" }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ $identity.secret }}, key: access-key-id}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ $identity.secret }}, key: secret-access-key}
{{- end }}
{{- end }}

{{- define "owlpost.identity.volume" -}}
{{- if eq .Values.identity.kind "web-identity" }}
- name: aws-token
  projected:
    # 0440: the pod's group may read it.
    defaultMode: 288
    sources:
      - serviceAccountToken:
          audience: {{ .Values.identity.audience }}
          expirationSeconds: {{ int .Values.identity.tokenSeconds }}
          path: token
{{- end }}
{{- end }}

{{- define "owlpost.identity.mount" -}}
{{- if eq .Values.identity.kind "web-identity" }}
- name: aws-token
  mountPath: /var/run/secrets/aws
  readOnly: true
{{- end }}
{{- end }}

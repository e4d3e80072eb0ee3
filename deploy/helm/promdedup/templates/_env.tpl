{{/* The environment. No secret is in it: those are files, or references to secrets. */}}
{{- define "promdedup.env" -}}
{{- $advertised := or .Values.config.PROMDEDUP_ADVERTISE_URL (hasKey .Values.configFromSecrets "PROMDEDUP_ADVERTISE_URL") }}
env:
  {{- if include "promdedup.coordinated" . }}
  {{- /* First, since Kubernetes puts in only what was named before. */}}
  - name: POD_IP
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  {{- if not $advertised }}
  {{- /* An address of IPv6 needs the brackets, and one of IPv4 may have them. */}}
  - name: PROMDEDUP_ADVERTISE_URL
    value: {{ ternary "https" "http" (hasKey .Values.files "PROMDEDUP_TLS_CERT_FILE") }}://[$(POD_IP)]:19290
  {{- end }}
  {{- end }}
  {{- range $name, $value := .Values.config }}
  {{- if not (or (hasKey $.Values.configFromSecrets $name) (eq (toString $value) "")) }}
  {{- $text := toString $value }}
  {{- if kindIs "float64" $value }}
  {{- /* Numbers of YAML are floats here, which would print as 4e+06. */}}
  {{- $text = int64 $value | toString }}
  {{- end }}
  - name: {{ $name }}
    value: {{ $text | quote }}
  {{- end }}
  {{- end }}
  {{- range $name, $secret := .Values.configFromSecrets }}
  - name: {{ $name }}
    valueFrom:
      secretKeyRef:
        name: {{ $secret.secretName }}
        key: {{ $secret.key }}
  {{- end }}
  {{- range $name, $file := .Values.files }}
  - name: {{ $name }}
    value: /etc/promdedup/{{ include "promdedup.fileName" $name }}
  {{- end }}
  {{- $requests := .Values.resources.requests | default dict }}
  {{- $limits := .Values.resources.limits | default dict }}
  {{- if and $requests.cpu (not $limits.cpu) (not .Values.config.PROMDEDUP_WORKERS) }}
  - name: PROMDEDUP_WORKERS
    valueFrom:
      resourceFieldRef:
        containerName: promdedup
        resource: requests.cpu
        divisor: "1"
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

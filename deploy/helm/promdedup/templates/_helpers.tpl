{{- define "promdedup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "promdedup.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "promdedup.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "promdedup.selectorLabels" -}}
app.kubernetes.io/name: {{ include "promdedup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "promdedup.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "promdedup.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "promdedup.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "promdedup.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "promdedup.image" -}}
{{- $image := .Values.image }}
{{- $repository := $image.repository }}
{{- if $image.registry }}
{{- $repository = printf "%s/%s" $image.registry $image.repository }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* How many instances there may be at a time. */}}
{{- define "promdedup.instancesMax" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicaCount }}{{ end }}
{{- end }}

{{/* Not empty if each group is sent to one instance. */}}
{{- define "promdedup.hashed" -}}
{{- if and .Values.ingress.enabled .Values.ingress.hash.enabled }}yes{{ end }}
{{- end }}

{{/* Not empty if the instances share groups out by a database. */}}
{{- define "promdedup.coordinated" -}}
{{- if or .Values.config.PROMDEDUP_COORDINATION_URL (hasKey .Values.configFromSecrets "PROMDEDUP_COORDINATION_URL") }}yes{{ end }}
{{- end }}

{{/* A file's name in the volume: PROMDEDUP_TLS_CERT_FILE is tls-cert-file. */}}
{{- define "promdedup.fileName" -}}
{{- trimPrefix "PROMDEDUP_" . | lower | replace "_" "-" }}
{{- end }}

{{/* Stops at values that each have the right form, and together do not make sense. */}}
{{- define "promdedup.validate" -}}
{{- $config := .Values.config }}
{{- $secrets := .Values.configFromSecrets }}
{{- if not (or $config.PROMDEDUP_UPSTREAM_URL (hasKey $secrets "PROMDEDUP_UPSTREAM_URL")) }}
{{- fail "config.PROMDEDUP_UPSTREAM_URL is required: the remote-write endpoint of Thanos Receive, such as http://thanos-receive.thanos.svc:19291/api/v1/receive" }}
{{- end }}
{{- $instances := include "promdedup.instancesMax" . | int }}
{{- if and (gt $instances 1) (not (include "promdedup.hashed" .)) (not (include "promdedup.coordinated" .)) (not .Values.acknowledgeSplitGroups) }}
{{- fail (printf "up to %d instances, and nothing that brings the replicas of an HA group together in one of them: they would forward the same samples twice. Set configFromSecrets.PROMDEDUP_COORDINATION_URL to a PostgreSQL, or ingress.enabled (with ingress.hash.enabled), or one instance, or, if a ring hash of your own stands in front, acknowledgeSplitGroups" $instances) }}
{{- end }}
{{- if and (include "promdedup.coordinated" .) (not (hasKey .Values.files "PROMDEDUP_PEER_TOKEN_FILE")) }}
{{- fail "files.PROMDEDUP_PEER_TOKEN_FILE is required with PROMDEDUP_COORDINATION_URL: a Secret with the token that instances know each other by, of at least 16 characters" }}
{{- end }}
{{- $own := default "" $config.PROMDEDUP_ADVERTISE_URL }}
{{- if and (include "promdedup.coordinated" .) (hasKey .Values.files "PROMDEDUP_TLS_CERT_FILE") (not $own) (not $config.PROMDEDUP_PEER_TLS_SERVER_NAME) }}
{{- fail "PROMDEDUP_COORDINATION_URL and files.PROMDEDUP_TLS_CERT_FILE: instances reach each other by the pod's address, which is in no certificate. Set config.PROMDEDUP_PEER_TLS_SERVER_NAME to a name that the certificate has, such as that of the Service; or, where each pod's certificate names its address, config.PROMDEDUP_ADVERTISE_URL to https://[$(POD_IP)]:19290" }}
{{- end }}
{{- if and (include "promdedup.coordinated" .) (gt $instances 1) $own (not (contains "$(" $own)) }}
{{- fail (printf "config.PROMDEDUP_ADVERTISE_URL %s is the same for up to %d instances, and each has to be reached by its own: leave it out, or put $(POD_IP) in" $own $instances) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas %d is more than autoscaling.maxReplicas %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- end }}
{{- range $cert, $key := dict "PROMDEDUP_TLS_CERT_FILE" "PROMDEDUP_TLS_KEY_FILE" "PROMDEDUP_UPSTREAM_TLS_CERT_FILE" "PROMDEDUP_UPSTREAM_TLS_KEY_FILE" }}
{{- if ne (hasKey $.Values.files $cert) (hasKey $.Values.files $key) }}
{{- fail (printf "files: %s and %s belong together" $cert $key) }}
{{- end }}
{{- end }}
{{- $lead := default "0s" $config.PROMDEDUP_DRAIN_LEAD }}
{{- $drain := default "20s" $config.PROMDEDUP_DRAIN_TIMEOUT }}
{{- $seconds := 0 }}
{{- range list $lead $drain }}
{{- if regexMatch "^[0-9]+s$" . }}
{{- $seconds = add $seconds (trimSuffix "s" . | int) | int }}
{{- else if regexMatch "^[0-9]+m$" . }}
{{- $seconds = add $seconds (mul 60 (trimSuffix "m" . | int)) | int }}
{{- end }}
{{- end }}
{{- if ge $seconds (int .Values.terminationGracePeriodSeconds) }}
{{- fail (printf "terminationGracePeriodSeconds %d is not longer than PROMDEDUP_DRAIN_LEAD %s and PROMDEDUP_DRAIN_TIMEOUT %s together" (int .Values.terminationGracePeriodSeconds) $lead $drain) }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.from) }}
{{- fail "networkPolicy.from is required: who may write" }}
{{- end }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
{{- fail "podMonitor and serviceMonitor would scrape everything twice: enable one" }}
{{- end }}
{{- end }}

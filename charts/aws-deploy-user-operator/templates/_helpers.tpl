{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 54 characters: with the suffix "-metrics" it is the name of a Service, which may have 63. */}}
{{- define "operator.fullname" -}}
{{- $name := include "operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The operator's namespace. */}}
{{- define "operator.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The annotations of an object after a line break, for (list ROOT OWN): its own take precedence over commonAnnotations. */}}
{{- define "operator.annotations" -}}
{{- with merge (dict) (index . 1) (index . 0).Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* What every pod of the chart needs on this cluster: network, scheduling, security. */}}
{{- define "operator.podSettings" -}}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with include "operator.imagePullSecrets" . }}
imagePullSecrets: {{ . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false but serviceAccount.name is empty: set it, because the operator's RBAC must not be granted to the default ServiceAccount of the namespace" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "operator.image" -}}
{{- with default .Values.image.registry .Values.global.imageRegistry }}{{ . }}/{{ end -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Image pull Secrets as JSON: those of the chart, then those of global, which may be names too. */}}
{{- define "operator.imagePullSecrets" -}}
{{- $secrets := .Values.imagePullSecrets -}}
{{- range .Values.global.imagePullSecrets -}}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) -}}
{{- end -}}
{{- if $secrets }}{{ uniq $secrets | toJson }}{{ end -}}
{{- end -}}

{{/* The Secret with the certificate of /metrics; empty if there is no TLS. */}}
{{- define "operator.tlsSecret" -}}
{{- $issued := ternary (printf "%s-metrics-tls" (include "operator.fullname" .)) "" .Values.metrics.tls.certManager.enabled -}}
{{- default $issued .Values.metrics.tls.secretName -}}
{{- end -}}

{{/* TLS settings of monitors for /metrics. */}}
{{- define "operator.scrapeTls" -}}
{{- with include "operator.tlsSecret" . -}}
scheme: https
tlsConfig:
  serverName: {{ default (printf "%s-metrics.%s.svc" (include "operator.fullname" $) (include "operator.namespace" $)) $.Values.metrics.tls.serverName }}
  {{- with $.Values.metrics.tls.caKey }}
  ca:
    secret:
      name: {{ include "operator.tlsSecret" $ }}
      key: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* The port of a URL; empty without a URL. */}}
{{- define "operator.urlPort" -}}
{{- with . -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "443" "80" (eq $url.scheme "https")) $port -}}
{{- end -}}
{{- end -}}

{{/* spec.account of the class of a preset as JSON; empty if there is none. */}}
{{- define "operator.presetAccount" -}}
{{- $account := dict -}}
{{- with .preset -}}
{{- $roleAccount := "" -}}
{{- with .roleArn }}{{ $roleAccount = index (splitList ":" .) 4 }}{{ end -}}
{{- if and .account $roleAccount (ne .account $roleAccount) -}}
{{- fail (printf "presets.%s.roleArn is a role of account %s, but presets.%s.account is %s: set both to the same account" $.name $roleAccount $.name .account) -}}
{{- end -}}
{{- if and .externalId (not .roleArn) -}}
{{- fail (printf "presets.%s.externalId requires presets.%s.roleArn, which is missing: set it" $.name $.name) -}}
{{- end -}}
{{- with default $roleAccount .account }}{{ $account = set $account "id" . }}{{ end -}}
{{- with .roleArn }}{{ $account = set $account "roleArn" . }}{{ end -}}
{{- with .externalId }}{{ $account = set $account "externalId" . }}{{ end -}}
{{- end -}}
{{- if $account }}{{ toJson $account }}{{ end -}}
{{- end -}}

{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 54 characters: with "-metrics" it is the name of a Service, which may have 63. */}}
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

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: name the ServiceAccount in serviceAccount.name; the operator's rights must not go to the namespace's default account" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "operator.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* The Secret with the certificate of /metrics, or nothing: no TLS. */}}
{{- define "operator.tlsSecret" -}}
{{- $made := ternary (printf "%s-metrics-tls" (include "operator.fullname" .)) "" .Values.metrics.tls.certManager.enabled -}}
{{- default $made .Values.metrics.tls.secretName -}}
{{- end -}}

{{/* How monitors get to /metrics by TLS. */}}
{{- define "operator.scrapeTls" -}}
{{- with include "operator.tlsSecret" . -}}
scheme: https
tlsConfig:
  serverName: {{ default (printf "%s-metrics.%s.svc" (include "operator.fullname" $) $.Release.Namespace) $.Values.metrics.tls.serverName }}
  {{- with $.Values.metrics.tls.caKey }}
  ca:
    secret:
      name: {{ include "operator.tlsSecret" $ }}
      key: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* The port of a URL, or nothing. */}}
{{- define "operator.urlPort" -}}
{{- with . -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "443" "80" (eq $url.scheme "https")) $port -}}
{{- end -}}
{{- end -}}

{{/* The `account` of a preset's class as JSON, or nothing. */}}
{{- define "operator.presetAccount" -}}
{{- $account := dict -}}
{{- with .preset -}}
{{- $there := "" -}}
{{- with .roleArn }}{{ $there = index (splitList ":" .) 4 }}{{ end -}}
{{- if and .account $there (ne .account $there) -}}
{{- fail (printf "presets.%s.roleArn is a role of account %s and not of presets.%s.account, %s" $.name $there $.name .account) -}}
{{- end -}}
{{- if and .externalId (not .roleArn) -}}
{{- fail (printf "presets.%s.externalId is for presets.%s.roleArn, which is missing" $.name $.name) -}}
{{- end -}}
{{- with default $there .account }}{{ $account = set $account "id" . }}{{ end -}}
{{- with .roleArn }}{{ $account = set $account "roleArn" . }}{{ end -}}
{{- with .externalId }}{{ $account = set $account "externalId" . }}{{ end -}}
{{- end -}}
{{- if $account }}{{ toJson $account }}{{ end -}}
{{- end -}}

{{/* The name of what is made. */}}
{{- define "connstate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-agent" (.Release.Name | trunc 57 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* What the pods are found by; a DaemonSet's cannot be changed afterwards. */}}
{{- define "connstate.selectorLabels" -}}
app.kubernetes.io/name: connstate-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of the pods: none that changes with the chart, or each upgrade would replace them all. */}}
{{- define "connstate.podLabels" -}}
{{ include "connstate.selectorLabels" . }}
app.kubernetes.io/part-of: connstate
{{- end -}}

{{/* Labels of everything else. */}}
{{- define "connstate.labels" -}}
{{ include "connstate.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{/* The image: by its digest where there is one. */}}
{{- define "connstate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* A probe of a path: where a password is asked for, of the port alone. */}}
{{- define "connstate.probe" -}}
{{- if .configured -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{- end -}}
{{- end -}}

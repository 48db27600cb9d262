{{/* The name of every object: the release's. */}}
{{- define "syncbridge.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the pods. It must not change between releases of the chart. */}}
{{- define "syncbridge.selector" -}}
app.kubernetes.io/name: syncbridge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Likewise, of the pods that deliver events: no service selects them. */}}
{{- define "syncbridge.deliver.selector" -}}
app.kubernetes.io/name: syncbridge-deliver
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "syncbridge.labels" -}}
{{ include "syncbridge.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The Secret, which nobody may forget. */}}
{{- define "syncbridge.secret" -}}
{{- required "secretName: name a Secret with JWT_SECRET and JWT_REFRESH_SECRET" .Values.secretName -}}
{{- end -}}

{{/* Ports of the URLs in settings, and those that are named: what a pod connects to besides Redis. */}}
{{- define "syncbridge.ports" -}}
{{- $ports := list 443 -}}
{{- range $name, $url := .Values.settings -}}
{{- if and (hasSuffix "_URL" $name) (ne $name "WORKER_URL") $url -}}
{{- $named := regexFind ":[0-9]+$" (urlParse $url).host | trimPrefix ":" -}}
{{- $ports = append $ports ($named | default (ternary 80 443 (hasPrefix "http:" $url)) | int) -}}
{{- end -}}
{{- end -}}
{{- range .Values.networkPolicy.ports -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

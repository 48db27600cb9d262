{{/* Values that contradict each other, or the server: each is refused by its name. */}}
{{- define "syncbridge.checked" -}}
{{- include "syncbridge.checked.settings" . -}}
{{- include "syncbridge.checked.redis" . -}}
{{- include "syncbridge.checked.stop" . -}}
{{- if .Values.autoscaling.enabled -}}
{{- include "syncbridge.checked.autoscaling" . -}}
{{- end -}}
{{- end -}}

{{/* Settings that are secrets: they would stand in a ConfigMap. */}}
{{- define "syncbridge.secrets" -}}
JWT_SECRET JWT_REFRESH_SECRET SYNCBRIDGE_JWT_PRIVATE_KEY REDIS_PASSWORD SYNCBRIDGE_SENTINEL_PASSWORD
SYNCBRIDGE_CONNECT_KEY RTK_API_KEY RTK_SECRET_KEY SYNCBRIDGE_VOICE_WEBHOOK_SECRETS
SYNCBRIDGE_CLOUDFLARE_STORAGE SYNCBRIDGE_LIVEKIT_API_SECRET SYNCBRIDGE_LIVEKIT_WEBHOOK_KEYS ANALYTICS_KEY
{{- end -}}

{{- define "syncbridge.checked.settings" -}}
{{- $secrets := regexSplit "\\s+" (include "syncbridge.secrets" . | trim) -1 -}}
{{- range $name, $_ := .Values.settings -}}
{{- if has $name (list "SERVER_ADDR" "SYNCBRIDGE_ADMIN_ADDR" "SYNCBRIDGE_TLS_CERT" "SYNCBRIDGE_TLS_KEY") -}}
{{- fail (printf "settings.%s: the chart sets the ports of the pods, without TLS; use service.port and ingress" $name) -}}
{{- else if eq $name "REDIS_ADDR" -}}
{{- fail "settings.REDIS_ADDR: write redis.addr" -}}
{{- else if has $name $secrets -}}
{{- fail (printf "settings.%s: it is a secret, and belongs into the Secret that secretName names" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "syncbridge.checked.redis" -}}
{{- $addr := .Values.redis.addr -}}
{{- if regexMatch "^([a-z+]+://)?[^/@]*:[^/@]*@|[?&](sentinel_)?password=" $addr -}}
{{- fail "redis.addr: its password belongs into the Secret, as REDIS_PASSWORD or SYNCBRIDGE_SENTINEL_PASSWORD" -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- $sentinel := contains "+sentinel://" $addr -}}
{{- $value := ternary "sentinelPort" "port" $sentinel -}}
{{- $open := index .Values.redis $value | int | toString -}}
{{- $hosts := regexReplaceAll "^([a-z+]+://)?([^/@]*@)?([^/?]*).*$" $addr "${3}" -}}
{{- range splitList "," $hosts -}}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default (ternary "26379" "6379" $sentinel) -}}
{{- if ne $port $open -}}
{{- fail (printf "redis.%s: the network policy lets %s through, and redis.addr has port %s" $value $open $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 30s or 1m30s. */}}
{{- define "syncbridge.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+ *(ms|s|m|h|d)?" (lower .) -1 -}}
{{- $number := regexFind "[0-9.]+" . | float64 -}}
{{- $total = addf $total (mulf $number (get $units (regexFind "[a-z]+" . | default "s"))) -}}
{{- end -}}
{{- ceil $total -}}
{{- end -}}

{{- define "syncbridge.checked.stop" -}}
{{- $drain := include "syncbridge.seconds" (dig "SYNCBRIDGE_DRAIN" "30s" (.Values.settings | default dict)) | float64 -}}
{{- $needed := addf $drain .Values.preStopSeconds | int -}}
{{- if le (int .Values.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds: preStopSeconds and SYNCBRIDGE_DRAIN take %d s; write more" $needed) -}}
{{- end -}}
{{- end -}}

{{- define "syncbridge.checked.autoscaling" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas: it is above maxReplicas" -}}
{{- end -}}
{{- if not (or $scaling.connectionsPerPod $scaling.cpuPercent) -}}
{{- fail "autoscaling: write connectionsPerPod or cpuPercent, or enabled: false" -}}
{{- end -}}
{{- $settings := .Values.settings | default dict -}}
{{- $most := mul (dig "SYNCBRIDGE_MAX_CONNECTIONS" 65536 $settings) (dig "SYNCBRIDGE_WORKERS" 1 $settings) -}}
{{- if and $most (ge (int $scaling.connectionsPerPod) (int $most)) -}}
{{- fail (printf "autoscaling.connectionsPerPod: a pod takes %d connections (SYNCBRIDGE_MAX_CONNECTIONS); write less" $most) -}}
{{- end -}}
{{- if and $scaling.cpuPercent (not (dig "requests" "cpu" "" (.Values.resources | default dict))) -}}
{{- fail "autoscaling.cpuPercent: it is a share of resources.requests.cpu, which is not set" -}}
{{- end -}}
{{- end -}}

{{/* The stores of counters alone, `redis` and `redisPerSecond` of the rate limit service. */}}

{{/* Whether a store is named: call with the values of it. "true" or nothing. */}}
{{- define "dragoman.isStore" -}}
{{- if or .url .existingSecret.name -}}true{{- end -}}
{{- end }}

{{/* Whether limits are counted in a store, and not in memory: "true" or nothing. */}}
{{- define "dragoman.hasLimitStore" -}}
{{- if or (include "dragoman.hasRedis" .) (include "dragoman.isStore" .Values.ratelimit.redis) -}}true{{- end -}}
{{- end }}

{{/* Where the files of a store are mounted: call with "redis" or "redisPerSecond". */}}
{{- define "dragoman.storeFolder" -}}
/var/run/secrets/dragoman-{{ kebabcase . }}
{{- end }}

{{/* The URL of a store with what it is to be told of mounted files: call with (list "redis" $store). */}}
{{- define "dragoman.storeUrl" -}}
{{- $folder := include "dragoman.storeFolder" (index . 0) -}}
{{- $store := index . 1 -}}
{{- $options := list -}}
{{- if $store.passwordSecret.name -}}
{{- $options = append $options (printf "password_file=%s/password" $folder) -}}
{{- end -}}
{{- if $store.sentinelPasswordSecret.name -}}
{{- $options = append $options (printf "sentinel_password_file=%s/sentinel-password" $folder) -}}
{{- end -}}
{{- if $store.tlsSecret.name -}}
{{- $options = append $options (printf "ssl_ca_certs=%s/ca.crt" $folder) -}}
{{- if $store.tlsSecret.clientCertificate -}}
{{- $options = concat $options (list (printf "ssl_certfile=%s/tls.crt" $folder) (printf "ssl_keyfile=%s/tls.key" $folder)) -}}
{{- end -}}
{{- end -}}
{{- $store.url -}}
{{- if $options -}}
{{- if contains "?" $store.url -}}&{{- else -}}?{{- end -}}{{- join "&" $options -}}
{{- end -}}
{{- end }}

{{/* The Secrets that are mounted for a store, as sources of a volume; nothing where there are none. */}}
{{- define "dragoman.storeFiles" -}}
{{- if .passwordSecret.name }}
- secret:
    name: {{ .passwordSecret.name }}
    items: [{key: {{ .passwordSecret.key | quote }}, path: password}]
{{- end }}
{{- if .sentinelPasswordSecret.name }}
- secret:
    name: {{ .sentinelPasswordSecret.name }}
    items: [{key: {{ .sentinelPasswordSecret.key | quote }}, path: sentinel-password}]
{{- end }}
{{- if .tlsSecret.name }}
- secret:
    name: {{ .tlsSecret.name }}
    items:
      - {key: ca.crt, path: ca.crt}
      {{- if .tlsSecret.clientCertificate }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}

{{/* Faults of a store: call with (list "redis" $store). */}}
{{- define "dragoman.checkStore" -}}
{{- $path := printf "ratelimit.%s" (index . 0) -}}
{{- $store := index . 1 -}}
{{- if and $store.url $store.existingSecret.name -}}
{{- fail (printf "%s: set one of url and existingSecret.name" $path) -}}
{{- end -}}
{{- range $name := list "passwordSecret" "sentinelPasswordSecret" "tlsSecret" -}}
{{- if and (get $store $name).name (not (include "dragoman.isStore" $store)) -}}
{{- fail (printf "%s.%s: is for the store of %s.url, which is not set" $path $name $path) -}}
{{- end -}}
{{- end -}}
{{- if $store.url -}}
{{- if and $store.passwordSecret.name (regexMatch "://[^/@?]*:[^/@?]+@" $store.url) -}}
{{- fail (printf "%s.passwordSecret: the URL has a password already" $path) -}}
{{- end -}}
{{- if and $store.sentinelPasswordSecret.name (not (contains "+sentinel://" $store.url)) -}}
{{- fail (printf "%s.sentinelPasswordSecret: the URL names no Sentinels (redis+sentinel://)" $path) -}}
{{- end -}}
{{- if and $store.tlsSecret.name (not (hasPrefix "rediss" $store.url)) -}}
{{- fail (printf "%s.tlsSecret: the URL is not one of TLS (rediss://, rediss+sentinel://, rediss+cluster://)" $path) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* How many pods of the rate limit service count in its store, as far as that is known beforehand. */}}
{{- define "dragoman.limiters" -}}
{{- $values := .Values.ratelimit -}}
{{- if not (include "dragoman.hasLimitStore" .) -}}
1
{{- else if $values.autoscaling.enabled -}}
{{- min (max $values.replicas $values.autoscaling.minReplicas) $values.autoscaling.maxReplicas -}}
{{- else -}}
{{- max $values.replicas 1 -}}
{{- end -}}
{{- end }}

{{/* The environment of the rate limit service beside what all parts have. */}}
{{- define "dragoman.limiterEnv" -}}
{{- $values := .Values.ratelimit -}}
# What a limit is divided by that each pod estimates while Redis is away (onStoreError: Local), its workers besides:
# until the DNS tells how many there are.
- {name: DRAGOMAN_REPLICAS, value: {{ include "dragoman.limiters" . | quote }}}
- {name: DRAGOMAN_STORE_TIMEOUT_S, value: {{ $values.storeTimeoutSeconds | quote }}}
- {name: DRAGOMAN_MAX_KEYS, value: {{ int64 $values.maxKeys | quote }}}
- {name: DRAGOMAN_RESPONSE_HEADERS, value: {{ $values.responseHeaders | quote }}}
- {name: DRAGOMAN_SHADOW_MODE, value: {{ $values.shadowMode | quote }}}
- {name: DRAGOMAN_NEAR_RATIO, value: {{ $values.metrics.nearRatio | quote }}}
- {name: DRAGOMAN_METRICS_DETAIL, value: {{ $values.metrics.detail | quote }}}
- {name: DRAGOMAN_METRICS_MAX_DESCRIPTORS, value: {{ int64 $values.metrics.maxDescriptors | quote }}}
- {name: DRAGOMAN_METRICS_MAX_VALUES, value: {{ int64 $values.metrics.maxValues | quote }}}
{{- with $values.metrics.statsd }}
{{- if .url }}
- {name: DRAGOMAN_STATSD, value: {{ .url | quote }}}
- {name: DRAGOMAN_STATSD_INTERVAL_S, value: {{ .intervalSeconds | quote }}}
{{- with .tags }}
- {name: DRAGOMAN_STATSD_TAGS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- with $values.keyPrefix }}
- {name: DRAGOMAN_KEY_PREFIX, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* The variable with the URL of the store of a component, if there is one: call with (list $ "authz"). */}}
{{- define "dragoman.redisEnv" -}}
{{- $root := index . 0 -}}
{{- $limits := eq (index . 1) "ratelimit" -}}
{{- $own := $root.Values.ratelimit.redis -}}
{{- if and $limits (include "dragoman.isStore" $own) }}
- name: DRAGOMAN_REDIS
  valueFrom: {{- include "dragoman.storeRef" (list $root $own "url") | nindent 4 }}
{{- else if include "dragoman.hasRedis" $root }}
- name: DRAGOMAN_REDIS
  valueFrom:
    secretKeyRef:
      name: {{ include "dragoman.redisSecret" $root }}
      key: {{ if $root.Values.redis.existingSecret.name }}{{ $root.Values.redis.existingSecret.key }}{{ else }}url{{ end }}
{{- end }}
{{- $second := $root.Values.ratelimit.redisPerSecond -}}
{{- if and $limits (include "dragoman.isStore" $second) }}
- name: DRAGOMAN_REDIS_PER_SECOND
  valueFrom: {{- include "dragoman.storeRef" (list $root $second "per-second-url") | nindent 4 }}
{{- end }}
{{- end }}

{{- define "dragoman.storeRef" -}}
{{- $store := index . 1 -}}
secretKeyRef:
  {{- if $store.existingSecret.name }}
  name: {{ $store.existingSecret.name }}
  key: {{ $store.existingSecret.key }}
  {{- else }}
  name: {{ include "dragoman.component" (list (index . 0) "redis-limits") }}
  key: {{ index . 2 }}
  {{- end }}
{{- end }}

{{/* The chart's name. */}}
{{- define "dragoman.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* What the names of all objects begin with. Suffixes of up to 13 characters follow, in 63. */}}
{{- define "dragoman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "dragoman.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The name of a component's objects: call with (list $ "authz"). */}}
{{- define "dragoman.component" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s" (include "dragoman.fullname" $root) (index . 1) -}}
{{- end }}

{{/* Labels that select a component's pods. They must never change. */}}
{{- define "dragoman.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "dragoman.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "dragoman.labels" -}}
{{- $root := index . 0 -}}
{{ include "dragoman.selector" . }}
app.kubernetes.io/part-of: dragoman
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{/* The values of a component. */}}
{{- define "dragoman.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- /* What divides quotas is the rate limit service to the control plane. */ -}}
{{- if eq $component "quota" -}}{{- $component = "ratelimit" -}}{{- end -}}
{{- $values := get $root.Values (include "dragoman.valuesKey" $component) -}}
{{- default (include "dragoman.component" (list $root $component)) $values.serviceAccount.name -}}
{{- end }}

{{- define "dragoman.valuesKey" -}}
{{- if eq . "controlplane" -}}controlPlane{{- else -}}{{ . }}{{- end -}}
{{- end }}

{{- define "dragoman.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{- define "dragoman.xdsSecret" -}}
{{- default (include "dragoman.component" (list . "xds")) .Values.xds.certificate.secretName -}}
{{- end }}

{{/* Where Envoys and the services find the control plane; also a name in its certificate. */}}
{{- define "dragoman.xdsHost" -}}
{{- printf "%s.%s.svc.%s" (include "dragoman.component" (list . "controlplane")) .Release.Namespace .Values.clusterDomain -}}
{{- end }}

{{/* Whether there is a Redis: "true" or nothing. */}}
{{- define "dragoman.hasRedis" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret.name .Values.redis.bundled.enabled -}}true{{- end -}}
{{- end }}

{{- define "dragoman.redisSecret" -}}
{{- default (include "dragoman.component" (list . "redis")) .Values.redis.existingSecret.name -}}
{{- end }}

{{/* Faults that the schema cannot see. */}}
{{- define "dragoman.check" -}}
{{- $redis := .Values.redis -}}
{{- $ways := 0 -}}
{{- range list $redis.url $redis.existingSecret.name $redis.bundled.enabled -}}
{{- if . -}}{{- $ways = add1 $ways -}}{{- end -}}
{{- end -}}
{{- if gt (int $ways) 1 -}}
{{- fail "redis: set one of redis.url, redis.existingSecret.name and redis.bundled.enabled" -}}
{{- end -}}
{{- if and (eq .Values.xds.certificate.mode "existing") (not .Values.xds.certificate.secretName) -}}
{{- fail "xds.certificate.secretName: mode `existing` needs the name of the Secret" -}}
{{- end -}}
{{- range $component := list "authz" "ratelimit" -}}
{{- $scaling := (get $.Values $component).autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas: must not be above maxReplicas" $component) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "redis" "redisPerSecond" -}}
{{- include "dragoman.checkStore" (list $name (get $.Values.ratelimit $name)) -}}
{{- end -}}
{{- if and (include "dragoman.isStore" .Values.ratelimit.redisPerSecond) (not (include "dragoman.hasLimitStore" .)) -}}
{{- fail "ratelimit.redisPerSecond: is beside ratelimit.redis or redis, and needs one of them" -}}
{{- end -}}
{{- if and .Values.ratelimit.quota.enabled (not .Values.ratelimit.enabled) -}}
{{- fail "ratelimit.quota.enabled: needs ratelimit.enabled" -}}
{{- end -}}
{{- if and .Values.gatewayClass.create (lookup "v1" "Namespace" "" "default") (not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1")) -}}
{{- fail "the cluster has no Gateway API: install its CRDs first (docs/kubernetes.md), or set gatewayClass.create=false" -}}
{{- end -}}
{{- end }}

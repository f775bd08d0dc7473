{{/* ext_authz and the rate limit service, which differ in little: call with (list $ "authz" $values). */}}
{{- define "dragoman.service" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- $name := include "dragoman.component" (list $root $component) -}}
{{- $redis := include "dragoman.hasRedis" $root -}}
{{- /* Counters in memory are exact for the workers of one pod alone. */ -}}
{{- $single := and (eq $component "ratelimit") (not $redis) -}}
{{- /* Of the same authority as the control plane's own; a Secret of somebody else's has none for the services. */ -}}
{{- $tls := ne $root.Values.xds.certificate.mode "existing" -}}
{{- $scaled := and $values.autoscaling.enabled (not $single) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "dragoman.labels" (list $root $component) | nindent 4 }}
spec:
  {{- if $single }}
  replicas: 1
  {{- else if not $scaled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "dragoman.selector" (list $root $component) | nindent 6 }}
  template:
    metadata: {{- include "dragoman.podMetadata" (list $root $component $values) | nindent 6 }}
    spec:
      {{- include "dragoman.podSettings" (list $root $component $values) | nindent 6 }}
      automountServiceAccountToken: false
      containers:
        - name: {{ $component }}
          image: {{ include "dragoman.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            - {{ $component }}
            - --listen={{ $root.Values.listenAddress }}:9001
            - --workers={{ $values.workers }}
            - --http={{ $root.Values.listenAddress }}:18001
            - --state=/var/lib/dragoman
            {{- if eq $component "authz" }}
            - --keys=/var/lib/dragoman/keys.db
            {{- end }}
            - --xds={{ include "dragoman.xdsHost" $root }}:18000
            - --xds-ca=/var/run/secrets/dragoman/ca.crt
            - --xds-token=/var/run/secrets/dragoman/token
            {{- if $tls }}
            - --tls-certificate=/var/run/secrets/dragoman-tls/tls.crt
            - --tls-private-key=/var/run/secrets/dragoman-tls/tls.key
            {{- end }}
            {{- range $values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            {{- include "dragoman.env" (list $root $component $values) | nindent 12 }}
            {{- if eq $component "ratelimit" }}
            # What a limit is divided by that each pod estimates while Redis is away (onStoreError: Local).
            - {name: DRAGOMAN_REPLICAS, value: {{ ternary 1 $values.replicas $single | quote }}}
            {{- end }}
            {{- if $redis }}
            - name: DRAGOMAN_REDIS
              valueFrom:
                secretKeyRef:
                  name: {{ include "dragoman.redisSecret" $root }}
                  key: {{ if $root.Values.redis.existingSecret.name }}{{ $root.Values.redis.existingSecret.key }}{{ else }}url{{ end }}
            {{- end }}
          ports:
            {{- range $worker := until (int $values.workers) }}
            - {name: grpc-{{ $worker }}, containerPort: {{ add 9001 $worker }}}
            {{- end }}
            - {name: http, containerPort: 18001}
          {{- include "dragoman.probes" $root | nindent 10 }}
          # Envoys learn within this time that the worker is going; until then it takes new connections.
          lifecycle: {preStop: {sleep: {seconds: 3}}}
          securityContext: {{- include "dragoman.containerSecurity" $root | nindent 12 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: identity, mountPath: /var/run/secrets/dragoman, readOnly: true}
            {{- if $tls }}
            - {name: certificate, mountPath: /var/run/secrets/dragoman-tls, readOnly: true}
            {{- end }}
            - {name: state, mountPath: /var/lib/dragoman}
            - {name: tmp, mountPath: /var/tmp}
      volumes:
        # The pod waits here until the control plane has made its certificate.
        - name: identity
          projected:
            sources:
              - serviceAccountToken: {path: token, audience: dragoman, expirationSeconds: 3600}
              - secret:
                  name: {{ include "dragoman.xdsSecret" $root }}
                  items:
                    - {key: ca.crt, path: ca.crt}
        {{- if $tls }}
        - name: certificate
          secret:
            secretName: {{ include "dragoman.xdsSecret" $root }}-{{ $component }}
            items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
        {{- end }}
        - name: state
          emptyDir: {}
        - name: tmp
          emptyDir: {}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "dragoman.labels" (list $root $component) | nindent 4 }}
spec:
  # Envoy balances by itself and needs the pods' own addresses.
  clusterIP: None
  selector: {{- include "dragoman.selector" (list $root $component) | nindent 4 }}
  ports:
    {{- range $worker := until (int $values.workers) }}
    - {name: grpc-{{ $worker }}, port: {{ add 9001 $worker }}, targetPort: grpc-{{ $worker }}, appProtocol: grpc}
    {{- end }}
    - {name: http-metrics, port: 18001, targetPort: http}
{{- if $scaled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "dragoman.labels" (list $root $component) | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ $values.autoscaling.minReplicas }}
  maxReplicas: {{ $values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $values.autoscaling.targetCPUUtilizationPercentage }}}
{{- end }}
{{- include "dragoman.disruptionBudget" (list $root $component $values) }}
{{- end }}

{{/* ext_authz and the rate limit service, which differ in little: call with (list $ "authz" $values). `quota` is a single
     pod of the rate limit service that divides limits among Envoys, and answers nothing else. */}}
{{- define "dragoman.service" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- $name := include "dragoman.component" (list $root $component) -}}
{{- $limiter := eq $component "ratelimit" -}}
{{- $quota := eq $component "quota" -}}
{{- /* Counters in memory are exact for the workers of one pod alone, quotas for one process. */ -}}
{{- $single := or $quota (and $limiter (not (include "dragoman.hasLimitStore" $root))) -}}
{{- /* Of the same authority as the control plane's own; a Secret of somebody else's has none for the services. */ -}}
{{- $tls := ne $root.Values.xds.certificate.mode "existing" -}}
{{- $scaled := and $values.autoscaling.enabled (not $single) -}}
{{- $stores := dict -}}
{{- if $limiter -}}
{{- range $name := list "redis" "redisPerSecond" -}}
{{- with include "dragoman.storeFiles" (get $values $name) -}}{{- $_ := set $stores $name . -}}{{- end -}}
{{- end -}}
{{- end -}}
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
  {{- if $quota }}
  # Two at a time would each divide the whole limit. Meanwhile Envoys go on with the shares that they have.
  strategy: {type: Recreate}
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  {{- end }}
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
            {{- if $quota }}
            - ratelimit
            - --quota-listen={{ $root.Values.listenAddress }}:9001
            - --listen=unix:/var/tmp/ratelimit.sock
            {{- else }}
            - {{ $component }}
            - --listen={{ $root.Values.listenAddress }}:9001
            - --workers={{ $values.workers }}
            {{- end }}
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
            {{- if or $limiter $quota }}
            {{- include "dragoman.limiterEnv" $root | nindent 12 }}
            {{- end }}
            {{- if and $limiter (not $single) }}
            # As many pods as are ready have an address there: what the limit is divided by once the DNS has told.
            - {name: DRAGOMAN_REPLICAS_FROM, value: {{ $name }}.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}.}
            {{- end }}
            {{- if not $quota }}
            {{- include "dragoman.redisEnv" (list $root $component) | indent 12 }}
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
            {{- range $name, $_ := $stores }}
            - {name: {{ kebabcase $name }}, mountPath: {{ include "dragoman.storeFolder" $name }}, readOnly: true}
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
            secretName: {{ include "dragoman.xdsSecret" $root }}-{{ ternary "ratelimit" $component $quota }}
            items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
        {{- end }}
        {{- range $name, $files := $stores }}
        - name: {{ kebabcase $name }}
          projected:
            defaultMode: 0440
            sources: {{- $files | nindent 14 }}
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

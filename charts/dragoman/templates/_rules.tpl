{{/* Objects of namespaces that are read, and those whose status is written. */}}
{{- define "dragoman.readRules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
# Of these only their metadata is listed; what an object refers to is then read by its name.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - backendtlspolicies
    - gateways
    - grpcroutes
    - httproutes
    - listenersets
    - referencegrants
    - tcproutes
    - tlsroutes
    - udproutes
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - backendtlspolicies/status
    - gateways/status
    - grpcroutes/status
    - httproutes/status
    - listenersets/status
    - tcproutes/status
    - tlsroutes/status
    - udproutes/status
  verbs: [patch]
- apiGroups: [dragoman.dev]
  resources:
    - backends
    - backendtrafficpolicies
    - clienttrafficpolicies
    - extensionpolicies
    - httproutefilters
    - patchpolicies
    - plans
    - proxyconfigs
    - securitypolicies
  verbs: [list, watch]
- apiGroups: [dragoman.dev]
  resources:
    - backends/status
    - backendtrafficpolicies/status
    - clienttrafficpolicies/status
    - extensionpolicies/status
    - httproutefilters/status
    - patchpolicies/status
    - plans/status
    - proxyconfigs/status
    - securitypolicies/status
  verbs: [patch]
# Envoy Gateway's kinds, for teams that come from there.
- apiGroups: [gateway.envoyproxy.io]
  resources:
    - backends
    - backendtrafficpolicies
    - clienttrafficpolicies
    - envoyextensionpolicies
    - envoypatchpolicies
    - envoyproxies
    - httproutefilters
    - securitypolicies
  verbs: [list, watch]
- apiGroups: [gateway.envoyproxy.io]
  resources:
    - backends/status
    - backendtrafficpolicies/status
    - clienttrafficpolicies/status
    - envoyextensionpolicies/status
    - envoypatchpolicies/status
    - securitypolicies/status
  verbs: [patch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
# What of an Ingress has no effect is told by Events: it has no conditions.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* What is started for a Gateway, in its namespace. */}}
{{- define "dragoman.provisionRules" -}}
- apiGroups: [apps]
  resources: [deployments, daemonsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Where the API server asks who may name an owner that blocks its deletion (OpenShift does).
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways/finalizers]
  verbs: [update]
{{- end }}

{{/* Objects that belong to no namespace. */}}
{{- define "dragoman.clusterRules" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status]
  verbs: [patch]
- apiGroups: [networking.k8s.io]
  resources: [ingressclasses]
  verbs: [list, watch]
# Which kinds the cluster has, and the version of its Gateway API.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- if .Values.controlPlane.provisioning }}
# Where Gateways are reached whose Service is of type NodePort.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
{{- end }}
# The keys that service-account tokens of Envoys are verified with.
- nonResourceURLs: [/.well-known/openid-configuration, /openid/v1/jwks]
  verbs: [get]
{{- end }}

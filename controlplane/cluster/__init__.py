"""The control plane in a Kubernetes cluster: what joins its source, its statuses, its Envoys and its replicas."""

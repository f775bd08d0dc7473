"""The Kubernetes API, as much of it as a controller needs: raw JSON over HTTP."""

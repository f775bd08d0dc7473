"""Starts the Envoys of each Gateway in Kubernetes: pure plans, which the leader applies."""

"""envoy.service.auth.v3.Authorization: checks JWTs and API keys for Envoy."""

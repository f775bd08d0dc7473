"""Quota mode: Envoys enforce their share of a limit, which this service divides among them (RateLimitQuotaService)."""

"""envoy.service.ratelimit.v3.RateLimitService: rate limits for Envoy, in memory or on Redis."""

"""dragoman.authz.v1."""

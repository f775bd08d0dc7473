"""What ext_authz is told."""

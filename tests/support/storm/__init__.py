"""A storm of changes over a gateway under load, and the judge of every answer that it gives meanwhile."""

"""IR to Envoy resources, as bytes."""

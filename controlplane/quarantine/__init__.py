"""Quarantine: which object Envoy rejects is found and kept out of force, so that all others are delivered."""

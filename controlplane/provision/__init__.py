"""Starts the Envoys of each Gateway."""

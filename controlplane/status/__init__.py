"""Conditions to the objects they are about."""

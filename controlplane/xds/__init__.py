"""Snapshots, ordering, subscriptions and the aggregated discovery service."""

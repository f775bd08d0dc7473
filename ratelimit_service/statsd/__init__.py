"""The counts as statsd lines, under envoyproxy/ratelimit's names, sent to a collector from time to time."""

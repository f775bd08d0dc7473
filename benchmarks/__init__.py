"""Measures Dragoman against its performance budget: `python -m benchmarks`."""

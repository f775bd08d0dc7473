"""Measures Dragoman against its performance budget: `python -m benchmarks`."""

import os

# gRPC would write a line for every connection that a server which stops has ended. It reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

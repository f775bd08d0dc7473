"""The shell of the product: command line, settings, logs, metrics, gRPC worker, xDS client; shared by all parts."""

__version__ = "0.1.0"

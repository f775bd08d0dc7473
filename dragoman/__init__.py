"""The product's shell: command line, settings, logs, metrics, the gRPC worker and the xDS client, shared by all parts."""

__version__ = "0.1.0"

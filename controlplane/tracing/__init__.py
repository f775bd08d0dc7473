"""What becomes of each change: through the stages to every client, kept for the last of them."""

from controlplane.tracing.tracer import Tracer

__all__ = ["Tracer"]

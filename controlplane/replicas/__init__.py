"""What replicas of the control plane tell one another: how far their Envoys are, and what who leads decides."""

from typing import Final

METHOD: Final = "/dragoman.replica.v1.Replicas/Share"

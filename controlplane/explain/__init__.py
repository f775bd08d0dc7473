"""Why a request goes where it goes, and what a change would change: read from what is sent, and never sent itself."""

from __future__ import annotations

from controlplane.explain.explain import explain, explaining
from controlplane.explain.model import Explanation
from controlplane.explain.request import Request
from controlplane.explain.sources import Locate, locator
from controlplane.slices import in_slices

__all__ = ["Explanation", "Locate", "Request", "explain", "explaining", "in_slices", "locator"]

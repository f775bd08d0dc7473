"""Kubernetes as a source: the objects of a cluster, read once whole and then as they change."""

from __future__ import annotations

from controlplane.sources.kubernetes.observed import Observed
from controlplane.sources.kubernetes.source import KubernetesSource
from controlplane.sources.kubernetes.tuning import Tuning

__all__ = ["KubernetesSource", "Observed", "Tuning"]

"""What random edits have in common: few names, so that what is written meets what refers to it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.support.tokens import SigningKey, jwks

Manifest = dict[str, Any]
OURS = "dragoman.dev/v1alpha1"
THEIRS = "gateway.envoyproxy.io/v1alpha1"
NAMESPACES = ["demo", "other"]
ROUTES = ["r1", "r2", "r3"]
SERVICES = ["one", "two", "far"]
HOSTS = ["a.backends.example", "b.backends.example"]
URIS = ["https://issuer.example/keys", "https://elsewhere.example/keys"]
JWKS = [json.dumps(jwks(SigningKey.make(f"key-{index}"))) for index in range(2)]
CREATED = [None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]

one_of = st.sampled_from


def stamped(document: Manifest, created: str | None, labels: dict[str, str] | None = None) -> Manifest:
    """Returns a document as of a time, with labels."""
    more: Manifest = {"creationTimestamp": created} if created else {}
    document["metadata"] |= {**more, **({"labels": labels} if labels else {})}
    return document

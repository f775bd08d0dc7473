"""A cluster's issuer of service-account tokens, as an API server is to who verifies them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from controlplane.xds.tokens import DISCOVERY_PATH, KEYS_PATH
from tests.support.tokens import SigningKey, jwks

ISSUER = "https://kubernetes.default.svc.cluster.local"


class Issuer:
    """Signs tokens, and serves its keys by `fetch`, which can be made to fail."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys or (SigningKey.make("k1"),))
        self.fetched: list[str] = []
        self.fault: Exception | None = None

    async def fetch(self, path: str) -> Mapping[str, Any]:
        self.fetched.append(path)
        if self.fault is not None:
            raise self.fault
        return {DISCOVERY_PATH: {"issuer": ISSUER}, KEYS_PATH: jwks(*self.keys)}[path]

    @property
    def key_fetches(self) -> int:
        return self.fetched.count(KEYS_PATH)

    def token(
        self,
        namespace: str,
        name: str,
        *,
        key: SigningKey | None = None,
        claims: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Returns a token as the API server makes them for a pod's projected volume."""
        now = int(time.time())
        own = {"namespace": namespace, "serviceaccount": {"name": name, "uid": "u"}, "pod": {"name": "p", "uid": "v"}}
        values = {"iss": ISSUER, "aud": ["dragoman"], "sub": f"system:serviceaccount:{namespace}:{name}", **options}
        more = {"nbf": now, "kubernetes.io": own, **(claims or {})}
        return (key or self.keys[0]).token(more, **values)


def shown(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a stream that shows a token."""
    return (("authorization", f"Bearer {token}"),)

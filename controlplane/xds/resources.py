"""What travels over xDS: resources as bytes that were serialised once, and snapshots of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Final, cast, overload

from controlplane.xds import wire

_ENVOY: Final = "type.googleapis.com/envoy"

LISTENER: Final = f"{_ENVOY}.config.listener.v3.Listener"
ROUTE: Final = f"{_ENVOY}.config.route.v3.RouteConfiguration"
CLUSTER: Final = f"{_ENVOY}.config.cluster.v3.Cluster"
ENDPOINT: Final = f"{_ENVOY}.config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = f"{_ENVOY}.extensions.transport_sockets.tls.v3.Secret"
EXTENSION_CONFIG: Final = f"{_ENVOY}.config.core.v3.TypedExtensionConfig"
AUTHZ_POLICY: Final = "type.googleapis.com/dragoman.authz.v1.Policy"
RATE_LIMIT_CONFIG: Final = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"

# Make before break: additions travel in this order, removals in the reverse.
ORDER: Final = (AUTHZ_POLICY, RATE_LIMIT_CONFIG, SECRET, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE)


class Origins(Sequence[str]):
    """The origins of many parts one after the other, with repeats; strung together only when they are asked for.

    `parts` is iterated over each time.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterable[Sequence[str]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origins | tuple) and tuple(self) == tuple(cast("Iterable[str]", other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True, slots=True)
class Resource:
    """One xDS resource, serialised once; the same bytes go to every client.

    `origins` names the objects that it was made from ("HTTPRoute demo/open"), so that a NACK can be traced to them.
    `warm_s`, of a cluster, is how long it may still be warming after its endpoints are acknowledged (health checks);
    `linger_s`, of a policy of a service, how long requests may need it after it left the snapshot.
    """

    type_url: str
    name: str
    body: bytes
    version: str
    origins: Sequence[str] = ()
    warm_s: float = 0.0
    linger_s: float = 0.0
    _delta_head: bytes = field(default=b"", init=False, repr=False, compare=False)
    _sotw_head: bytes = field(default=b"", init=False, repr=False, compare=False)

    @staticmethod
    def of(type_url: str, name: str, body: bytes, origins: tuple[str, ...] = (), *, warm_s: float = 0.0) -> Resource:
        """Makes a resource whose version is the hash of its bytes."""
        return Resource(type_url, name, body, hashlib.blake2b(body, digest_size=8).hexdigest(), origins, warm_s)

    @property
    def delta_head(self) -> bytes:
        """What precedes the body in a delta response; encoded once, since every client gets the same."""
        if not self._delta_head:
            head = wire.delta_head(self.type_url, self.name, self.version, len(self.body))
            object.__setattr__(self, "_delta_head", head)
        return self._delta_head

    @property
    def sotw_head(self) -> bytes:
        """What precedes the body in a state-of-the-world response; encoded once."""
        if not self._sotw_head:
            object.__setattr__(self, "_sotw_head", wire.sotw_head(self.type_url, len(self.body)))
        return self._sotw_head


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one owner (a Gateway's Envoys, or a service) is to be sent: type URL → name → resource.

    One that was `kept` from before a restart may lack what there is, and be older than what clients have: they are sent
    of it what they have nothing of, and nothing else is concluded from it.
    """

    resources: Mapping[str, Mapping[str, Resource]] = field(default_factory=lambda: MappingProxyType({}))
    kept: bool = False

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        """Returns the resources of one type by name; empty where there are none."""
        return self.resources.get(type_url, {})

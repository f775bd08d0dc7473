# pyright: strict, reportUnusedImport=false
"""What the data plane must do: frozen, typed, free of Kubernetes and of Envoy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, NamedTuple

from controlplane.ir_plans import CallerLimit, Counting, Override, Per, Plan, PlanIdentity, Plans, Unit  # noqa: F401
from controlplane.ir_policies import (  # noqa: F401  (policies are a part of it)
    RESERVED_PREFIX,
    ApiKeys,
    Authorization,
    AuthorizationRule,
    ClaimHeader,
    ClaimRule,
    ClaimSelector,
    Cors,
    Deny,
    GlobalLimit,
    Jwks,
    Jwt,
    JwtProvider,
    KeyPolicy,
    KeySource,
    LimitRule,
    LocalLimit,
    MetadataSource,
    MethodSelector,
    PathRule,
    Policies,
    SourceSelector,
    TokenHeader,
    ValueSelector,
    digest,
)

PathKind = Literal["Exact", "PathPrefix", "RegularExpression"]
Carried = Literal["requests", "streams", "tls", "datagrams"]
"""What goes to a backend: requests of HTTP, bytes of connections, those of a client's own TLS, or datagrams."""


# -- matching --
# Tuples, as the identities of clusters are: by the thousand, they are compared and looked up all the time.


class PathMatch(NamedTuple):
    """`value` of a PathPrefix has no trailing slash, but for the root."""

    kind: PathKind
    value: str


class ValueMatch(NamedTuple):
    """A header or query parameter, by exact value or by a regular expression on the whole value."""

    name: str
    value: str
    regex: bool = False


class Match(NamedTuple):
    """`call` is there for gRPC alone: how many characters it asks for of the service, and of the method."""

    path: PathMatch
    method: str | None = None
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    call: tuple[int, int] | None = None

    def __repr__(self) -> str:
        """Leaves out `call`: the path says it, too. Rules without a name are named by this (`compile.rules.names`)."""
        return f"Match(path={self.path}, method={self.method!r}, headers={self.headers}, query={self.query})"


# -- actions --


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


NO_EDIT: Final = HeaderEdit()


class UpstreamPolicy(NamedTuple):
    """What routes and policies ask of the way to a backend; clusters that differ in it are apart.

    `http2` has HTTP/2 spoken to a backend that says nothing of its protocol, as gRPC needs it; `unchecked_tls` has TLS
    spoken to one of which nobody says how its certificate is to be checked.
    """

    http2: bool = False
    carries: Carried = "requests"
    unchecked_tls: bool = False

    def digest(self) -> str:
        """Returns a short name for what is asked, whatever fields there are beside; `default` where nothing is."""
        if self == _NOTHING_ASKED:
            return "default"
        asked = [(name, value) for name, value in self._asdict().items() if value != self._field_defaults[name]]
        return hashlib.blake2b(repr(asked).encode(), digest_size=6).hexdigest()


_NOTHING_ASKED = UpstreamPolicy()


class ClusterId(NamedTuple):
    """Identity of an upstream cluster: one per backend, port and upstream policy.

    The cluster of a UDPRoute (port 0) stands for all its backends; a session stays on it whatever their weights become.
    """

    namespace: str
    kind: Literal["Service", "Backend", "UDPRoute"]
    name: str
    port: int
    policy: UpstreamPolicy = _NOTHING_ASKED

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}/{self.port}/{self.policy.digest()}"


@dataclass(frozen=True, slots=True)
class WeightedBackend:
    """`cluster` is None where the reference is invalid: its share of the requests is answered with an error."""

    cluster: ClusterId | None
    weight: int
    request_headers: HeaderEdit = NO_EDIT
    response_headers: HeaderEdit = NO_EDIT


@dataclass(frozen=True, slots=True)
class Retry:
    codes: tuple[int, ...]
    attempts: int
    backoff_s: float | None


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """Replaces the full path, the prefix that matched, or what `pattern` finds, with its groups as `\\1`."""

    kind: Literal["ReplaceFullPath", "ReplacePrefixMatch", "ReplaceRegexMatch"]
    value: str
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Sends a copy of `numerator` out of `denominator` requests to another cluster, and ignores its answer."""

    cluster: ClusterId
    numerator: int = 100
    denominator: int = 100


@dataclass(frozen=True, slots=True)
class Forward:
    """With `grpc`, requests are calls: they last as long as they say, and an invalid backend is UNAVAILABLE.

    `idle_timeout_s` ends requests on which nothing has moved for so long, whichever way.
    """

    backends: tuple[WeightedBackend, ...]
    hostname: str | None = None
    path: PathRewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    request_timeout_s: float | None = None
    backend_timeout_s: float | None = None
    retry: Retry | None = None
    grpc: bool = False
    idle_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    status: int
    scheme: str | None = None
    hostname: str | None = None
    path: PathRewrite | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Respond:
    """An answer of the gateway's own."""

    status: int
    body: str = ""


Action = Forward | Redirect | Respond


# -- routes --


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a route with its references resolved; independent of where it is attached."""

    name: str
    matches: tuple[Match, ...]
    action: Action
    request_headers: HeaderEdit = NO_EDIT
    response_headers: HeaderEdit = NO_EDIT
    cors: Cors | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One match of one rule, as it stands in a virtual host."""

    name: str
    match: Match
    rule: Rule
    policies: Policies
    origin: str


# -- upstreams --


class Protocol(Enum):
    HTTP1 = "http1"
    HTTP2 = "http2"


@dataclass(frozen=True, slots=True)
class SubjectName:
    """A name that a certificate may have: one of DNS (perhaps with a wildcard), or a URI."""

    kind: Literal["Hostname", "URI"]
    value: str


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """`ca_secret` names the SDS secret that holds the roots; None means the system's.

    The certificate must have one of `names`. `client_certificate` is shown to the backend: the name of its SDS secret.
    """

    sni: str | None = None
    ca_secret: str | None = None
    verify: bool = True
    names: tuple[SubjectName, ...] = ()
    client_certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """`blocked` says that nothing may be sent, since the backend could not be trusted."""

    id: ClusterId
    protocol: Protocol = Protocol.HTTP1
    tls: UpstreamTls | None = None
    origin: str = ""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`address` is an IP address, or the path of a Unix socket when `port` is 0."""

    address: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Share:
    """The endpoints of one of several backends of a cluster; what would go to none is dropped."""

    name: str
    weight: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """All endpoints are alike, or belong to the `shares` of several backends."""

    cluster: ClusterId
    endpoints: tuple[Endpoint, ...]
    origin: str = ""
    shares: tuple[Share, ...] = ()


# -- listeners --


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its key, PEM; `repr` shows neither."""

    name: str
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    origin: str = ""


@dataclass(frozen=True, slots=True)
class ClientValidation:
    """Certificates of clients: the SDS secret of who is trusted, and whether one without a valid one is turned away."""

    ca_secret: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A listener of a Gateway for requests: an SNI hostname (None: any), its certificates, its routes."""

    listener: str
    hostname: str | None
    route_config: str
    certificates: tuple[str, ...] = ()
    clients: ClientValidation | None = None


@dataclass(frozen=True, slots=True)
class StreamChain:
    """Connections (or datagrams) that are passed on as they are: those of these SNI hostnames, or all.

    TLS ends here where there are certificates. A chain without backends closes what comes; one that is no route's
    (`origin` is empty) does so for a listener whose hostname has no route, and that a wider one must not serve instead.
    """

    name: str
    backends: tuple[WeightedBackend, ...]
    hostnames: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class PortListener:
    """All listeners of a Gateway on one port: plain HTTP, TCP or UDP (one chain), or TLS (a chain a listener or route).

    `tls` says whether connections begin with a TLS handshake, whoever ends it.
    """

    gateway: str
    port: int
    transport: Literal["TCP", "UDP"]
    tls: bool
    chains: tuple[FilterChain | StreamChain, ...]
    origin: str = ""

    @property
    def name(self) -> str:
        suffix = "/UDP" if self.transport == "UDP" else ""
        return f"{self.gateway}/{self.port}{suffix}"

"""What a configuration says, whichever way it came: domains of nested descriptors, and the limits at their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

MAX_LIMIT = 2**32 - 1
MAX_DELAY_S = 60.0
MAX_IN_FLIGHT = 100_000
MAX_WINDOW_S = 10 * 365 * 86400
"""The longest window, of however many units: ten years."""


class Unit(Enum):
    """The length of a window, with its number in RateLimitResponse.RateLimit.Unit and in RateLimitUnit."""

    SECOND = (1, 1)
    MINUTE = (2, 60)
    HOUR = (3, 3600)
    DAY = (4, 86400)
    WEEK = (7, 7 * 86400)
    MONTH = (5, 30 * 86400)
    YEAR = (6, 365 * 86400)

    def __init__(self, wire: int, seconds: int) -> None:
        self.wire = wire
        self.seconds = seconds


class Algorithm(StrEnum):
    """How hits are counted against a limit."""

    FIXED_WINDOW = "fixed_window"
    """Counted from one multiple of the unit to the next."""
    SLIDING_WINDOW = "sliding_window"
    """Over the unit that ends now, taking the window before as spread evenly."""
    TOKEN_BUCKET = "token_bucket"  # noqa: S105  (no secret)
    """At an even rate, with a burst (GCRA)."""
    LEAKY_BUCKET = "leaky_bucket"
    """At an even rate, by holding answers back until it is their turn, for up to `delay`."""
    CONCURRENCY = "concurrency"
    """As many at a time; one that does not say that it ended counts for `lease_time`."""


class OnStoreError(StrEnum):
    """What a limit answers while its store cannot be asked."""

    ALLOW = "allow"
    DENY = "deny"
    LOCAL = "local"
    """As this process counts on its own, at the limit divided by the number of replicas."""


class Mode(StrEnum):
    """Who enforces a limit."""

    REQUEST = "request"
    """This service, asked for each request (RateLimitService)."""
    QUOTA = "quota"
    """Envoy, by the share of the limit that this service assigns to it (RateLimitQuotaService)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit. `path` names it in metrics: its descriptors, as `key_value.key`."""

    domain: str
    path: str
    unit: Unit
    requests_per_unit: int
    unit_multiplier: int = 1
    """How many units a window is long."""
    unlimited: bool = False
    name: str = ""
    replaces: tuple[str, ...] = ()
    shadow_mode: bool = False
    quota_mode: bool = False
    """Counts and reports in the dynamic metadata, but never refuses (envoyproxy/ratelimit's `quota_mode`)."""
    detailed_metric: bool = False
    """Whether metrics tell its values apart."""
    value_to_metric: bool = False
    """Whether metrics tell the values of some of its descriptors apart."""
    shared: tuple[tuple[int, str], ...] = ()
    """Entries of which all values count as one (`share_threshold`): the position, and the wildcard's `key_value*`."""
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    burst: int = 0
    """Token bucket: how many tokens it holds; 0 for `requests_per_unit`."""
    delay_s: float = 0.0
    """Leaky bucket: how long an answer is held at the most."""
    lease_time_s: float = 0.0
    """Concurrency: how long a request counts that does not say that it ended; 0 for the length of the unit."""
    lease: int = 1
    """How many hits are taken from the store at a time; 1 is exact."""
    mode: Mode = Mode.REQUEST
    on_store_error: OnStoreError = OnStoreError.ALLOW
    refined: bool = False
    """Whether requests may bring other numbers to its counters (`Domain.refines`)."""
    hidden: bool = False
    """Whether clients are told nothing of it by headers, but for Retry-After."""

    @property
    def seconds(self) -> int:
        """How long a window is."""
        return self.unit.seconds * self.unit_multiplier

    @property
    def per(self) -> str:
        """What `requests_per_unit` are per, in words."""
        unit = self.unit.name.lower()
        return unit if self.unit_multiplier == 1 else f"{self.unit_multiplier} {unit}s"

    @property
    def bucket_size(self) -> int:
        """How many tokens a token bucket holds."""
        return self.burst or self.requests_per_unit

    def fault(self) -> tuple[str, str] | None:
        """Returns the field that makes no sense and why, None for a sound rule."""
        for name, given, algorithm in (
            ("burst", self.burst, Algorithm.TOKEN_BUCKET),
            ("delay", self.delay_s, Algorithm.LEAKY_BUCKET),
            ("lease_time", self.lease_time_s, Algorithm.CONCURRENCY),
        ):
            if given and self.algorithm is not algorithm:
                return name, f"applies to algorithm {algorithm} alone"
        if self.lease > 1 and self.algorithm in (Algorithm.LEAKY_BUCKET, Algorithm.CONCURRENCY):
            return "precision", f"{self.algorithm} has no leases: each request is counted by itself"
        if self.unit_multiplier < 1 or self.seconds > MAX_WINDOW_S:
            most = MAX_WINDOW_S // self.unit.seconds
            return "unit_multiplier", f"is from 1 to {most}, as many {self.unit.name.lower()}s as ten years have"
        if self.unlimited and self.unit_multiplier > 1:
            return "unit_multiplier", "makes no sense with unlimited"
        if self.unlimited and self.algorithm is not Algorithm.FIXED_WINDOW:
            return "algorithm", "an unlimited descriptor has no algorithm"
        if self.burst and not self.requests_per_unit:
            return "burst", "tokens never come back with requests_per_unit: 0"
        if self.mode is Mode.QUOTA and (
            self.lease > 1 or self.algorithm in (Algorithm.LEAKY_BUCKET, Algorithm.CONCURRENCY)
        ):
            return "mode", "quota is for limits of a rate, without leases"
        if self.delay_s > MAX_DELAY_S:
            return "delay", f"is {MAX_DELAY_S:.0f}s at the most"
        if self.algorithm is Algorithm.CONCURRENCY and self.requests_per_unit > MAX_IN_FLIGHT:
            return "requests_per_unit", f"is {MAX_IN_FLIGHT} at the most with algorithm concurrency"
        return None


@dataclass(frozen=True, slots=True)
class Node:
    """A level of descriptors, looked up as envoyproxy/ratelimit does it: by `key_value`, then the first of the
    wildcards, then by `key`. `name` is the one by which its parent has it.
    """

    name: str = ""
    rule: Rule | None = None
    children: Mapping[str, Node] = field(default_factory=dict[str, "Node"])
    wildcards: tuple[tuple[str, Node], ...] = ()
    """Those of the children whose name ends with `*`, by what comes before it, in order."""
    value_to_metric: bool = False
    share_threshold: bool = False

    def find(self, key: str, value: str) -> Node | None:
        """Returns the child for an entry of a request."""
        name = f"{key}_{value}"
        child = self.children.get(name)
        if child is None:
            for prefix, wildcard in self.wildcards:
                if name.startswith(prefix):
                    return wildcard
            child = self.children.get(key)
        return child

    def rule_of(self, entries: Iterable[tuple[str, str]]) -> Rule | None:
        """Returns the rule that the entries of a descriptor lead to, one by one."""
        node = self
        for key, value in entries:
            child = node.find(key, value)
            if child is None:
                return None
            node = child
        return node.rule

    def rules(self) -> Iterator[Rule]:
        """Yields every rule at and below this node."""
        if self.rule is not None:
            yield self.rule
        for child in self.children.values():
            yield from child.rules()


@dataclass(frozen=True, slots=True)
class Domain:
    """The limits of one domain, and what holds for limits that a request brings itself."""

    name: str
    root: Node
    on_store_error: OnStoreError = OnStoreError.ALLOW
    counters_without_domain: bool = False
    """Whether counters are named by descriptors alone, so that limits of several domains can count together."""
    refines: bool = False
    """Whether a limit that a request brings changes the one that is configured, instead of standing in its place."""


@dataclass(frozen=True, slots=True)
class Config:
    """All domains in force."""

    domains: Mapping[str, Domain] = field(default_factory=dict[str, Domain])

    def rules(self) -> Iterator[Rule]:
        """Yields every rule of every domain."""
        for domain in self.domains.values():
            yield from domain.root.rules()


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a configuration, and where: file or resource, line (0: unknown) and path of the field."""

    source: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"

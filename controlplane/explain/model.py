"""What is said about a request: plain data, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["forward", "redirect", "respond", "deny", "refused", "no route", "passed on", "unreachable", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Source:
    """An object, a field of it, and where that is written (`file:line`, where it is in a file)."""

    object: str
    field: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a match. `given` is None where the request has no such thing."""

    what: str
    wanted: str
    given: str | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """One match of one rule; `rank` is its place in the order in which they are tried, from 1."""

    rank: int
    route: str
    match: str
    source: Source
    checks: tuple[Check, ...]
    chosen: bool = False

    @property
    def matches(self) -> bool:
        """Says whether all conditions hold."""
        return all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the request comes in. `names` are all listeners of the port that may have it."""

    gateway: str
    name: str
    port: int
    protocol: str
    source: Source
    why: str


@dataclass(frozen=True, slots=True)
class Host:
    """The virtual host, by its domain, in a RouteConfiguration; `domain` is None where none has the host."""

    configuration: str
    domain: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that the request goes through, in order, and the objects that ask for it."""

    name: str
    does: str
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of the policies in force, in words, and whose it is."""

    field: str
    value: str
    source: Source


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit with mode Quota: in words, whether Envoys enforce it, where, and whether it counts the request.

    `counts` is None where that cannot be told beforehand. `why` is about that or, where the service is asked about each
    request, about what keeps Envoys from enforcing it. `bucket` is the id by which Envoys report.
    """

    rule: str
    source: Source
    by_share: bool
    where: str
    counts: bool | None = None
    why: str = ""
    bucket: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a share of the requests goes. `cluster` is None where the reference is invalid."""

    object: str
    cluster: str | None
    weight: int
    percent: float
    endpoints: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happens with the request, in one sentence; details are about the way to the backend and back."""

    kind: Kind
    words: str
    status: int | None = None
    backends: tuple[Backend, ...] = ()
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Miss:
    """A route that would have the request, were it not for what `why` says."""

    match: str
    source: Source
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that there is to say. `candidates` are in order; `omitted` is how many more there are, farther off."""

    request: str
    outcome: Outcome
    listener: Listener | None = None
    host: Host | None = None
    candidates: tuple[Candidate, ...] = ()
    omitted: int = 0
    filters: tuple[Filter, ...] = ()
    policies: tuple[Setting, ...] = ()
    quotas: tuple[Quota, ...] = ()
    misses: tuple[Miss, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def chosen(self) -> Candidate | None:
        """The match that has the request."""
        return next((each for each in self.candidates if each.chosen), None)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return asdict(self)

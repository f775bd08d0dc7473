"""Counts what was decided, by rule: plain integers, because every request touches them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from ratelimit_service.model import Rule

Key = tuple[str, str]
"""Domain, and path of the descriptors."""

ALL, OTHER = "(all)", "(other)"
"""What stands for a path: no descriptor is called so."""
MAX_PATH = 256
"""Characters of a path that count: values may be long."""

_MAX_UNKNOWN = 100


class RuleStats:
    """The hits of one rule; those of the local cache are among those over the limit, and near ones among the within."""

    __slots__ = ("errors", "given_back", "near", "over", "over_local", "quota", "shadow", "total", "within")

    def __init__(self) -> None:
        self.total = 0
        self.within = 0
        self.near = 0
        self.over = 0
        self.over_local = 0
        self.shadow = 0
        self.quota = 0
        self.errors = 0
        self.given_back = 0

    def plus(self, other: RuleStats) -> RuleStats:
        """Returns the counts of both."""
        both = RuleStats()
        for name in RuleStats.__slots__:
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both


class Detail(StrEnum):
    """How far metrics tell limits apart."""

    DOMAIN = "domain"
    DESCRIPTOR = "descriptor"
    """Each descriptor of the configuration."""
    VALUE = "value"
    """Values too, where `detailed_metric` or `value_to_metric` asks for it, and limits that requests bring."""


class Counts(NamedTuple):
    """The counts of a configuration."""

    rules: dict[Key, RuleStats]
    folded: set[Key]
    domains: frozenset[str]


class StatsRegistry:
    """The counts of up to `max_descriptors` that are configured, and of up to `max_values` that requests bring about.

    What has no room is counted for its domain, as `OTHER`.
    """

    def __init__(
        self, *, detail: Detail = Detail.VALUE, max_descriptors: int = 10_000, max_values: int = 1_000
    ) -> None:
        self._detail = detail
        self._max_descriptors = max_descriptors
        self._max_values = max_values
        self._rules: dict[Key, RuleStats] = {}
        self._folded: set[Key] = set()
        self._found: dict[Key, RuleStats] = {}
        self._shared: dict[Key, RuleStats] = {}
        self.folded_values = 0
        """How often a value had no room."""
        self.unknown_domains: dict[str, int] = {}
        """Descriptors of requests of domains that are not configured, by domain; `OTHER` for those without room."""
        self.unknown_domain = 0
        self.other_version = 0
        """How many requests were judged by another version of their policy than the one that they name."""
        self.no_limit = 0
        self.malformed = 0

    @property
    def folded(self) -> int:
        """How many configured descriptors have no room."""
        return len(self._folded)

    def configure(self, rules: Iterable[Rule]) -> None:
        """Keeps counts for these rules: what was counted stays, rules that are gone take theirs with them."""
        self.use(self.prepared(rules))

    def prepared(self, rules: Iterable[Rule]) -> Counts:
        """Returns the counts to `use` for these rules; changes nothing, and may take its time in another thread."""
        keys = dict.fromkeys((rule.domain, self._path_of(rule)) for rule in rules)
        kept = {key: stats for key, stats in self._rules.items() if key in keys}
        # Whoever counts for OTHER goes on to do so: an unchanged domain keeps what it has of us.
        folded = self._folded & keys.keys()
        for key in keys:
            if key in kept or key in folded:
                continue
            if len(kept) < self._max_descriptors:
                kept[key] = RuleStats()
            else:
                folded.add(key)
        return Counts(kept, folded, frozenset(domain for domain, _ in keys))

    def use(self, counts: Counts) -> None:
        """Keeps the counts that were prepared."""
        self._rules, self._folded = counts.rules, counts.folded
        self._found = {key: stats for key, stats in self._found.items() if key[0] in counts.domains}
        self._shared = {key: stats for key, stats in self._shared.items() if key[0] in counts.domains}

    def of(self, domain: str, path: str, configured: str = "") -> RuleStats:
        """Returns the counts for a path, below the configured descriptor of that path."""
        if self._detail is not Detail.VALUE:
            found = self._rules.get((domain, ALL if self._detail is Detail.DOMAIN else configured))
            return found or self._other(domain)
        key = domain, path[:MAX_PATH]
        found = self._rules.get(key) or self._found.get(key)
        if found is not None:
            return found
        if key in self._folded:
            return self._other(domain)
        if len(self._found) >= self._max_values:
            self.folded_values += 1
            return self._other(domain)
        found = self._found[key] = RuleStats()
        return found

    def count_unknown(self, domain: str, descriptors: int) -> None:
        """Counts a request of a domain that is not configured."""
        self.unknown_domain += 1
        domain = domain[:MAX_PATH]
        if domain not in self.unknown_domains and len(self.unknown_domains) >= _MAX_UNKNOWN:
            domain = OTHER
        self.unknown_domains[domain] = self.unknown_domains.get(domain, 0) + descriptors

    def items(self) -> Iterator[tuple[Key, RuleStats]]:
        """Yields (domain, path) and the counts, each path once."""
        found = self._found
        for key, stats in self._rules.items():
            # A value may have been found before it got a descriptor of its own, or be found again without it.
            yield key, stats.plus(found[key]) if key in found else stats
        yield from ((key, stats) for key, stats in found.items() if key not in self._rules)
        yield from self._shared.items()

    def _path_of(self, rule: Rule) -> str:
        return ALL if self._detail is Detail.DOMAIN else rule.path[:MAX_PATH]

    def _other(self, domain: str) -> RuleStats:
        return self._shared.setdefault((domain, OTHER), RuleStats())

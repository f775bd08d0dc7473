"""Counts what was decided, by rule: plain integers, because every request touches them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ratelimit_service.model import Rule

Key = tuple[str, str]
"""Domain, and path of the descriptors."""

OTHER = "other"


class RuleStats:
    """The hits of one rule; those of the local cache are among those over the limit, and near ones among the within."""

    __slots__ = ("errors", "near", "over", "over_local", "quota", "shadow", "total", "within")

    def __init__(self) -> None:
        self.total = 0
        self.within = 0
        self.near = 0
        self.over = 0
        self.over_local = 0
        self.shadow = 0
        self.quota = 0
        self.errors = 0


class StatsRegistry:
    """The counts of the rules in force, and of up to `extra` descriptors that requests bring about."""

    def __init__(self, *, extra: int = 1000) -> None:
        self._extra = extra
        self._rules: dict[Key, RuleStats] = {}
        self._found: dict[Key, RuleStats] = {}
        self.unknown_domain = 0
        self.no_limit = 0
        self.malformed = 0

    def configure(self, rules: Iterable[Rule]) -> None:
        """Keeps counts for these rules: what was counted stays, rules that are gone take theirs with them."""
        kept: dict[Key, RuleStats] = {}
        for rule in rules:
            key = rule.domain, rule.path
            kept[key] = self._rules.get(key) or RuleStats()
        self._rules = kept
        domains = {domain for domain, _ in kept}
        self._found = {key: stats for key, stats in self._found.items() if key[0] in domains}

    def of(self, domain: str, path: str) -> RuleStats:
        """Returns the counts of a rule; past the bound, those that all other descriptors of the domain share."""
        key = domain, path
        found = self._rules.get(key) or self._found.get(key)
        if found is None:
            if len(self._found) >= self._extra and path != OTHER:
                return self.of(domain, OTHER)
            found = self._found[key] = RuleStats()
        return found

    def items(self) -> Iterator[tuple[Key, RuleStats]]:
        """Yields (domain, path) and the counts."""
        yield from self._rules.items()
        yield from self._found.items()

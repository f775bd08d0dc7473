"""What limits and their counters are called after the entries of a request."""

from __future__ import annotations

from ratelimit_service.model import Domain, Rule
from ratelimit_service.reading import Entries


def metric_path(domain: Domain, rule: Rule, entries: Entries) -> str:
    """Returns what envoyproxy/ratelimit calls a limit in its statistics when values are told apart."""
    if rule.detailed_metric:
        if rule.shared:
            counted = zip(entries, counted_values(rule, entries), strict=True)
            return ".".join(_named(key, value) for (key, _), value in counted)
        return ".".join(f"{key}_{value}" for key, value in entries)
    parts: list[str] = []
    node = domain.root
    for key, value in entries:
        node = node.find(key, value) or node
        told = node.value_to_metric and not node.share_threshold
        # A wildcard without a value stands for any key that begins so: the key is told, and the wildcard as its value.
        name = _named(key, node.name.removeprefix(f"{key}_")) if node.name.endswith("*") else node.name
        parts.append(_named(key, value) if told else name)
    return ".".join(parts)


def path_of(entries: Entries) -> str:
    """Returns what a limit is called that a request brings."""
    return ".".join(_named(key, value) for key, value in entries)


def counted_values(rule: Rule, entries: Entries) -> list[str]:
    """Returns the values that a counter is of: of wildcards that share one, the wildcard."""
    values = [value for _, value in entries]
    for position, name in rule.shared:
        values[position] = name.removeprefix(f"{entries[position][0]}_")
    return values


def _named(key: str, value: str) -> str:
    return f"{key}_{value}" if value else key

"""The counts of hits in Prometheus' text format: thousands of series, told without keeping requests waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from ratelimit_service.stats import Key, RuleStats, StatsRegistry

HITS = {
    "total": "Hits on a limit.",
    "within": "Hits within a limit.",
    "near": "Hits within a limit, or reaching it, that were near it.",
    "over": "Hits over a limit, with those in shadow and quota mode.",
    "over_local": "Hits over a limit that was known without asking the store.",
    "shadow": "Hits over a limit in shadow mode, which were let through.",
    "quota": "Hits over a limit in quota mode, which were let through.",
    "given_back": "Hits that requests gave back, which are taken off no other count.",
    "errors": "Hits that the store could not judge: they followed on_store_error.",
}
_AT_A_TIME = 500
"""Series between which requests have their turn: some 0.2 ms."""

Rows = Sequence[tuple[str, RuleStats]]
"""(labels, encoded; counts)."""


async def exposition(stats: StatsRegistry) -> AsyncIterator[str]:
    """Yields the text, in parts."""
    rows: list[tuple[str, RuleStats]] = []
    found = iter(list(stats.items()))
    while some := list(islice(found, _AT_A_TIME)):
        rows += ((_labels(key), counts) for key, counts in some)
        await asyncio.sleep(0)
    for kind, help in HITS.items():
        if kind == "total":
            parts = counter("dragoman_ratelimit_hits", help, kind, rows)
        else:
            parts = counter(f"dragoman_ratelimit_hits_{kind}", help, kind, rows)
        for part in parts:
            yield part
            await asyncio.sleep(0)


def counter(name: str, help: str, kind: str, rows: Rows) -> Iterator[str]:
    """Yields a counter in parts."""
    yield f"# HELP {name}_total {help}\n# TYPE {name}_total counter\n"
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        yield "".join([f"{name}_total{labels} {getattr(counts, kind)}\n" for labels, counts in part])


def _labels(key: Key) -> str:
    domain, path = key
    return f'{{domain="{_escaped(domain)}",descriptor="{_escaped(path)}"}}'


def _escaped(value: str) -> str:
    # https://prometheus.io/docs/instrumenting/exposition_formats/: a lone surrogate cannot be sent.
    value = value.encode("utf-8", "replace").decode()
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

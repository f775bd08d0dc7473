"""Shows the configuration that is in force: as envoyproxy/ratelimit's lines, or whole, in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain, islice

from ratelimit_service.model import Algorithm, Config, Mode, Rule
from ratelimit_service.service import Service

_AT_A_TIME = 500
"""Limits between which others have their turn."""


async def as_text(config: Config) -> AsyncIterator[str]:
    """Yields a line for each limit."""
    async for lines in _in_turns(map(_line, config.rules())):
        yield lines


async def as_json(service: Service) -> AsyncIterator[str]:
    """Yields one object: how many configurations were loaded, why the last one was refused, and all limits."""
    rejected = None if service.rejected is None else str(service.rejected)
    head = json.dumps({"loads": service.loads, "rejected": rejected, "domains": list(service.config.domains)})
    limits = (json.dumps(_fields(rule)) for rule in service.config.rules())
    separated = chain(islice(limits, 1), (f",\n{limit}" for limit in limits))
    async for part in _in_turns(chain([f'{head[:-1]}, "limits": [\n'], separated, ["\n]}\n"])):
        yield part


async def _in_turns(parts: Iterable[str]) -> AsyncIterator[str]:
    iterator: Iterator[str] = iter(parts)
    while some := "".join(islice(iterator, _AT_A_TIME)):
        yield some
        await asyncio.sleep(0)


def _line(rule: Rule) -> str:
    unit = "UNKNOWN" if rule.unlimited else rule.unit.name
    line = (
        f"{rule.domain}.{rule.path}: unit={unit} requests_per_unit={rule.requests_per_unit}, "
        f"shadow_mode: {_bool(rule.shadow_mode)}, quota_mode: {_bool(rule.quota_mode)}"
    )
    own = [f", {name}: {value}" for name, value in _own(rule).items()]
    return line + "".join(own) + "\n"


def _fields(rule: Rule) -> dict[str, object]:
    found: dict[str, object] = {"domain": rule.domain, "descriptor": rule.path}
    if rule.unlimited:
        found["unlimited"] = True
    else:
        found |= {"unit": rule.unit.name.lower(), "requests_per_unit": rule.requests_per_unit}
    if rule.name:
        found["name"] = rule.name
    if rule.replaces:
        found["replaces"] = list(rule.replaces)
    flags = {"shadow_mode": rule.shadow_mode, "quota_mode": rule.quota_mode, "detailed_metric": rule.detailed_metric}
    return {**found, **{name: True for name, is_set in flags.items() if is_set}, **_own(rule)}


def _own(rule: Rule) -> dict[str, object]:
    """What only we have, where it is not as they do it."""
    shown: dict[str, object] = {}
    if rule.unit_multiplier > 1:
        shown["unit_multiplier"] = rule.unit_multiplier
    if rule.algorithm is not Algorithm.FIXED_WINDOW:
        shown["algorithm"] = str(rule.algorithm)
    for name, value in (("burst", rule.burst), ("delay_s", rule.delay_s), ("lease_time_s", rule.lease_time_s)):
        if value:
            shown[name] = value
    if rule.lease > 1:
        shown["precision"] = f"lease({rule.lease})"
    if rule.mode is not Mode.REQUEST:
        shown["mode"] = str(rule.mode)
    if rule.on_store_error.value != "allow":
        shown["on_store_error"] = str(rule.on_store_error)
    return shown


def _bool(value: bool) -> str:
    return "true" if value else "false"

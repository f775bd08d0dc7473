"""Translates envoyproxy/ratelimit's variables for statsd and DogStatsD."""

from __future__ import annotations

import json
from typing import Final

from ratelimit_service.environment_given import Given

_LONGEST_S: Final = 3600.0
_SHORTEST_S: Final = 0.1


def statsd(given: Given) -> None:
    """Sets where counts are sent to, if anywhere: as there, to localhost unless something else is said."""
    if given.flag("DISABLE_STATS"):
        return
    said = bool(given.text("USE_STATSD"))
    datadog, plain = given.flag("USE_DOG_STATSD"), given.flag("USE_STATSD", default=True)
    if datadog and plain and said:
        given.out.faults.append("USE_STATSD and USE_DOG_STATSD exclude one another")
    elif datadog:
        _sent(given, "dogstatsd")
        _rewritten(given)
    elif plain and (said or not given.flag("USE_PROMETHEUS")):
        protocol = given.text("STATSD_PROTOCOL", "tcp")
        if protocol.removesuffix("4").removesuffix("6") not in ("tcp", "udp"):
            given.out.faults.append("STATSD_PROTOCOL is neither tcp nor udp")
            return
        _sent(given, protocol[:3])


def _sent(given: Given, scheme: str) -> None:
    host, port = given.text("STATSD_HOST", "localhost"), given.text("STATSD_PORT", "8125")
    settings = given.out.settings
    settings["statsd"] = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    given.put("statsd_tags", ",".join(f"{name}:{value}" for name, value in given.pairs("EXTRA_TAGS").items()))
    every_s = given.seconds("STATS_FLUSH_INTERVAL", 10.0)
    settings["statsd_interval_s"] = f"{min(max(every_s, _SHORTEST_S), _LONGEST_S):g}"


def _rewritten(given: Given) -> None:
    rewrites: dict[str, object] = {}
    for key in filter(None, given.text("USE_DOG_STATSD_MOGRIFIERS").split(",")):
        prefix = f"DOG_STATSD_MOGRIFIER_{key.upper()}"
        pattern, name = given.text(f"{prefix}_PATTERN"), given.text(f"{prefix}_NAME")
        if not pattern or not name:
            given.out.faults.append(f"{prefix}_PATTERN and {prefix}_NAME go together")
            return
        rewrites[key] = {"pattern": pattern, "name": name, "tags": given.pairs(f"{prefix}_TAGS")}
    if rewrites:
        given.out.settings["statsd_rewrites"] = json.dumps(rewrites)

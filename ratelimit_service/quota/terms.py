"""What a rule means in quota mode: the rate that is divided, and the token bucket that enforces a share of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ratelimit_service.model import MAX_LIMIT, Algorithm, Config, Mode, Node, OnStoreError, Rule
from ratelimit_service.versions import Versions

DOMAIN_KEY = "dragoman.domain"
"""An entry of a bucket's id that names its domain, where one stream is about several."""
TIME_TO_LIVE_S = 60
"""How long Envoy goes on with what it was told when it hears no more."""
LOCAL_TIME_TO_LIVE_S = 86_400
"""The same of a limit with on_store_error: local: its last share is the best that an Envoy alone can know."""

_BURST_OF_UNIT = 0.05
_BURST_S = 0.2
_STEPS = 10_000
_LONGEST_FILL_S = 10**9
_MOST_TRIES = 1_000


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """Envoy's token bucket: `tokens_per_fill` come evenly over `fill_interval_s`."""

    max_tokens: int
    tokens_per_fill: int
    fill_interval_s: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What is divided, in requests per second, and what the buckets of all Envoys hold together."""

    limit: float
    burst: float
    fill_interval_s: int
    time_to_live_s: int
    blanket: bool | None = None
    """Let all pass, or none, instead of any bucket."""

    @classmethod
    def of(cls, rule: Rule) -> Terms:
        """Returns the terms of a rule."""
        limit = rule.requests_per_unit / rule.seconds
        if rule.algorithm is Algorithm.TOKEN_BUCKET and rule.burst:
            burst = float(rule.burst)
        else:
            burst = max(rule.requests_per_unit * _BURST_OF_UNIT, limit * _BURST_S)
        # Envoy takes whole seconds alone, and whole tokens: over a long time these make any rate.
        fill_s = min(_LONGEST_FILL_S, math.ceil(_STEPS / limit)) if limit else 1
        live_s = LOCAL_TIME_TO_LIVE_S if rule.on_store_error is OnStoreError.LOCAL else TIME_TO_LIVE_S
        blanket = True if rule.unlimited or rule.shadow_mode or rule.quota_mode else None
        if blanket is None and not rule.requests_per_unit:
            blanket = False
        return cls(limit, burst, max(1, fill_s), live_s, blanket)

    def bucket(self, share: float) -> TokenBucket:
        """Returns what enforces a share, in requests per second; every bucket lets a first request through."""
        burst = self.burst * share / self.limit if self.limit else 0.0
        return TokenBucket(
            max_tokens=min(MAX_LIMIT, max(1, math.floor(burst))),
            tokens_per_fill=min(MAX_LIMIT, max(1, math.floor(share * self.fill_interval_s))),
            fill_interval_s=self.fill_interval_s,
        )


def find_rule(
    config: Config, domain: str, bucket: Mapping[str, str], *, versions: Versions | None = None
) -> Rule | None:
    """Returns the rule with `mode: quota` that a bucket is about; None where there is none.

    A bucket's id has no order: the descriptors of the configuration give it one. A path through them that uses every
    entry once leads to the rule; of several, the one whose keys come first in the alphabet. With `versions`, those of a
    policy do for one that is not known.
    """
    entries = dict(sorted(bucket.items()))
    name = entries.pop(DOMAIN_KEY, domain)
    known = config.domains.get(name)
    if not entries:
        return None
    for each in (known,) if known is not None else versions.of(name) if versions is not None else ():
        rule = _Search().find(each.root, entries)
        if rule is not None and rule.mode is Mode.QUOTA:
            return rule
    return None


class _Search:
    def __init__(self) -> None:
        self._tries = 0

    def find(self, node: Node, entries: dict[str, str]) -> Rule | None:
        if not entries:
            return node.rule
        self._tries += 1
        if self._tries > _MOST_TRIES:
            return None
        for key, value in entries.items():
            child = node.find(key, value)
            if child is not None:
                rule = self.find(child, {other: entries[other] for other in entries if other != key})
                if rule is not None:
                    return rule
        return None

"""All buckets that Envoys report, each divided by itself, and the bounds on what they may have us remember."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ratelimit_service.model import Config, Rule
from ratelimit_service.quota.division import LINGER_S, SETTLE_S, Division
from ratelimit_service.quota.terms import Terms, TokenBucket, find_rule
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.versions import Versions

BucketKey = tuple[str, tuple[tuple[str, str], ...]]
"""The domain that the stream named, and the entries of the bucket's id in order of their keys."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is remembered at the most."""

    buckets: int = 100_000
    buckets_per_stream: int = 10_000
    entries: int = 32
    key_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class Usage:
    """What an Envoy tells of a bucket: requests since it told last, `elapsed_s` ago."""

    entries: Mapping[str, str]
    allowed: int
    denied: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Action:
    """What a stream is told of a bucket: to let all pass or none, to enforce a token bucket, or to forget it (None)."""

    stream: int
    key: BucketKey
    share: float = 0.0
    time_to_live_s: int = 0
    strategy: bool | TokenBucket | None = None


class _Bucket:
    __slots__ = ("config", "division", "rule", "terms")

    def __init__(self, rule: Rule, config: Config, *, settled_at: float) -> None:
        self.rule: Rule = rule
        self.config = config
        self.terms = Terms.of(rule)
        # A lost message is made up for: Envoy is told again twice before what it has runs out.
        self.division = Division(
            self.terms.limit,
            burst=self.terms.burst,
            refresh_s=min(self.terms.time_to_live_s, 60) / 3,
            settled_at=settled_at,
        )

    def change(self, rule: Rule) -> None:
        """Takes in what the rule now says."""
        if rule != self.rule:
            self.rule, self.terms = rule, Terms.of(rule)
            self.division.change(self.terms.limit, self.terms.burst)


class Ledger:
    """Takes in what streams say, and says what they are to be told; knows nothing of how it travels.

    `config` returns the configuration in force. What is to be told is asked for by `due`: at once what `urgent` says
    that there is, the rest every now and then.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        stats: StatsRegistry,
        *,
        clock: Callable[[], float],
        bounds: Bounds | None = None,
    ) -> None:
        self._config = config
        self._seen = config()
        self._versions = Versions(self._seen)
        self._stats = stats
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._settled_at: float | None = None
        self._buckets: dict[BucketKey, _Bucket] = {}
        self._streams: dict[int, set[BucketKey]] = {}
        self._urgent: dict[BucketKey, None] = {}
        self._later: dict[BucketKey, None] = {}
        self._turned_away: list[Action] = []
        self._left: deque[tuple[float, BucketKey]] = deque()
        self.reports = 0
        self.refused = 0
        """Reports of buckets that there was no room for."""
        self.unknown = 0
        """Reports of buckets that no rule is about."""
        self.assigned = 0
        self.abandoned = 0

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for what `due` has to say."""
        return bool(self._urgent or self._turned_away)

    @property
    def buckets(self) -> int:
        """How many buckets are divided."""
        return len(self._buckets)

    def shares(self) -> dict[tuple[str, str], tuple[int, float]]:
        """Returns for each rule, by domain and path, how many parts there are and what they come to a second."""
        found: dict[tuple[str, str], tuple[int, float]] = {}
        for bucket in self._buckets.values():
            key = bucket.rule.domain, bucket.rule.path
            count, held = found.get(key, (0, 0.0))
            found[key] = count + len(bucket.division.holders), held + bucket.division.held
        return found

    def open(self, stream: int) -> None:
        """Takes in a new stream."""
        if self._settled_at is None:
            # Not from our start on: in a cluster it takes Envoys a while to hear where we are.
            self._settled_at = self._clock() + SETTLE_S
        self._streams[stream] = set()

    def close(self, stream: int) -> None:
        """Takes in that a stream ended: what it had is kept until its Envoy could have come back."""
        now = self._clock()
        for key in self._streams.pop(stream, ()):
            bucket = self._buckets[key]
            bucket.division.leave(stream, now)
            self._left.append((now + LINGER_S, key))

    def report(self, stream: int, domain: str, usage: Usage) -> None:
        """Takes in what a stream reports of one bucket."""
        self.reports += 1
        key: BucketKey = domain, tuple(sorted(usage.entries.items()))
        bucket = self._buckets.get(key)
        own = self._streams[stream]
        if bucket is None or key not in own:
            bucket = self._joined(own, key, bucket, usage)
            if bucket is None:
                # Envoy would keep it, and report it, for ever. One that is in use it would only make anew.
                if not usage.allowed and not usage.denied:
                    self._turned_away.append(Action(stream, key))
                    self.abandoned += 1
                return
        now = self._clock()
        first = bucket.division.report(
            stream, now, allowed=usage.allowed, denied=usage.denied, elapsed_s=usage.elapsed_s
        )
        self._count(bucket.rule, usage)
        (self._urgent if first else self._later)[key] = None

    def sent(self, action: Action) -> None:
        """Takes in that an action is on its way to its stream."""
        bucket = self._buckets.get(action.key)
        if bucket is None or action.strategy is None:
            return
        if bucket.division.sent(action.stream, action.share, self._clock()):
            self._urgent[action.key] = None

    def due(self, *, all_of_it: bool = False) -> Iterator[list[Action]]:
        """Yields bucket by bucket what is to be told: what is urgent, or all of it. The caller may pause in between."""
        if all_of_it:
            self._fall_due()
        if self._turned_away:
            turned_away, self._turned_away = self._turned_away, []
            yield turned_away
        while self._urgent:
            yield self._actions(_pop(self._urgent))
        while all_of_it and self._later:
            yield self._actions(_pop(self._later))

    def _fall_due(self) -> None:
        now = self._clock()
        while self._left and self._left[0][0] <= now:
            self._later[self._left.popleft()[1]] = None
        if self._settled_at and now >= self._settled_at:
            self._settled_at = 0.0
            self._later.update(dict.fromkeys(self._buckets))
        config = self._config()
        if config is not self._seen:
            self._seen = config
            self._versions = Versions(config)
            self._later.update(dict.fromkeys(self._buckets))

    def _actions(self, key: BucketKey) -> list[Action]:
        bucket = self._buckets.get(key)
        if bucket is None:
            return []
        now = self._clock()
        division = bucket.division
        if bucket.config is not self._seen:
            bucket.config = self._seen
            rule = find_rule(self._seen, key[0], dict(key[1]))
            if rule is None:
                del self._buckets[key]
                return self._abandon(key, division, list(division.holders))
            bucket.change(rule)
        actions = self._abandon(key, division, division.idle(now))
        terms = bucket.terms
        for stream, share in division.assign(now).items():
            strategy = terms.bucket(share) if terms.blanket is None else terms.blanket
            actions.append(Action(stream, key, share, terms.time_to_live_s, strategy))
            self.assigned += 1
        if division.empty:
            del self._buckets[key]
        return actions

    def _abandon(self, key: BucketKey, division: Division, streams: list[int]) -> list[Action]:
        for stream in streams:
            division.drop(stream)
            self._streams[stream].discard(key)
        self.abandoned += len(streams)
        return [Action(stream, key) for stream in streams]

    def _joined(self, own: set[BucketKey], key: BucketKey, bucket: _Bucket | None, usage: Usage) -> _Bucket | None:
        size = sum(len(name) + len(value) for name, value in key[1])
        bounds = self._bounds
        if len(key[1]) > bounds.entries or size > bounds.key_bytes or len(own) >= bounds.buckets_per_stream:
            self.refused += 1
            return None
        if bucket is None:
            # One that is not in use is of an edit that is over, and to be forgotten.
            versions = self._versions if usage.allowed or usage.denied else None
            rule = find_rule(self._seen, key[0], usage.entries, versions=versions)
            if rule is None:
                self.unknown += 1
                return None
            if len(self._buckets) >= bounds.buckets:
                self.refused += 1
                return None
            bucket = self._buckets[key] = _Bucket(rule, self._seen, settled_at=self._settled_at or 0.0)
        own.add(key)
        return bucket

    def _count(self, rule: Rule, usage: Usage) -> None:
        stats = self._stats.of(rule.domain, rule.path, rule.path)
        stats.total += usage.allowed + usage.denied
        stats.within += usage.allowed
        stats.over += usage.denied


def _pop(keys: dict[BucketKey, None]) -> BucketKey:
    key = next(iter(keys))
    del keys[key]
    return key

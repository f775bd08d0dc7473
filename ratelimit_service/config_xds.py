"""Reads `ratelimit.config.ratelimit.v3.RateLimitConfig`, the configuration as a management server sends it over xDS."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as pb
from ratelimit_service.build import MAX_DEPTH, MAX_DESCRIPTORS, DraftDescriptor, Part, Place, build_domain, join
from ratelimit_service.model import Algorithm, Config, Domain, Fault, Mode, OnStoreError, Rule, Unit

TYPE_URL: Final = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
MAX_FAULTS: Final = 1000

# Numbers of RateLimitUnit, which are those of RateLimitResponse.RateLimit.Unit but for none.
_UNITS: Final = {
    pb.SECOND: Unit.SECOND,
    pb.MINUTE: Unit.MINUTE,
    pb.HOUR: Unit.HOUR,
    pb.DAY: Unit.DAY,
    pb.WEEK: Unit.WEEK,
    pb.MONTH: Unit.MONTH,
    pb.YEAR: Unit.YEAR,
}
_ON_STORE_ERROR: Final = {pb.ALLOW: OnStoreError.ALLOW, pb.DENY: OnStoreError.DENY, pb.LOCAL: OnStoreError.LOCAL}
_ALGORITHMS: Final = {
    pb.ALGORITHM_UNSPECIFIED: Algorithm.FIXED_WINDOW,
    pb.FIXED_WINDOW: Algorithm.FIXED_WINDOW,
    pb.SLIDING_WINDOW: Algorithm.SLIDING_WINDOW,
    pb.TOKEN_BUCKET: Algorithm.TOKEN_BUCKET,
    pb.LEAKY_BUCKET: Algorithm.LEAKY_BUCKET,
    pb.CONCURRENCY: Algorithm.CONCURRENCY,
}
_MODES: Final = {pb.MODE_UNSPECIFIED: Mode.REQUEST, pb.REQUEST: Mode.REQUEST, pb.QUOTA: Mode.QUOTA}


class Resources:
    """All resources that are held, and the configuration that they are together."""

    def __init__(self, held: Mapping[str, _Held] = MappingProxyType({}), *, merge_domains: bool = False) -> None:
        self._held = held
        self._merge_domains = merge_domains
        self.config = Config()

    def updated(self, changed: Mapping[str, bytes], removed: Collection[str]) -> tuple[Resources, list[Fault]]:
        """Returns what comes of an update, and the faults; with any, it is not to be used. This one stays as it is."""
        held = {name: each for name, each in self._held.items() if name not in removed}
        faults: list[Fault] = []
        for name, content in changed.items():
            digest = hashlib.sha256(content).digest()
            before = held.get(name)
            if before is not None and before.digest == digest:
                continue
            domain, wrong = parse_resource(content, source=name)
            faults += wrong
            if domain is not None:
                held[name] = _Held(digest, domain)
        parts = (Part(each.domain, name) for name, each in held.items())
        domains, twice = join(parts, merge_domains=self._merge_domains, kind="resource")
        made = Resources(held, merge_domains=self._merge_domains)
        made.config = Config(domains)
        return made, faults + twice


class _Held(NamedTuple):
    digest: bytes
    domain: Domain


def parse_resource(content: bytes, *, source: str) -> tuple[Domain | None, list[Fault]]:
    """Returns the domain of a resource, and the faults; with any, the domain is not to be used."""
    try:
        message = pb.RateLimitConfig.FromString(content)
    except DecodeError as error:
        return None, [Fault(source, 0, "", f"is not a RateLimitConfig: {error}")]
    if not message.domain:
        return None, [Fault(source, 0, "domain", "must not be empty")]
    reader = _Reader(source)
    try:
        return reader.domain(message), reader.faults
    except _TooLargeError as error:
        return None, [*reader.faults, Fault(source, 0, "", str(error))]


def name_of(content: bytes) -> str:
    """Returns what a resource calls itself, its domain where it has no name; raises ValueError."""
    try:
        message = pb.RateLimitConfig.FromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return message.name or message.domain


class _TooLargeError(Exception):
    """The resource is more than anybody wants to limit."""


class _Reader:
    def __init__(self, source: str) -> None:
        self.faults: list[Fault] = []
        self._source = source
        self._descriptors = 0
        self._on_store_error = OnStoreError.ALLOW
        self._refines = False

    def domain(self, given: pb.RateLimitConfig) -> Domain:
        chosen = given.dragoman.on_store_error
        self._on_store_error = self._choice("dragoman.on_store_error", chosen, OnStoreError.ALLOW)
        self._refines = given.dragoman.refines
        made = build_domain(given.domain, self._on_store_error, self._below(given.descriptors, "descriptors", 1))
        own = given.dragoman
        return replace(made, counters_without_domain=own.counters_without_domain, refines=own.refines)

    def _below(self, given: Iterable[pb.RateLimitDescriptor], path: str, depth: int) -> Iterator[DraftDescriptor]:
        return (self._descriptor(item, f"{path}[{index}]", depth) for index, item in enumerate(given))

    def _descriptor(self, given: pb.RateLimitDescriptor, path: str, depth: int) -> DraftDescriptor:
        self._descriptors += 1
        if depth > MAX_DEPTH or self._descriptors > MAX_DESCRIPTORS:
            raise _TooLargeError(f"has more than {MAX_DEPTH} levels or {MAX_DESCRIPTORS} descriptors")
        rule = partial(self._rule, given, f"{path}.rate_limit") if given.HasField("rate_limit") else None
        below = self._below(given.descriptors, f"{path}.descriptors", depth + 1)
        own = given.dragoman
        return DraftDescriptor(
            given.key,
            given.value,
            rule,
            below,
            lambda name, message: self._fault(f"{path}.{name}", message),
            value_to_metric=own.value_to_metric,
            share_threshold=own.share_threshold,
        )

    def _rule(self, descriptor: pb.RateLimitDescriptor, path: str, place: Place) -> Rule:
        given, own = descriptor.rate_limit, descriptor.rate_limit.dragoman
        algorithm = _ALGORITHMS.get(own.algorithm)
        if algorithm is None:
            self._fault(f"{path}.dragoman.algorithm", f"{own.algorithm} is no algorithm known here")
        mode = _MODES.get(own.mode)
        if mode is None:
            self._fault(f"{path}.dragoman.mode", f"{own.mode} is no mode known here")
        return Rule(
            domain=place.domain,
            path=place.path,
            shared=place.shared,
            value_to_metric=place.value_to_metric,
            unit=self._unit(given, path),
            requests_per_unit=given.requests_per_unit,
            unit_multiplier=own.unit_multiplier or 1,
            unlimited=given.unlimited,
            name=given.name,
            replaces=self._replaces(given, path),
            shadow_mode=descriptor.shadow_mode,
            quota_mode=descriptor.quota_mode,
            detailed_metric=descriptor.detailed_metric,
            algorithm=algorithm or Algorithm.FIXED_WINDOW,
            burst=own.burst,
            delay_s=own.delay_ms / 1000,
            lease_time_s=own.lease_time_ms / 1000,
            lease=max(1, own.lease),
            refined=self._refines,
            hidden=own.hidden,
            mode=mode or Mode.REQUEST,
            on_store_error=self._choice(f"{path}.dragoman.on_store_error", own.on_store_error, self._on_store_error),
        )

    def _unit(self, given: pb.RateLimitPolicy, path: str) -> Unit:
        unit = _UNITS.get(given.unit)
        if given.unlimited and given.unit != pb.UNKNOWN:
            self._fault(f"{path}.unit", "makes no sense with unlimited")
        elif unit is None and not given.unlimited:
            self._fault(f"{path}.unit", f"{given.unit} is no unit")
        return unit or Unit.SECOND

    def _replaces(self, given: pb.RateLimitPolicy, path: str) -> tuple[str, ...]:
        for index, item in enumerate(given.replaces):
            if not item.name:
                self._fault(f"{path}.replaces[{index}].name", "must not be empty")
        return tuple(item.name for item in given.replaces)

    def _choice(self, path: str, given: pb.OnStoreError, default: OnStoreError) -> OnStoreError:
        if given == pb.ON_STORE_ERROR_UNSPECIFIED:
            return default
        chosen = _ON_STORE_ERROR.get(given)
        if chosen is None:
            self._fault(path, f"{given} is no choice known here")
        return chosen or default

    def _fault(self, path: str, message: str) -> None:
        if len(self.faults) >= MAX_FAULTS:
            raise _TooLargeError(f"has more than {MAX_FAULTS} faults")
        self.faults.append(Fault(self._source, 0, path, message))

"""Reads `ratelimit.config.ratelimit.v3.RateLimitConfig`, the configuration as a management server sends it over xDS."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as pb
from ratelimit_service.build import MAX_DEPTH, DraftDescriptor, build_domain
from ratelimit_service.model import Algorithm, Domain, Fault, OnStoreError, Rule, Unit

TYPE_URL = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"

_UNITS = {unit.wire: unit for unit in Unit}
_ON_STORE_ERROR = {pb.ALLOW: OnStoreError.ALLOW, pb.DENY: OnStoreError.DENY}
_ALGORITHMS = {
    pb.ALGORITHM_UNSPECIFIED: Algorithm.FIXED_WINDOW,
    pb.FIXED_WINDOW: Algorithm.FIXED_WINDOW,
    pb.TOKEN_BUCKET: Algorithm.TOKEN_BUCKET,
}


def parse_resource(content: bytes, *, source: str) -> tuple[Domain | None, list[Fault]]:
    """Returns the domain of a resource, and the faults; with any, the domain is not to be used."""
    faults: list[Fault] = []
    try:
        message = pb.RateLimitConfig.FromString(content)
    except DecodeError as error:
        return None, [Fault(source, 0, "", f"is not a RateLimitConfig: {error}")]
    if not message.domain:
        return None, [Fault(source, 0, "domain", "must not be empty")]
    on_store_error = _ON_STORE_ERROR.get(message.dragoman.on_store_error, OnStoreError.ALLOW)
    reader = _Reader(source, on_store_error, faults)
    drafts = reader.descriptors(message.descriptors, "descriptors", 1)
    return build_domain(message.domain, on_store_error, drafts), faults


class _Reader:
    def __init__(self, source: str, on_store_error: OnStoreError, faults: list[Fault]) -> None:
        self._source = source
        self._on_store_error = on_store_error
        self._faults = faults

    def descriptors(self, given: Iterable[pb.RateLimitDescriptor], path: str, depth: int) -> list[DraftDescriptor]:
        if depth > MAX_DEPTH:
            self._fault(path, f"more than {MAX_DEPTH} levels")
            return []
        return [self._descriptor(item, f"{path}[{index}]", depth) for index, item in enumerate(given)]

    def _descriptor(self, given: pb.RateLimitDescriptor, path: str, depth: int) -> DraftDescriptor:
        if given.quota_mode:
            self._fault(f"{path}.quota_mode", "is not supported yet")
        rule = self._rule(given, f"{path}.rate_limit") if given.HasField("rate_limit") else None
        below = self.descriptors(given.descriptors, f"{path}.descriptors", depth + 1)
        return DraftDescriptor(
            given.key, given.value, rule, below, lambda name, message: self._fault(f"{path}.{name}", message)
        )

    def _rule(self, descriptor: pb.RateLimitDescriptor, path: str) -> Rule:
        given = descriptor.rate_limit
        unit = _UNITS.get(given.unit)
        if unit is None and not given.unlimited:
            self._fault(f"{path}.unit", f"{given.unit} is no unit")
        algorithm = _ALGORITHMS.get(given.dragoman.algorithm)
        if algorithm is None:
            self._fault(f"{path}.dragoman.algorithm", f"{given.dragoman.algorithm} is no algorithm known here")
        return Rule(
            domain="",
            path="",
            unit=unit or Unit.SECOND,
            requests_per_unit=given.requests_per_unit,
            unlimited=given.unlimited,
            name=given.name,
            replaces=tuple(item.name for item in given.replaces),
            shadow_mode=descriptor.shadow_mode,
            detailed_metric=descriptor.detailed_metric,
            algorithm=algorithm or Algorithm.FIXED_WINDOW,
            burst=given.dragoman.burst,
            on_store_error=_ON_STORE_ERROR.get(given.dragoman.on_store_error, self._on_store_error),
        )

    def _fault(self, path: str, message: str) -> None:
        self._faults.append(Fault(self._source, 0, path, message))

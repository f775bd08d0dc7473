"""The engine's rows that a median of route edits does not show: policies of many routes, endpoints, bursts, one host.

All in CPU time of this process, so that a busy machine does not show in it.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from benchmarks import manifests
from benchmarks.rows import Row, median_ms
from controlplane.api.load import key_of
from controlplane.engine import Engine, Step
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from tests.support.tokens import SigningKey, jwks

_Document = Mapping[str, Any]
_OURS: Final = "dragoman.dev/v1alpha1"
_POLICY_MS: Final = 300.0
_ONE_CHANGE_MS: Final = 5.0
_ONE_HOST_MS: Final = 10.0
_BURST: Final = 5_000
_CHANGES: Final = 9


async def measure(routes: int) -> list[Row]:
    """Measures the engine on so many routes: over a tenth as many hosts, and all in one host."""
    many = _Engine(routes, routes_a_host=10)
    rows = [Row(f"{routes} routes, from documents to bytes, CPU", many.cold_s, "s")]
    rows += [_policy_row(many, what, *versions) for what, versions in _policies().items()]
    rows.append(
        Row(f"one route among {routes} edited, CPU, median", many.edits_ms(), "ms", _ONE_CHANGE_MS),
    )
    slices = [manifests.backend(0, 9000, address=f"127.0.0.{number + 2}")[1] for number in range(_CHANGES)]
    moved_s = [many.apply_s([each]) for each in slices]
    rows.append(Row(f"endpoints of one backend under {routes} routes, CPU, median", median_ms(moved_s), "ms"))
    new = [many.route(routes + index, f"/r{index % 10}") for index in range(2 * _BURST)]
    at_once_s = many.apply_s(new[:_BURST])
    in_steps_s = sum(many.apply_s(new[at : at + 100]) for at in range(_BURST, 2 * _BURST, 100))
    rows.append(Row(f"{_BURST} routes more than {routes}, in one step, CPU", at_once_s, "s"))
    rows.append(Row(f"{_BURST} routes more than {routes + _BURST}, in steps of 100, CPU", in_steps_s, "s"))
    many.close()
    one = _Engine(routes, routes_a_host=routes)
    rows.append(Row(f"one of {routes} routes in one host edited, CPU, median", one.edits_ms(), "ms", _ONE_HOST_MS))
    one.close()
    return rows


class _Engine:
    """An engine that has read so many routes."""

    def __init__(self, routes: int, *, routes_a_host: int) -> None:
        self._routes, self._routes_a_host = routes, routes_a_host
        self._engine = Engine(bind=bind, now=lambda: datetime.now(UTC))
        documents: list[_Document] = list(manifests.gateway(8080))
        documents += [each for index in range(manifests.BACKENDS) for each in manifests.backend(index, 9000)]
        documents += [self.route(index, f"/r{index % routes_a_host}") for index in range(routes)]
        # As the control plane does: nothing that it makes while it starts is garbage.
        gc.collect()
        gc.disable()
        self.cold_s = self.apply_s(documents)
        gc.collect()
        gc.freeze()
        gc.enable()

    def close(self) -> None:
        """Lets go of what the collector was told to leave alone."""
        gc.unfreeze()

    def route(self, index: int, path: str) -> _Document:
        """Returns a route with a path."""
        return manifests.route(index, f"h{index // self._routes_a_host}.example.com", path)

    def edits_ms(self) -> float:
        """Gives some routes another path, one after the other; returns the median."""
        edited = ((number * 37 % self._routes, f"/edited-{number}") for number in range(_CHANGES + 1))
        taken_s = [self.apply_s([self.route(index, path)]) for index, path in edited]
        return median_ms(taken_s[1:])

    def apply_s(self, documents: Iterable[_Document] = (), *, removed: Iterable[_Document] = ()) -> float:
        """Applies changes as one step; returns the CPU seconds."""
        changes = Changes(tuple(map(_raw, documents)), tuple(_raw(each).key for each in removed))
        began_s = time.process_time()
        step = self._engine.apply(changes)
        taken_s = time.process_time() - began_s
        _held_to(step)
        return taken_s


def _policy_row(engine: _Engine, what: str, first: _Document, second: _Document) -> Row:
    """Adds, edits and removes a policy of the Gateway; its row has the slowest of the three."""
    taken_s = (engine.apply_s([first]), engine.apply_s([second]), engine.apply_s(removed=[second]))
    name = f"{what} of a Gateway with all routes added, edited, removed: the slowest, CPU"
    return Row(name, max(taken_s) * 1000, "ms", _POLICY_MS)


def _policies() -> dict[str, tuple[_Document, _Document]]:
    def provider(issuer: str) -> dict[str, Any]:
        keys = json.dumps(jwks(SigningKey.make("bench")))
        return {"name": "main", "issuer": issuer, "localJWKS": {"type": "Inline", "inline": keys}}

    def limit(requests: int) -> dict[str, Any]:
        return {"rateLimit": {"global": {"rules": [{"limit": {"requests": requests, "unit": "Minute"}}]}}}

    issuers = ("https://a.example", "https://b.example")
    tokens = [_policy("SecurityPolicy", {"jwt": {"providers": [provider(issuer)]}}) for issuer in issuers]
    origins = [_policy("SecurityPolicy", {"cors": {"allowOrigins": [each]}}, section="http") for each in issuers]
    limits = [_policy("BackendTrafficPolicy", limit(requests)) for requests in (5, 6)]
    return {
        "tokens": (tokens[0], tokens[1]),
        "origins, on a listener,": (origins[0], origins[1]),
        "a limit that counts for each route": (limits[0], limits[1]),
    }


def _policy(kind: str, spec: _Document, *, section: str | None = None) -> _Document:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    where = {"targetRefs": [target | ({"sectionName": section} if section is not None else {})]}
    metadata = {"namespace": "bench", "name": "wide"}
    return {"apiVersion": _OURS, "kind": kind, "metadata": metadata, "spec": {**where, **spec}}


def _raw(document: _Document) -> RawObject:
    key = key_of(document)
    assert key is not None
    return RawObject(key, document, Origin("benchmark.yaml"))


def _held_to(step: Step) -> None:
    """Refuses to measure what was refused."""
    faults = [fault for status in step.statuses.values() if status is not None for fault in status.faults()]
    if faults:
        raise RuntimeError(f"a manifest of the benchmark has a fault: {faults[0]}")

"""What an engine serves, small enough to be compared: versions of resources, routes in words, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import backends
from controlplane.conditions import ObjectStatus
from controlplane.engine import Engine
from controlplane.explain import values
from controlplane.explain.match import in_words
from controlplane.explain.outcome import effect
from controlplane.pipeline import Pipeline
from controlplane.pipeline.guards import SERVICES
from controlplane.pipeline.http import Entry
from controlplane.slices import Steps, finish
from controlplane.status.report import Finding, findings, statuses_of
from controlplane.translate.filters import jwt
from controlplane.translate.services import QUOTA_CLUSTER
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource

_EVERY = 64
Words = Mapping[str, str]
"""What there is to say about a route, by aspect: `object`, `to`, and each field of the policies in force."""


@dataclass(frozen=True, slots=True)
class Summary:
    """`resources`: owner → type → name → version. `routes`: Gateway, listener, host and match → words.

    `quota_mode` says whether Envoys enforce limits with mode Quota, `rate_limit_service` whether there is one.
    """

    resources: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict[str, Any])
    routes: Mapping[str, Words] = field(default_factory=dict[str, Any])
    faults: tuple[str, ...] = ()
    quota_mode: bool = False
    rate_limit_service: bool = True

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        told = {"resources": self.resources, "routes": self.routes, "faults": self.faults}
        return {**told, "quota_mode": self.quota_mode, "rate_limit_service": self.rate_limit_service}


def summary(engine: Engine) -> Summary:
    """Returns the summary of an engine as it stands.

    What depends on where it runs is left out: the services' addresses, those of host names, fetched key sets.
    """
    return finish(summing(engine))


def summing(engine: Engine) -> Steps[Summary]:
    """Does the same, and may be interrupted: for an engine that serves."""
    pipeline = engine.pipeline
    found: dict[str, Any] = {}
    for key, snapshot in sorted(pipeline.snapshots.current().items()):
        of_gateway = found[f"{key.namespace}/{key.name}"] = {}
        for type_url in snapshot.resources:
            typed = dict(_compared(pipeline, key, type_url, snapshot.of_type(type_url)))
            if typed:
                of_gateway[type_url.rpartition(".")[2]] = {name: each.version for name, each in typed.items()}
            yield
    routes: dict[str, Words] = {}
    for key in sorted(pipeline.snapshots.current()):
        for number, (name, words) in enumerate(_routes(pipeline, key), 1):
            routes[name] = words
            if number % _EVERY == 0:
                yield
    wrong = yield from _wrong(engine)
    faults = [": ".join(filter(None, [_subject(each), each.message])) for each in wrong]
    services = (pipeline.objects.quota_mode, pipeline.objects.rate_limit_service)
    return Summary(found, routes, tuple(sorted(dict.fromkeys(faults))), *services)


def _subject(finding: Finding) -> str:
    # Of what could not be read the file's name alone: folders that are compared are in two places.
    return f"{finding.object} {finding.field}".strip() or os.path.basename(finding.file)


def _wrong(engine: Engine) -> Steps[list[Finding]]:
    faulty: dict[ObjectKey, ObjectStatus] = {}
    for number, (key, status) in enumerate(statuses_of(engine), 1):
        if status.faults():
            faulty[key] = status
        if number % _EVERY == 0:
            yield
    return findings(engine, faulty)


def _compared(
    pipeline: Pipeline, gateway: ObjectKey, type_url: str, typed: Mapping[str, Resource]
) -> Iterator[tuple[str, Resource]]:
    if type_url == xds.EXTENSION_CONFIG and pipeline.wanted_key_sets():
        left_out = {jwt.NAME}
    elif type_url in (xds.CLUSTER, xds.ENDPOINT):
        left_out = {*SERVICES, QUOTA_CLUSTER}
        if type_url == xds.ENDPOINT:
            used = pipeline.parts.attachments.used_clusters.get(gateway)
            left_out |= {str(id_) for id_ in used if backends.host_names(pipeline.parts.objects, id_)}
    else:
        left_out = set[str]()
    return ((name, each) for name, each in typed.items() if name not in left_out)


def _routes(pipeline: Pipeline, gateway: ObjectKey) -> Iterator[tuple[str, Words]]:
    for port in pipeline.parts.listeners.ports(gateway):
        for chain in port.chains:
            if isinstance(chain, ir.StreamChain):
                yield _stream(port, chain)
            else:
                yield from _requests(pipeline, gateway, port, chain.route_config)


def _stream(port: ir.PortListener, chain: ir.StreamChain) -> tuple[str, Words]:
    names = ", ".join(chain.hostnames) or "*"
    to = ", ".join(f"{each.cluster or 'no backend'} ({each.weight})" for each in chain.backends)
    return f"{port.name} {port.transport} {names}", {"object": chain.origin or "none", "to": to or "nobody"}


def _requests(
    pipeline: Pipeline, gateway: ObjectKey, port: ir.PortListener, configuration: str
) -> Iterator[tuple[str, Words]]:
    scheme = "https" if port.tls else "http"
    for domain, place in pipeline.parts.http.domains(gateway, configuration):
        taken = set[str]()
        for ranked in pipeline.parts.http.ranked(place, domain) if place is not None else ():
            key = ranked[3]
            # Those of wider hostnames stand here, too: they are told once, under their own.
            own = any(at == place and domain in domains for at, domains in pipeline.parts.attachments.places(key))
            name = f"{port.gateway} {scheme}://{domain}:{port.port} {in_words(ranked[2].match)}"
            if own and name not in taken and place is not None:
                taken.add(name)
                yield name, _words(key, pipeline.parts.http.entry(place, ranked))


def _words(key: ObjectKey, entry: Entry) -> Words:
    policies = entry.route.policies
    asked = ((name, getattr(policies, name)) for name in values.FIELDS)
    return {
        "object": str(key),
        "to": effect(entry.route),
        **{name: values.in_words(name, value) for name, value in asked if value is not None},
    }

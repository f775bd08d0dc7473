# pyright: standard, reportAttributeAccessIssue=false
"""What Envoys have after all that happened, against what a control plane would send that just started on the folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication
from google.protobuf.json_format import MessageToDict

from controlplane.engine import Engine
from controlplane.provision.binding import bind
from controlplane.sources.files import FileSource
from controlplane.translate.filters.jwt import NAME as JWT
from controlplane.xds.resources import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    SECRET,
    Snapshot,
)
from tests.support.storm.rig import Rig
from tests.support.storm.world import GATEWAY

_WITHIN_S: Final = 30.0
_SAID: Final = 12
_DRAINING: Final = "draining"
_LEFT: Final = "is left"
_REJECTED: Final = ("update_rejected", "update_failure_nack")
_UNDECIDED: Final = ("ratelimit.error", "ratelimit.failure_mode_allowed", "ext_authz.error")

Held = Mapping[str, Mapping[str, str]]
"""Type → name → version; of endpoints, the addresses in words."""


async def differences(rig: Rig, *, within_s: float = _WITHIN_S, drained: bool = True) -> list[str]:
    """Returns, in words, where an Envoy has something else than a cold start would give it.

    It waits for what is under way; unless for what is to be `drained` too, clusters may be left that nothing refers to.
    """
    snapshot = await asyncio.to_thread(cold, rig)
    wanted, jwt = _wanted(snapshot), _requirements(snapshot)
    deadline = time.monotonic() + within_s
    while True:
        found: list[str] = []
        for name, envoy in rig.envoys.items():
            compared = _compared(wanted, jwt, await envoy.config_dump())
            found += [f"{name}: {each}" for each in compared if drained or not _drains(each)]
        if not found or time.monotonic() > deadline:
            return found[:_SAID]
        await asyncio.sleep(0.25)


def _drains(difference: str) -> bool:
    return difference.startswith("Cluster") and difference.endswith(_LEFT)


def cold(rig: Rig) -> Snapshot:
    """Returns what a control plane that has just started sends the Envoys of the Gateway."""
    engine = Engine(bind=bind, now=lambda: datetime.now(UTC))
    engine.serve_at(rig.service_addresses)
    snapshot = engine.apply(FileSource(rig.world.folder).read()).snapshots[GATEWAY]
    assert snapshot is not None, "the Gateway is gone"
    return snapshot


async def troubles(rig: Rig) -> list[str]:
    """Returns what Envoys have counted of rejected updates, and of requests that passed a service unasked."""
    found: list[str] = []
    for name, envoy in rig.envoys.items():
        for stat, value in (await envoy.stats()).items():
            if value and stat.endswith((*_REJECTED, *_UNDECIDED)):
                found.append(f"{name}: {stat} is {value}")
    return found


def _wanted(snapshot: Snapshot) -> Held:
    wanted: dict[str, dict[str, str]] = {
        type_url: {name: resource.version for name, resource in snapshot.of_type(type_url).items()}
        for type_url in (ROUTE, CLUSTER, SECRET, EXTENSION_CONFIG)
    }
    # By content: an Envoy that takes in other filter chains alone goes on showing the version of before.
    listeners = snapshot.of_type(LISTENER).items()
    wanted[LISTENER] = {name: _digest(_as_json(Listener.FromString(each.body))) for name, each in listeners}
    endpoints = snapshot.of_type(ENDPOINT)
    wanted[ENDPOINT] = {
        name: _addresses_of(ClusterLoadAssignment.FromString(endpoints[name].body)) for name in sorted(endpoints)
    }
    return wanted


def _as_json(listener: Listener) -> dict[str, Any]:
    return MessageToDict(listener, preserving_proto_field_name=True)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _addresses_of(assignment: ClusterLoadAssignment) -> str:
    addresses = (endpoint.endpoint.address for locality in assignment.endpoints for endpoint in locality.lb_endpoints)
    return _in_words(
        address.pipe.path or f"{address.socket_address.address}:{address.socket_address.port_value}"
        for address in addresses
    )


def _in_words(addresses: Iterable[str]) -> str:
    return " ".join(sorted(addresses)) or "none"


def _compared(wanted: Held, jwt: frozenset[str], dump: Mapping[str, Any]) -> list[str]:
    held = _held(dump)
    found: list[str] = []
    for type_url, resources in wanted.items():
        kind, has = type_url.rpartition(".")[2], held.get(type_url, {})
        # Secrets and endpoints are asked for by what refers to them.
        found += [f"{kind} {name} is missing" for name in resources.keys() - has.keys() if _is_asked_for(kind)]
        # Connections of a listener that is gone may stay for minutes, and with them its routes and certificates.
        stay = has.keys() if kind in ("RouteConfiguration", "Secret") else {n for n in has if has[n] == _DRAINING}
        found += [f"{kind} {name} {_LEFT}" for name in has.keys() - resources.keys() - stay]
        for name in resources.keys() & has.keys():
            if name == JWT and jwt <= _held_requirements(dump):
                continue  # What guards routes outlives the last route that names it, by a minute.
            if resources[name] != has[name]:
                found.append(f"{kind} {name} is {has[name]}, not {resources[name]}")
    return found


def _is_asked_for(kind: str) -> bool:
    return kind in ("Listener", "Cluster", "RouteConfiguration")


def _held(dump: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    readers: dict[str, tuple[str, Callable[[Any], tuple[str, str]], str]] = {
        "ListenersConfigDump": ("dynamic_listeners", _listener, LISTENER),
        "RoutesConfigDump": ("dynamic_route_configs", lambda each: _plain(each, "route_config"), ROUTE),
        "ClustersConfigDump": ("dynamic_active_clusters", lambda each: _plain(each, "cluster"), CLUSTER),
        "SecretsConfigDump": ("dynamic_active_secrets", lambda each: (each["name"], each["version_info"]), SECRET),
        "EcdsConfigDump": ("ecds_filters", lambda each: _plain(each, "ecds_filter"), EXTENSION_CONFIG),
        "EndpointsConfigDump": ("dynamic_endpoint_configs", _endpoints, ENDPOINT),
    }
    held: dict[str, dict[str, str]] = {}
    for part in dump["configs"]:
        reader = readers.get(part["@type"].rpartition(".")[2])
        if reader is not None:
            key, read, type_url = reader
            held[type_url] = dict(read(each) for each in part.get(key, ()))
    return held


def _plain(each: Mapping[str, Any], key: str) -> tuple[str, str]:
    return str(each[key]["name"]), str(each["version_info"])


def _listener(each: Mapping[str, Any]) -> tuple[str, str]:
    if "active_state" not in each:
        return str(each["name"]), "warming" if "warming_state" in each else _DRAINING
    content = {key: value for key, value in each["active_state"]["listener"].items() if key != "@type"}
    return str(each["name"]), _digest(content)


def _endpoints(each: Mapping[str, Any]) -> tuple[str, str]:
    config = each["endpoint_config"]
    addresses = (
        endpoint["endpoint"]["address"]
        for locality in config.get("endpoints", ())
        for endpoint in locality.get("lb_endpoints", ())
    )
    return str(config["cluster_name"]), _in_words(_address(address) for address in addresses)


def _address(address: Mapping[str, Any]) -> str:
    if "pipe" in address:
        return str(address["pipe"]["path"])
    return f"{address['socket_address']['address']}:{address['socket_address']['port_value']}"


def _requirements(snapshot: Snapshot) -> frozenset[str]:
    resource = snapshot.of_type(EXTENSION_CONFIG).get(JWT)
    if resource is None:
        return frozenset()
    config = JwtAuthentication()
    TypedExtensionConfig.FromString(resource.body).typed_config.Unpack(config)
    return frozenset((*config.providers, *config.requirement_map))


def _held_requirements(dump: Mapping[str, Any]) -> frozenset[str]:
    for part in dump["configs"]:
        for each in part.get("ecds_filters", ()):
            if each["ecds_filter"]["name"] == JWT:
                config = each["ecds_filter"]["typed_config"]
                return frozenset((*config.get("providers", {}), *config.get("requirement_map", {})))
    return frozenset()

"""A snapshot as one static bootstrap: `envoy --mode validate` does not look at what comes by xDS, so all is inlined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.translate.dump import to_dict
from controlplane.xds import resources as xds
from controlplane.xds.resources import Snapshot

_RUNTIME = {"re2.max_program_size.error_level": 4294967295}


def inlined(snapshot: Snapshot) -> dict[str, Any]:
    """Returns a bootstrap, as JSON has it, that needs no control plane. It holds private keys: not for showing."""
    plain = {type_url: _plain(snapshot, type_url) for type_url in snapshot.resources}
    endpoints = plain.get(xds.ENDPOINT, {})
    routes = plain.get(xds.ROUTE, {})
    extensions = plain.get(xds.EXTENSION_CONFIG, {})
    listeners = [_listener(each, routes, extensions) for each in plain.get(xds.LISTENER, {}).values()]
    return {
        "node": {"id": "validate", "cluster": "validate"},
        # As in the bootstrap: by default Envoy refuses regular expressions that are long.
        "layeredRuntime": {"layers": [{"name": "limits", "staticLayer": dict(_RUNTIME)}]},
        "staticResources": {
            "listeners": listeners,
            "clusters": [_cluster(each, endpoints) for each in plain.get(xds.CLUSTER, {}).values()],
            "secrets": list(plain.get(xds.SECRET, {}).values()),
        },
    }


def _plain(snapshot: Snapshot, type_url: str) -> dict[str, dict[str, Any]]:
    found = snapshot.of_type(type_url)
    return {name: to_dict(type_url, each.body, redact=False) for name, each in found.items()}


def _cluster(cluster: dict[str, Any], endpoints: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    out = {key: value for key, value in cluster.items() if key != "edsClusterConfig"}
    if cluster.get("type") == "EDS":
        name = cluster["name"]
        out |= {"type": "STATIC", "loadAssignment": endpoints.get(name, {"clusterName": name})}
    return _without_sds_sources(out)


def _listener(
    listener: dict[str, Any], routes: Mapping[str, dict[str, Any]], extensions: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    chains = [_chain(chain, routes, extensions) for chain in listener.get("filterChains", ())]
    return _without_sds_sources({**listener, "filterChains": chains})


def _chain(
    chain: dict[str, Any], routes: Mapping[str, dict[str, Any]], extensions: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    filters: list[dict[str, Any]] = []
    for each in chain.get("filters", ()):
        config = dict(each["typedConfig"])
        rds = config.pop("rds", None)
        if rds is not None:
            name = rds["routeConfigName"]
            # As by RDS: a route may name a cluster that is not there.
            config["routeConfig"] = {**routes.get(name, {"name": name}), "validateClusters": False}
            config["httpFilters"] = [_http_filter(filter_, extensions) for filter_ in config.get("httpFilters", ())]
        filters.append({**each, "typedConfig": config})
    return {**chain, "filters": filters}


def _http_filter(filter_: dict[str, Any], extensions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if "configDiscovery" not in filter_:
        return filter_
    out = {key: value for key, value in filter_.items() if key != "configDiscovery"}
    found = extensions.get(filter_["name"])
    config = found["typedConfig"] if found else filter_["configDiscovery"].get("defaultConfig")
    return {**out, "typedConfig": config}


def _without_sds_sources(value: Any) -> Any:
    """A secret that is named without a source is taken from the bootstrap."""
    if isinstance(value, list):
        return [_without_sds_sources(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {key: _without_sds_sources(item) for key, item in value.items() if key != "sdsConfig"}  # pyright: ignore[reportUnknownVariableType]
    return value

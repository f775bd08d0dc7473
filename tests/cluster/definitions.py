"""Our CustomResourceDefinitions in a cluster, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
GROUP = "dragoman.dev"
DEFINITIONS = [
    yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / "charts" / "dragoman" / "crds").glob("*.yaml"))
]


def install(cluster: Cluster) -> None:
    """Makes the API server serve our kinds, as the chart would."""
    cluster.apply(DEFINITIONS)
    for definition in DEFINITIONS:
        cluster.wait_for(definition, _established)
        names, version = definition["spec"]["names"], definition["spec"]["versions"][0]["name"]
        path = f"/apis/{GROUP}/{version}/{names['plural']}"
        cluster.wait(lambda path=path: cluster.api.get(path), what=f"the API of {names['kind']}")


def dry_run(cluster: Cluster, document: dict[str, Any]) -> Any:
    """Creates an object without keeping it, as strictly as kubectl does, and returns what would be kept."""
    document = {**document, "metadata": {**document["metadata"], "namespace": "default"}}
    path = cluster.api.path_of(document["apiVersion"], document["kind"], "default")
    return cluster.api.request("POST", path, document, parameters={"dryRun": "All", "fieldValidation": "Strict"})


def _established(definition: Any) -> bool:
    conditions = {each["type"]: each["status"] for each in definition.get("status", {}).get("conditions", [])}
    assert conditions.get("NonStructuralSchema") != "True", definition["status"]["conditions"]
    return conditions.get("Established") == "True"

"""kubeconform with the API server's own schemas: what it would only drop silently counts as a fault too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.unit.chart.helm import VARIANTS, template

FOREIGN = "Certificate,Issuer,ServiceMonitor,PodMonitor"


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a schema of each kind that the API server knows."""
    if cluster.rig is None:
        pytest.skip("kubeconform comes with the rig")
    cluster.rig.build("kubeconform")
    folder = tmp_path_factory.mktemp("schemas")
    for found in cluster.api.get("/openapi/v3")["paths"].values():
        components = _closed(cluster.api.get(found["serverRelativeURL"])).get("components", {})
        for name, schema in components.get("schemas", {}).items():
            for each in schema.get("x-kubernetes-group-version-kind", []):
                # As kubeconform calls them, which takes `v1` for a group, too.
                file = f"{each['group'] or each['version']}_{each['version']}_{each['kind'].lower()}.json"
                whole = {"$ref": f"#/components/schemas/{name}", "components": components}
                (folder / file).write_text(json.dumps(whole))
    return folder


def _closed(node: Any) -> Any:
    """The schemas, with no field let in that they do not name."""
    if isinstance(node, list):
        return [_closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {name: _closed(below) for name, below in node.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    # References have a default beside them, and JSON Schema has no `nullable`.
    made.pop("default", None) if "allOf" in made else None
    return made


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_kubeconform_finds_no_fault(cluster: Cluster, schemas: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    assert _faults(cluster, schemas, tmp_path, template(values)) == ""


def test_kubeconform_would_find_one(cluster: Cluster, schemas: Path, tmp_path: Path) -> None:
    for good, bad in (("  replicas: 2", "  replica: 2"), ("readOnlyRootFilesystem: true", "readOnly: true")):
        text = template()
        assert good in text
        assert bad.split(":")[0].strip() in _faults(cluster, schemas, tmp_path, text.replace(good, bad))


def _faults(cluster: Cluster, schemas: Path, folder: Path, text: str) -> str:
    assert cluster.rig is not None
    rendered = folder / "rendered.yaml"
    rendered.write_text(text)
    location = str(schemas) + "/{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}.json"
    command = [
        str(cluster.rig.bin / "kubeconform"),
        "-strict",
        "-skip",
        FOREIGN,
        "-schema-location",
        location,
        str(rendered),
    ]
    done = cluster.run(*command, check=False)
    return done.stdout + done.stderr

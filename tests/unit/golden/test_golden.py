"""Objects in, conditions and Envoy resources out: `NAME.in.yaml` → `NAME.out.yaml`, and Envoy accepts what comes out.

`GOLDEN=rewrite` writes the outputs anew, for review with `git diff`. A document `keySets` has what was fetched, by URI;
`quotaMode: true` is for a control plane that has a quota service.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.load import key_of
from controlplane.conditions import Condition, ObjectStatus
from controlplane.expansion import Expander
from controlplane.pipeline import Pipeline
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.status.ingress import ingress_status, is_ingress
from controlplane.translate.dump import to_dict
from controlplane.translate.inline import inlined
from tests.support.envoy import validate
from tests.unit.pipeline.driver import put

FOLDER = Path(__file__).parent
_FIXED = frozenset({"httpFilters", "localReplyConfig", "earlyHeaderMutationExtensions"})
_MAPS = frozenset({"typedPerFilterConfig", "providers", "requirementMap"})
_MANY = 50
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))


def expanded(text: str) -> tuple[Expander, list[Any]]:
    """The documents, with what Ingresses among them expand to."""
    documents = list(filter(None, yaml.safe_load_all(text)))
    keyed = ((key_of(document), document) for document in documents)
    raws = tuple(RawObject(key, document, Origin("")) for key, document in keyed if key is not None)
    expander = Expander()
    taken = expander.take(Changes(upserted=raws))
    fetched = [document for document in documents if "keySets" in document]
    return expander, [*fetched, *(raw.document for raw in taken.upserted)]


def compiled(text: str) -> Pipeline:
    pipeline = Pipeline(quota_mode="quotaMode: true" in text)
    for document in expanded(text)[1]:
        if "keySets" in document:
            for uri, fetched in document["keySets"].items():
                pipeline.objects.key_sets.set(uri, fetched)
        else:
            put(pipeline, document)
    pipeline.graph.stabilise()
    for port, endpoints in bind(pipeline.gateway_ports()).bound.items():
        pipeline.bindings.set(port, endpoints)
    for host in pipeline.wanted_hosts():
        pipeline.objects.resolved.set(host, ("192.0.2.1",))
    pipeline.graph.stabilise()
    return pipeline


def shown(pipeline: Pipeline, ingresses: Expander) -> dict[str, Any]:
    statuses = (
        (key, ingress_status(pipeline, ingresses, key, status) if is_ingress(key) else status)
        for key, status in sorted(pipeline.statuses.current().items())
        if not ingresses.is_made(key)
    )
    return {
        "conditions": {str(key): _status(status) for key, status in statuses if status != ObjectStatus()},
        "resources": {
            f"{key.namespace}/{key.name}": {
                type_url.rpartition(".")[2]: [_briefly(to_dict(type_url, each.body)) for each in found.values()]
                for type_url, found in snapshot.resources.items()
                if found
            }
            for key, snapshot in sorted(pipeline.snapshots.current().items())
        },
        "services": {
            owner: [_briefly(to_dict(type_url, each.body)) for each in found.values()]
            for owner, snapshot in sorted(pipeline.guards.snapshots.current().items())
            for type_url, found in snapshot.resources.items()
            if found
        },
    }


def _briefly(value: Any) -> Any:
    """Leaves out what stands on every listener alike, and what is there many times."""
    if isinstance(value, list):
        rest = [f"({len(value) - 2} more)"] if len(value) > _MANY else []
        return [*(_briefly(each) for each in (value[:2] if rest else value)), *rest]
    if isinstance(value, dict):
        return {name: "(fixed)" if name in _FIXED else _briefly(_sorted(name, each)) for name, each in value.items()}
    return value


def _sorted(name: str, value: Any) -> Any:
    """Protobuf's maps come in any order, which would make differences where there are none."""
    return dict(sorted(value.items())) if name in _MAPS else value


def _status(status: ObjectStatus) -> list[str]:
    lines = [_line("", condition) for condition in status.conditions]
    lines += [_line(f"{p.parent}: ", condition) for p in status.parents for condition in p.conditions]
    for listener in status.listeners:
        lines.append(f"{listener.name}: {listener.attached_routes} routes")
        lines += [_line(f"{listener.name}: ", condition) for condition in listener.conditions]
    return lines


def _line(where: str, condition: Condition) -> str:
    text = f"{where}{condition.type}={condition.status} {condition.reason}"
    return text + "".join(f": {part}" for part in (condition.field, condition.message) if part)


@pytest.mark.parametrize("name", CASES)
def test_objects_become_what_is_written_down(name: str) -> None:
    text = (FOLDER / f"{name}.in.yaml").read_text()
    found = shown(compiled(text), expanded(text)[0])
    out = FOLDER / f"{name}.out.yaml"
    if os.environ.get("GOLDEN") == "rewrite":
        out.write_text(yaml.safe_dump(found, sort_keys=False, width=120))
    assert found == yaml.safe_load(out.read_text())


@pytest.mark.parametrize("name", CASES)
def test_envoy_accepts_every_golden_configuration(name: str) -> None:
    pipeline = compiled((FOLDER / f"{name}.in.yaml").read_text())
    for snapshot in pipeline.snapshots.current().values():
        accepted, message = validate(inlined(snapshot))
        assert accepted, message


def test_envoy_refuses_a_bad_regular_expression_when_everything_is_inlined() -> None:
    pipeline = compiled((FOLDER / "matches.in.yaml").read_text())
    (snapshot,) = pipeline.snapshots.current().values()
    bootstrap = inlined(snapshot)
    (manager,) = bootstrap["staticResources"]["listeners"][0]["filterChains"][0]["filters"]
    manager["typedConfig"]["routeConfig"]["virtualHosts"][0]["routes"].insert(
        0, {"match": {"safeRegex": {"regex": "("}}, "directResponse": {"status": 200}}
    )
    accepted, message = validate(bootstrap)
    assert not accepted
    assert "regex" in message or "missing" in message

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
import re2
import yaml
from pydantic import Field

from controlplane.api.crds import definitions
from controlplane.api.crds.rules import known_checks
from controlplane.api.crds.schema import model_schema, validators_below
from controlplane.api.kinds import SERVED
from controlplane.api.load import load
from controlplane.api.marks import NotSupported
from controlplane.api.meta import POLICY_GROUP, Model
from controlplane.api.scalars import Bool, Port

ROOT = Path(__file__).resolve().parents[3]
CASES = yaml.safe_load((ROOT / "tests" / "cluster" / "crd_cases.yaml").read_text("utf-8"))
TARGET = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "open"}
DEFINITIONS = {made["spec"]["names"]["kind"]: made for _, made in definitions()}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_crds", ROOT / "tools" / "generate_crds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_definitions_of_the_chart_are_what_the_models_say(generator: ModuleType) -> None:
    made = generator.files()
    kept = {path.name: path.read_text("utf-8") for path in (ROOT / "charts/dragoman/crds").glob("*.yaml")}
    assert sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name)) == [], "run `make crds`"
    assert set(DEFINITIONS) == {kind for group, kind in SERVED if group == POLICY_GROUP}


def test_it_is_decided_of_every_check_of_the_models_what_the_api_server_makes_of_it() -> None:
    checks = {name for made in DEFINITIONS for name in validators_below(SERVED[POLICY_GROUP, made].model)}
    assert sorted(checks - known_checks()) == [], "add them to controlplane/api/crds/rules.py"
    assert sorted(known_checks() - checks) == [], "the models have no such checks"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}:{case['field']}")
def test_what_the_api_server_refuses_is_refused_in_a_folder_too(case: dict[str, Any]) -> None:
    targets = {"targetRefs": [TARGET]} if case.get("target") else {}
    document = {
        "apiVersion": "dragoman.dev/v1alpha1",
        "kind": case["kind"],
        "metadata": {"name": "bad", "namespace": "default"},
        "spec": {**targets, **case["spec"]},
    }
    paths = [fault.path for fault in load(document).faults]
    field, star, _ = case["field"].partition("*")
    assert paths == [field] or (star and len(paths) == 1 and paths[0].startswith(field))


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_schemas_are_structural_and_say_what_fields_are(kind: str) -> None:
    version = DEFINITIONS[kind]["spec"]["versions"][0]
    for path, schema in _schemas(version["schema"]["openAPIV3Schema"], ""):
        assert not {"$ref", "oneOf", "nullable", "title"} & schema.keys(), path
        loose = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
        assert "type" in schema or loose, path
        if "pattern" in schema:
            assert re2.compile(schema["pattern"]), path
        if schema.get("type") == "array":
            assert "items" in schema, path
        for rule in schema.get("x-kubernetes-validations", []):
            assert rule["message"], path
            assert "\n" not in rule["message"] + rule["rule"], path


def test_policies_have_the_status_and_label_of_gateway_api() -> None:
    for kind in ("SecurityPolicy", "BackendTrafficPolicy", "ClientTrafficPolicy", "ExtensionPolicy", "PatchPolicy"):
        made = DEFINITIONS[kind]
        version = made["spec"]["versions"][0]
        assert made["metadata"]["labels"] == {"gateway.networking.k8s.io/policy": "Direct"}
        ancestor = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["ancestors"]["items"]
        assert ancestor["required"] == ["ancestorRef", "conditions", "controllerName"]
        assert version["subresources"] == {"status": {}}
        assert [column["name"] for column in version["additionalPrinterColumns"]] == ["Accepted", "Age"]
    assert "labels" not in DEFINITIONS["Backend"]["metadata"]


def test_short_names_are_told_apart() -> None:
    names = [name for made in DEFINITIONS.values() for name in made["spec"]["names"]["shortNames"]]
    assert len(names) == len(set(names))
    assert all(made["spec"]["names"]["categories"] == ["dragoman", "gateway-api"] for made in DEFINITIONS.values())


class Inner(Model):
    """One of several."""

    port: Port


class Outer(Model):
    """For the test."""

    kind: Literal["A", "B"] = "A"
    """Which of them."""
    some: Annotated[tuple[Inner, ...], Field(min_length=1, max_length=4)]
    share: Annotated[int, Field(strict=True, ge=1, lt=2**40)] | Annotated[str, Field(pattern="^[0-9]+%$")] | None = None
    later: Annotated[Bool, NotSupported("use kind")] = False
    free: dict[str, object] = Field(default={})
    named: dict[str, Inner] = Field(default={})


def test_a_field_becomes_what_its_type_bounds_and_docstring_say() -> None:
    inner = {
        "type": "object",
        "properties": {"port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}},
        "required": ["port"],
    }
    assert model_schema(Outer) == {
        "type": "object",
        "required": ["some"],
        "properties": {
            "kind": {"description": "Which of them.", "type": "string", "enum": ["A", "B"], "default": "A"},
            "some": {
                "description": "One of several.",
                "type": "array",
                "items": {"description": "One of several.", **inner},
                "x-kubernetes-list-type": "atomic",
                "minItems": 1,
                "maxItems": 4,
            },
            "share": {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                "minimum": 1,
                "maximum": 2**40 - 1,
                "pattern": "^[0-9]+%$",
            },
            # A default that the server writes would be told as a field that has no effect.
            "later": {"description": "Not supported yet (use kind).", "type": "boolean"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "named": {"description": "One of several.", "type": "object", "additionalProperties": inner},
        },
    }


class Odd(Model):
    """What no structural schema can say."""

    value: dict[str, int] | tuple[str, ...] = ()


def test_a_type_that_no_schema_can_describe_is_an_error_not_a_loose_schema() -> None:
    with pytest.raises(TypeError, match="no structural schema"):
        model_schema(Odd)


def _schemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from _schemas(below, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _schemas(schema[key], f"{path}[]")


def test_rules_point_at_fields_that_are_there() -> None:
    for kind, made in DEFINITIONS.items():
        for path, schema in _schemas(made["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind):
            for rule in schema.get("x-kubernetes-validations", []):
                here = schema
                for step in re.findall(r"\w+", rule.get("fieldPath", "")):
                    assert step in here["properties"], (path, rule)
                    here = here["properties"][step]

"""Writes docs/resources/: a page for each kind, made from its model. `--check` only says whether they are current."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from controlplane.api.fields import FieldShape, shapes
from controlplane.api.kinds import SERVED
from controlplane.api.meta import (
    DISCOVERY_GROUP,
    ENVOY_GATEWAY_GROUP,
    GATEWAY_GROUP,
    POLICY_GROUP,
    Model,
    ObjectMeta,
    Resource,
)
from controlplane.api.scalars import PATTERN_MEANINGS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "resources"
GROUPS = {
    GATEWAY_GROUP: "Gateway API",
    POLICY_GROUP: "Policies",
    "": "Kubernetes core",
    DISCOVERY_GROUP: "Kubernetes discovery",
}
NOTE = "<!-- Made from the models by `make docs`; changes made here are lost. -->"
SIMPLE = {str: "string", int: "integer", bool: "boolean", float: "number", bytes: "base64 text", object: "any"}


def pages() -> dict[str, str]:
    """Name and text of every page."""
    made = {f"{kind}.md": _page(group, kind) for group, kind in SERVED if group != ENVOY_GATEWAY_GROUP}
    return {**made, "README.md": _index()}


def _index() -> str:
    lines = [
        "# Resources",
        "",
        NOTE,
        "",
        "What Dragoman reads. The same manifests serve in a folder and in Kubernetes. A field that is not supported "
        "yet is accepted, and named in a condition of the object.",
    ]
    for group, title in GROUPS.items():
        lines += [
            "",
            f"## {title}" + (f" (`{group}`)" if group else ""),
            "",
            "| kind | what it is | |",
            "|---|---|---|",
        ]
        for (each, kind), served in SERVED.items():
            if each == group:
                state = "" if served.model.supported else "not supported yet"
                lines.append(f"| [{kind}]({kind}.md) | {_summary(served.model)} | {state} |")
    lines += ["", _envoy_gateway_note()]
    return "\n".join(lines) + "\n"


def _envoy_gateway_note() -> str:
    models = {served.model: kind for (group, kind), served in SERVED.items() if group == ENVOY_GATEWAY_GROUP}
    ours = {served.model: kind for (group, kind), served in SERVED.items() if group == POLICY_GROUP}
    renamed = [f"{theirs} is {ours[model]}" for model, theirs in models.items() if ours[model] != theirs]
    return (
        f"The kinds of Envoy Gateway (`{ENVOY_GATEWAY_GROUP}/v1alpha1`) are read unchanged, with the same fields and "
        f"meanings as the policies above: {', '.join(renamed)}, the others have the same names."
    )


def _page(group: str, kind: str) -> str:
    served = SERVED[group, kind]
    versions = [f"`{group}/{version}`" if group else f"`{version}`" for version in served.versions]
    also = f" ({', '.join(versions[1:])} {'is' if len(versions) == 2 else 'are'} read too)" if versions[1:] else ""
    scope = "the whole cluster" if served.model.cluster_scoped else "a namespace"
    lines = [
        f"# {kind}",
        "",
        NOTE,
        "",
        _summary(served.model),
        "",
        f"apiVersion {versions[0]}{also}; belongs to {scope}.",
    ]
    if not served.model.supported:
        lines += ["", "**Not supported yet:** read and checked, but without effect."]
    for model in _models(served.model, {}):
        lines += ["", *_section(model)]
    return "\n".join(lines) + "\n"


def _models(model: type[Model], seen: dict[type[Model], None]) -> dict[type[Model], None]:
    """A model and those below it, in the order of the fields."""
    if model not in seen and not issubclass(model, ObjectMeta):
        seen[model] = None
        for shape in shapes(model):
            if shape.model is not None:
                _models(shape.model, seen)
    return seen


def _section(model: type[Model]) -> Iterator[str]:
    if not issubclass(model, Resource):
        yield from (f"## {model.__name__}", "", _summary(model), "")
    else:
        yield from ("## Fields", "")
    fields = [shape for shape in shapes(model) if shape.name not in ("apiVersion", "kind", "status")]
    if not issubclass(model, Resource):
        fields = list(shapes(model))
    if not fields:
        yield "No fields."
        return
    yield from ("| field | type | default | |", "|---|---|---|---|")
    for shape in fields:
        yield f"| `{shape.name}` | {_type(shape)} | {_default(shape)} | {_description(shape)} |"


def _summary(model: type[Model]) -> str:
    return " ".join((model.__doc__ or "").split())


def _description(shape: FieldShape) -> str:
    said = " ".join(shape.description.split())
    if not said and shape.model is not None:
        said = (
            "Name, namespace, labels and annotations." if issubclass(shape.model, ObjectMeta) else _summary(shape.model)
        )
    if shape.unsupported is not None:
        hint = f" ({shape.unsupported.hint})" if shape.unsupported.hint else ""
        said = f"**Not supported yet**{hint}. {said}"
    return said.strip().replace("|", "\\|")


def _default(shape: FieldShape) -> str:
    default = shape.info.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, str | int) and default != "":
        return f"`{default}`"
    return ""


def _type(shape: FieldShape) -> str:
    return _bounded(shape.info.annotation, shape.info.metadata).replace("|", "\\|")


def _bounded(annotation: Any, metadata: Any) -> str:
    is_many = get_origin(annotation) in (tuple, dict)
    bounds = "; ".join(_bounds(metadata, "entries" if is_many else "characters"))
    separator = ", " if is_many else ": "
    return _name(annotation) + (separator + bounds if bounds else "")


def _name(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(args[0], args[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_name(each) for each in args if each is not type(None)))
    if origin is Literal:
        return "one of " + ", ".join(f"`{each}`" for each in args)
    if origin is tuple:
        return f"list of {_name(args[0])}"
    if origin is dict:
        return f"map to {_name(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, ObjectMeta):
        return "[ObjectMeta](https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/)"
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if annotation is Any:
        return "any"
    return SIMPLE.get(annotation) or getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: Any, unit: str) -> Iterator[str]:
    """What is said of a value beside its type: its form, its range, how long it may be."""
    flat: dict[str, Any] = {}
    for each in metadata:
        for part in getattr(each, "metadata", None) or [each]:
            for name in ("min_length", "max_length", "ge", "le", "pattern"):
                if getattr(part, name, None) is not None:
                    flat[name] = getattr(part, name)
    if flat.get("pattern") in PATTERN_MEANINGS:
        yield PATTERN_MEANINGS[flat["pattern"]]
    if "ge" in flat or "le" in flat:
        yield _range(flat)
    elif "max_length" in flat and "pattern" not in flat:
        least = f"{flat['min_length']} to " if flat.get("min_length") else "at most "
        yield f"{least}{flat['max_length']} {unit}"


def _range(flat: dict[str, Any]) -> str:
    least, most = flat.get("ge"), flat.get("le")
    if most is None:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"{least} to {most}"


def main() -> int:
    """Writes the pages, or with `--check` compares them; 1 if they are not current."""
    made = pages()
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in made.items() if not _is_current(FOLDER / name, text)]
        sys.stdout.write("".join(f"{name} is not current; run `make docs`\n" for name in stale))
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for page in FOLDER.glob("*.md"):
        if page.name not in made:
            page.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, "utf-8")
    sys.stdout.write(f"wrote {len(made)} pages to {FOLDER}\n")
    return 0


def _is_current(page: Path, text: str) -> bool:
    return page.exists() and page.read_text("utf-8") == text


if __name__ == "__main__":
    sys.exit(main())

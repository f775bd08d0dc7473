"""Fields of models as manifests see them: spelling, nested models, and whether a field is supported."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, cast, get_args

from pydantic.fields import FieldInfo

from controlplane.api.marks import NotSupported
from controlplane.api.meta import Model


class FieldShape(NamedTuple):
    """One field of a model."""

    attribute: str
    name: str
    """As manifests spell it."""
    info: FieldInfo
    model: type[Model] | None
    """The model of its value, of the items of its list, or of the values of its map."""
    unsupported: NotSupported | None
    owner: type[Model]

    @property
    def description(self) -> str:
        """What the source says about the field, in the string below it; empty where there is none."""
        declaring = next(each for each in self.owner.__mro__ if self.attribute in inspect.get_annotations(each))
        return _strings_below(declaring).get(self.attribute, "")


@cache
def shapes(model: type[Model]) -> tuple[FieldShape, ...]:
    """The fields of a model, in the order of their declaration."""
    return tuple(_shape(attribute, info, model) for attribute, info in model.model_fields.items())


@cache
def shapes_by_name(model: type[Model]) -> dict[str, FieldShape]:
    """The fields of a model by the name that manifests use."""
    return {shape.name: shape for shape in shapes(model)}


def _shape(attribute: str, info: FieldInfo, owner: type[Model]) -> FieldShape:
    marks = [mark for mark in info.metadata if isinstance(mark, NotSupported)]
    name = info.validation_alias if isinstance(info.validation_alias, str) else attribute
    return FieldShape(attribute, name, info, nested_model(info.annotation), marks[0] if marks else None, owner)


@cache
def _strings_below(declaring: type) -> dict[str, str]:
    """The strings below attributes; read from the source by those few who want them, not by all at their start."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(declaring)))
    (definition,) = tree.body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def nested_model(annotation: Any) -> type[Model] | None:
    """The model inside an annotation such as `Annotated[tuple[M, ...], ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for each in get_args(annotation) if (found := nested_model(each)) is not None), None)


def unsupported_fields(model: Model) -> Iterator[tuple[str, NotSupported]]:
    """The fields that a manifest sets although they have no effect yet, as paths from this model with their marks."""
    given = model.model_fields_set
    for shape in _telling(type(model)):
        value = getattr(model, shape.attribute) if shape.attribute in given else None
        if value is None:
            continue
        if shape.unsupported is not None:
            yield shape.name, shape.unsupported
        else:
            # Paths are put together for what is found alone: in most objects that is nothing.
            for place, part in _parts(value):
                for path, mark in unsupported_fields(part):
                    yield f"{shape.name}{place}.{path}", mark


def _parts(value: object) -> Iterable[tuple[str, Model]]:
    if isinstance(value, Model):
        return [("", value)]
    return _members(value)


def _members(value: object) -> Iterator[tuple[str, Model]]:
    if isinstance(value, tuple):
        for index, item in enumerate(cast("tuple[object, ...]", value)):
            if isinstance(item, Model):
                yield f"[{index}]", item
    elif isinstance(value, dict):
        for key, item in cast("dict[str, object]", value).items():
            if isinstance(item, Model):
                yield f".{key}", item


@cache
def _telling(model: type[Model]) -> tuple[FieldShape, ...]:
    """The fields that are marked, or below which one may be: routes by the thousand are not searched in vain."""
    return tuple(
        shape
        for shape in shapes(model)
        if shape.unsupported is not None or (shape.model is not None and _telling(shape.model))
    )

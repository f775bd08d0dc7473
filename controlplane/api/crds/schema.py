"""Structural OpenAPI schemas, as the API server wants them, from the fields of models."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic_core import PydanticUndefined

from controlplane.api.crds.rules import FORMATS, KEYS, Rule, rules_of_model, rules_of_value
from controlplane.api.fields import FieldShape, shapes
from controlplane.api.meta import Model
from controlplane.api.policy import LaterList, LaterMapping

Schema = dict[str, Any]
Validator = Callable[..., Any]

_ANYTHING: Final = {"x-kubernetes-preserve-unknown-fields": True}
_INT_OR_STRING: Final[Schema] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}
_INT32: Final = 2**31


def model_schema(model: type[Model]) -> Schema:
    """The schema of a model; TypeError for a field that no structural schema can describe."""
    properties = {shape.name: field_schema(shape) for shape in shapes(model)}
    schema: Schema = {"type": "object"}
    if properties:
        schema["properties"] = properties
    if required := sorted(shape.name for shape in shapes(model) if shape.info.is_required()):
        schema["required"] = required
    for check in validator_names(model):
        schema |= FORMATS.get(check, {})
    for rule in rules_of_model(model):
        _place(rule, schema)
    return schema


def field_schema(shape: FieldShape) -> Schema:
    """The schema of one field, with what is said about it and its default."""
    made = value_schema(shape.info.annotation, shape.info.metadata)
    said = _description(shape)
    # A default that the API server writes into an object would read as a setting that has no effect.
    default = PydanticUndefined if shape.unsupported is not None else _default(shape)
    return {
        **({"description": said} if said else {}),
        **made,
        **({"default": default} if default is not PydanticUndefined else {}),
    }


def value_schema(annotation: Any, metadata: Iterable[Any] = ()) -> Schema:
    """The schema of a value of this type; `metadata` is what stands beside the type in `Annotated`."""
    marks = list(_flat(metadata))
    made = _of_type(annotation, marks)
    for validator in _validators(marks):
        made.update(FORMATS.get(_name(validator), {}))
        if keys := KEYS.get(_name(validator)):
            made |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
        for rule in rules_of_value(_name(validator)):
            _place(rule, made)
    return made


def validators_below(model: type[Model], seen: set[type[Model]] | None = None) -> Iterator[str]:
    """The names of all functions that check values of a model and of those below it."""
    seen = set() if seen is None else seen
    if model in seen:
        return
    seen.add(model)
    yield from validator_names(model)
    for shape in shapes(model):
        for validator in _validators_within(shape.info.annotation, shape.info.metadata):
            yield _name(validator)
        if shape.model is not None:
            yield from validators_below(shape.model, seen)


def validator_names(model: type[Model]) -> Iterator[str]:
    """The names of the checks of a whole model, inherited ones too."""
    for decorator in model.__pydantic_decorators__.model_validators.values():
        yield _name(decorator.func)


def _of_type(annotation: Any, marks: list[Any]) -> Schema:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return value_schema(args[0], [*args[1:], *marks])
    if origin in (Union, types.UnionType):
        return _of_union([each for each in args if each is not type(None)], marks)
    if origin is Literal:
        return _of_literal(args)
    if origin is tuple:
        return _of_list(args, marks)
    if origin is dict:
        limits = _bounds(marks, {"min_length": "minProperties", "max_length": "maxProperties"})
        free = args[1] in (Any, object)
        return {"type": "object", **(_ANYTHING if free else {"additionalProperties": value_schema(args[1])}), **limits}
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return model_schema(annotation)
    return _of_scalar(annotation, marks)


def _of_scalar(annotation: Any, marks: list[Any]) -> Schema:
    if annotation in (Any, object):
        # Fields whose insides are not looked at yet.
        if _is_later(LaterMapping, marks):
            return {"type": "object", **_ANYTHING}
        return {"type": "array", "items": {**_ANYTHING}} if _is_later(LaterList, marks) else {**_ANYTHING}
    if annotation is str:
        names = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
        return {"type": "string", **_bounds(marks, names)}
    if annotation is bool:
        return {"type": "boolean"}
    if annotation is int:
        return _of_int(marks)
    raise TypeError(f"no structural schema for {annotation!r}")


def _of_int(marks: list[Any]) -> Schema:
    found = _bounds(marks, {"ge": "minimum", "le": "maximum", "gt": "above", "lt": "below"})
    if (above := found.pop("above", None)) is not None:
        found["minimum"] = above + 1
    if (below := found.pop("below", None)) is not None:
        found["maximum"] = below - 1
    small = found.get("minimum", -_INT32 - 1) >= -_INT32 and found.get("maximum", _INT32) < _INT32
    return {"type": "integer", "format": "int32" if small else "int64", **found}


def _of_literal(values: tuple[Any, ...]) -> Schema:
    if all(isinstance(value, str) for value in values):
        return {"type": "string", "enum": list(values)}
    if all(type(value) is int for value in values):
        return {"type": "integer", "format": "int32", "enum": list(values)}
    raise TypeError(f"no structural schema for {values!r}")


def _of_list(args: tuple[Any, ...], marks: list[Any]) -> Schema:
    if len(args) != 2 or args[1] is not Ellipsis:
        raise TypeError(f"no structural schema for a tuple of {args!r}")
    limits = _bounds(marks, {"min_length": "minItems", "max_length": "maxItems"})
    items = value_schema(args[0])
    if isinstance(args[0], type) and issubclass(args[0], Model):
        items = {"description": said(args[0]), **items}
    return {"type": "array", "items": items, "x-kubernetes-list-type": "atomic", **limits}


def _of_union(members: list[Any], marks: list[Any]) -> Schema:
    if len(members) == 1:
        return _of_type(members[0], marks)
    made = [value_schema(each) for each in members]
    if sorted(each["type"] for each in made) != ["integer", "string"]:
        raise TypeError(f"no structural schema for a union of {members!r}")
    kept = {
        name: each[name] for each in made for name in ("minimum", "maximum", "maxLength", "pattern") if name in each
    }
    return {**_INT_OR_STRING, **kept}


def _place(rule: Rule, schema: Schema) -> None:
    """Adds a rule to a schema, or to the one below it that the rule is about."""
    here = schema
    for step in rule.at:
        here = here["items"] if step == "[]" else here["properties"][step]
    made = {"message": rule.message, "rule": rule.rule}
    if rule.field:
        made["fieldPath"] = f".{rule.field}"
    here.setdefault("x-kubernetes-validations", []).append(made)


def said(model: type[Model]) -> str:
    """What a model says of itself."""
    return " ".join((model.__doc__ or "").split())


def _description(shape: FieldShape) -> str:
    text = " ".join(shape.description.split())
    if not text and shape.model is not None:
        text = said(shape.model)
    if shape.unsupported is not None:
        hint = f" ({shape.unsupported.hint})" if shape.unsupported.hint else ""
        text = f"Not supported yet{hint}. {text}".strip()
    return text


def _default(shape: FieldShape) -> Any:
    default = shape.info.get_default(call_default_factory=True, validated_data={})
    if default is None or default is PydanticUndefined:
        return PydanticUndefined
    if isinstance(default, BaseModel | tuple):
        plain = _plain(cast("object", default))
        return plain or PydanticUndefined
    return PydanticUndefined if default == {} else default


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [_plain(each) for each in cast("tuple[object, ...]", value)] if isinstance(value, tuple) else value


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    """What stands beside a type; a `Field` holds several marks of its own."""
    for each in metadata:
        yield from getattr(each, "metadata", None) or (each,)


def _bounds(marks: Iterable[Any], names: dict[str, str]) -> Schema:
    found: Schema = {}
    for mark in marks:
        for attribute, keyword in names.items():
            if getattr(mark, attribute, None) is not None:
                found[keyword] = getattr(mark, attribute)
    return found


def _validators(marks: Iterable[Any]) -> Iterator[Validator]:
    for mark in marks:
        if isinstance(mark, AfterValidator | BeforeValidator):
            yield mark.func


def _validators_within(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[Validator]:
    yield from _validators(_flat(metadata))
    if get_origin(annotation) is Annotated:
        yield from _validators_within(get_args(annotation)[0], get_args(annotation)[1:])
    elif not isinstance(annotation, type):
        for each in get_args(annotation):
            yield from _validators_within(each)


def _is_later(alias: Any, marks: list[Any]) -> bool:
    wanted = set(_validators_within(alias))
    return any(validator in wanted for validator in _validators(marks))


def _name(function: Any) -> str:
    """How rules call a check: `jwt.JWTProvider._one_source_of_keys`, `policy._check_cidr`."""
    inner = getattr(function, "__func__", function)
    return f"{inner.__module__.removeprefix('controlplane.api.')}.{inner.__qualname__}"

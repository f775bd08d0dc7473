"""Settings in layers: defaults < file (YAML) < environment (`DRAGOMAN_…`) < flags; typed, and unknown names refused.

Models are pydantic models and may be nested; the variable of the field `xds.listen` is `DRAGOMAN_XDS_LISTEN`. Faults
never repeat a value, for it may be a secret.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

if TYPE_CHECKING:
    from dragoman.settings_file import Document

M = TypeVar("M", bound=BaseModel)
FieldPath = tuple[str, ...]

PREFIX = "DRAGOMAN_"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: `settings.yaml:3`, `DRAGOMAN_XDS_LISTEN`, or `--xds-listen`."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class SettingsError(Exception):
    """The settings cannot be used; `faults` has every reason, not just the first."""

    def __init__(self, faults: Collection[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


def load(
    model: type[M],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    foreign_variables: Collection[str] = (),
    foreign_fields: bool = False,
    prefix: str = PREFIX,
) -> M:
    """Returns the settings; raises SettingsError with all faults.

    `flags` maps fields (`listen`, `xds.listen`) to values; None means that the flag was not given. `foreign_variables`
    are names with our prefix that are not settings of this model, but not mistakes either; with `foreign_fields`, the
    file may have such fields.
    """
    leaves = dict(_leaves(model))
    layers = _Layers()
    if file is not None:
        # Only here: most are told by options and variables, and have no use for a parser.
        from dragoman.settings_file import read_document

        layers.add_file(read_document(file), model, foreign_fields=foreign_fields)
    layers.add_environment(environ or {}, leaves, foreign_variables, prefix)
    layers.add_flags(flags or {}, leaves)
    try:
        settings = model.model_validate(layers.values)
    except ValidationError as error:
        told = error.errors(include_input=False)
        layers.faults += [layers.fault_of(each["loc"], _in_words(each, prefix)) for each in told]
    else:
        if not layers.faults:
            return settings
    raise SettingsError(layers.faults)


def variable_names(model: type[BaseModel], prefix: str = PREFIX) -> dict[str, FieldPath]:
    """Returns the environment variables of a model; raises ValueError when two fields would share one."""
    names: dict[str, FieldPath] = {}
    for path, _ in _leaves(model):
        name = prefix + "_".join(path).upper()
        if name in names:
            raise ValueError(f"{'.'.join(path)} and {'.'.join(names[name])} would share the variable {name}")
        names[name] = path
    return names


def _in_words(error: ErrorDetails, prefix: str) -> str:
    if error["type"] == "missing":
        path = [str(part) for part in error["loc"]]
        return f"is missing; give --{'-'.join(path).replace('_', '-')} or {prefix}{'_'.join(path).upper()}"
    return error["msg"].removeprefix("Value error, ")


class _Layers:
    """The values gathered so far, each with the place that it came from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.faults: list[Fault] = []
        self._origins: dict[FieldPath, str] = {}

    def add_file(self, document: Document, model: type[BaseModel], *, foreign_fields: bool = False) -> None:
        self.faults += [Fault(where, message) for where, message in document.faults]
        self._origins.update(document.places())
        own = {name: item for name, item in document.value.items() if name in model.model_fields}
        self._add_mapping(own if foreign_fields else document.value, document, model, ())

    def add_environment(
        self, environ: Mapping[str, str], leaves: Mapping[FieldPath, Any], foreign: Collection[str], prefix: str
    ) -> None:
        names = {prefix + "_".join(path).upper(): path for path in leaves}
        for name, text in environ.items():
            if not name.startswith(prefix) or name in foreign:
                continue
            path = names.get(name)
            if path is None:
                self.faults.append(Fault(name, f"there is no such setting{_nearest(name, names)}"))
            else:
                self._put(path, _parsed(text, leaves[path]), name)

    def add_flags(self, flags: Mapping[str, object], leaves: Mapping[FieldPath, Any]) -> None:
        for name, value in flags.items():
            path = tuple(name.split("."))
            if path not in leaves:
                raise ValueError(f"no setting is called {name}")
            if value is not None:
                self._put(path, value, "--" + "-".join(path).replace("_", "-"))

    def fault_of(self, location: tuple[int | str, ...], message: str) -> Fault:
        path = tuple(map(str, location))
        for length in range(len(path), 0, -1):
            where = self._origins.get(path[:length])
            if where is not None:
                return Fault(where, f"{'.'.join(path)}: {message}")
        return Fault("", f"{'.'.join(path)}: {message}" if path else message)

    def _add_mapping(
        self, value: Mapping[str, Any], document: Document, model: type[BaseModel], above: FieldPath
    ) -> None:
        for name, item in value.items():
            path = (*above, name)
            field = model.model_fields.get(name)
            if field is None:
                message = f"{'.'.join(path)}: there is no such setting{_nearest(name, model.model_fields)}"
                self.faults.append(Fault(document.place(path) or str(document.file), message))
                continue
            section = _section(field.annotation)
            if section is not None and isinstance(item, dict):
                self._add_mapping(typing.cast("dict[str, Any]", item), document, section, path)
            else:
                self._put(path, item)

    def _put(self, path: FieldPath, value: object, origin: str | None = None) -> None:
        """Sets a value; `origin` is for layers other than the file, whose places are known already."""
        target = self.values
        for name in path[:-1]:
            below = target.get(name)
            if not isinstance(below, dict):
                below = target[name] = {}
            target = typing.cast("dict[str, Any]", below)
        target[path[-1]] = value
        if origin is not None:
            # What the file said about parts of this value no longer counts.
            self._origins = {each: where for each, where in self._origins.items() if each[: len(path)] != path}
            self._origins[path] = origin


def _leaves(model: type[BaseModel], above: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield (*above, name), field.annotation
        else:
            yield from _leaves(section, (*above, name))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a section of settings: a model, or a model or nothing."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        others = [each for each in typing.get_args(annotation) if each is not type(None)]
        return _section(others[0]) if len(others) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _parsed(text: str, annotation: Any) -> object:
    """A variable's value: comma-separated for collections of plain values, else the text, which pydantic converts."""
    kind = typing.get_origin(annotation) or annotation
    if kind in (Union, types.UnionType):
        kinds = {typing.get_origin(each) or each for each in typing.get_args(annotation)}
        kind = next((each for each in kinds if each in (list, tuple, set, frozenset)), kind)
    if kind in (list, tuple, set, frozenset):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _nearest(name: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""

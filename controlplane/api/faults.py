"""What is wrong with a manifest, in words for people: the path of the field, what was expected, what was found."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controlplane.api.fields import nested_model, shapes_by_name
from controlplane.api.meta import Model, Resource
from controlplane.api.scalars import PATTERN_MEANINGS


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an object."""

    path: str
    """The field, such as `spec.rules[0].matches[1].path.value`; empty for the whole object."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


MAX_FAULTS: Final = 50
_SHOWN: Final = 60
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_\-]+")


def describe(value: object) -> str:
    """A value in a message: short, and as YAML would show it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, Sequence) else "a mapping" if isinstance(value, Mapping) else "a value"


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the closest known one, or all of them."""
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    if close:
        # Of similar names the one that begins alike is meant: `retry` rather than `targetRefs` for `retries`.
        best = next((each for each in close if each.startswith(name.lower()[:3])), close[0])
        return f"; did you mean `{lower[best]}`?"
    return f"; expected one of {', '.join(known)}" if known else ""


def join_path(path: str, part: str | int) -> str:
    """A path and one more step: `spec` + `rules`, `spec.rules` + 0, `data` + `tls.crt`."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    if part.startswith("["):
        return path + part
    if not _PLAIN_KEY.fullmatch(part):
        return f"{path}[{part!r}]"
    return f"{path}.{part}" if path else part


def to_faults(error: ValidationError, document: Mapping[str, object], model: type[Resource]) -> tuple[Fault, ...]:
    """The faults behind a validation error. Values of Secrets are never shown."""
    secret = "Secret" in get_args(model.model_fields["kind"].annotation)
    found: dict[str, list[str]] = {}
    errors = error.errors(include_url=False)
    for details in errors:
        if details["type"] == "too_short" and _has_deeper(errors, details["loc"]):
            continue  # What was refused is not counted, so a list of one bad entry looks empty.
        path, message = _fault(details, document, model, hide=secret)
        messages = found.setdefault(path, [])
        if message not in messages:
            messages.append(message)
    faults = [Fault(path, _merge(messages)) for path, messages in found.items()]
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [Fault("", f"and {len(faults) - MAX_FAULTS} more faults")]
    return tuple(faults)


def _has_deeper(errors: Sequence[ErrorDetails], location: tuple[int | str, ...]) -> bool:
    return any(len(each["loc"]) > len(location) and each["loc"][: len(location)] == location for each in errors)


def _merge(messages: list[str]) -> str:
    """Alternatives of one field (`int | str`) fail one by one, but are one fault."""
    halves = [message.partition("; got ") for message in messages]
    if len(messages) > 1 and all(head.startswith("expected ") and got for head, got, _ in halves):
        heads = [head.removeprefix("expected ") for head, _, _ in halves]
        return f"expected {' or '.join(heads)}; got {halves[0][2]}"
    return "; ".join(messages)


def _fault(details: ErrorDetails, document: object, model: type[Model], hide: bool) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    steps = _steps(details["loc"], document, kind)
    path = ""
    for step in steps:
        path = join_path(path, step)
    got = "another value" if hide and steps[:1] != ["metadata"] else _got(kind, details["input"])
    if kind == "refused":
        for step in re.findall(r"[^.\[]+|\[\d+\]", str(context.get("field", ""))):
            path = join_path(path, step)
        return path, str(context["message"])
    if kind == "extra_forbidden":
        return path, f"unknown field{suggest(str(steps[-1]), sorted(_known(steps[:-1], model)))}"
    word = _WORDS.get(kind)
    return path, word(context, got) if word is not None else f"{details['msg']}; got {got}"


def _got(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, bool):
        return f"{describe(value)} (YAML reads yes, no, on, off, y and n as booleans: quote them)"
    wants_text = kind.startswith(("string", "literal", "datetime", "refused"))
    return f"the string {describe(value)}" if isinstance(value, str) and not wants_text else describe(value)


def _steps(location: tuple[int | str, ...], document: object, kind: str) -> list[int | str]:
    """The location without the names of union members and of checks, which no manifest has."""
    steps: list[int | str] = []
    here = document
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(here, Mapping) and isinstance(step, str):
            mapping = cast("Mapping[str, object]", here)
            if step in mapping:
                here = mapping[step]
            elif not (last and kind == "missing"):
                continue
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(step, int):
            here = cast("Sequence[object]", here)[step]
        else:
            continue
        steps.append(step)
    return steps


def _known(steps: Sequence[int | str], model: type[Model]) -> list[str]:
    here: type[Model] | None = model
    for step in steps:
        if here is not None and isinstance(step, str):
            shape = shapes_by_name(here).get(step)
            here = nested_model(shape.info.annotation) if shape is not None else None
    return [] if here is None else [name for name in shapes_by_name(here) if name != "status" or here is model]


def _literals(expected: str) -> str:
    return re.sub(r"'([^']*)'", r"\1", expected).replace(" or ", ", ")


def _pattern(context: Mapping[str, Any], got: str) -> str:
    pattern = str(context["pattern"])
    return f"expected {PATTERN_MEANINGS.get(pattern, f'text that matches {pattern}')}; got {got}"


def _too_short(context: Mapping[str, Any], got: str) -> str:
    least = int(context["min_length"])
    return f"must not be empty; got {got}" if least == 1 else f"expected at least {least} characters; got {got}"


def _entries(context: Mapping[str, Any], bound: str, limit: str) -> str:
    count = int(context[limit])
    return f"expected {bound} {count} {'entry' if count == 1 else 'entries'}; got {context['actual_length']}"


# What pydantic calls each fault, in our words.
_WORDS: Final[dict[str, Callable[[Mapping[str, Any], str], str]]] = {
    "missing": lambda context, got: "required field is missing",
    "string_type": lambda context, got: f"expected a string; got {got}",
    "int_type": lambda context, got: f"expected a whole number; got {got}",
    "int_from_float": lambda context, got: f"expected a whole number; got {got}",
    "float_type": lambda context, got: f"expected a number; got {got}",
    "bool_type": lambda context, got: f"expected true or false; got {got}",
    "tuple_type": lambda context, got: f"expected a list; got {got}",
    "list_type": lambda context, got: f"expected a list; got {got}",
    "dict_type": lambda context, got: f"expected a mapping; got {got}",
    "model_type": lambda context, got: f"expected a mapping; got {got}",
    "model_attributes_type": lambda context, got: f"expected a mapping; got {got}",
    "literal_error": lambda context, got: f"expected one of {_literals(str(context['expected']))}; got {got}",
    "string_pattern_mismatch": _pattern,
    "string_too_short": _too_short,
    "string_too_long": lambda context, got: f"expected at most {context['max_length']} characters; got {got}",
    "too_short": lambda context, got: _entries(context, "at least", "min_length"),
    "too_long": lambda context, got: _entries(context, "at most", "max_length"),
    "greater_than_equal": lambda context, got: f"expected at least {context['ge']}; got {got}",
    "greater_than": lambda context, got: f"expected more than {context['gt']}; got {got}",
    "less_than_equal": lambda context, got: f"expected at most {context['le']}; got {got}",
    "less_than": lambda context, got: f"expected less than {context['lt']}; got {got}",
    "datetime_type": lambda context, got: f"expected a time, such as 2026-01-31T12:00:00Z; got {got}",
    "datetime_parsing": lambda context, got: f"expected a time, such as 2026-01-31T12:00:00Z; got {got}",
    "datetime_from_date_parsing": lambda context, got: f"expected a time, such as 2026-01-31T12:00:00Z; got {got}",
    "bytes_type": lambda context, got: f"expected a string; got {got}",
    "invalid_key": lambda context, got: "expected keys that are strings",
}

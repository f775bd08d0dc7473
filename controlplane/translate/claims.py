"""Expressions (CEL) about the claims of a verified token, as Envoy's descriptors of rate limits ask them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from controlplane import ir

METADATA: Final = "envoy.filters.http.jwt_authn"
"""Where Envoy's jwt_authn filter puts the claims of a token, under the id of its provider."""
MATCHED: Final = "matched"
# The namespace, and what is directly below: all claims of a token, or what a key says.
_ALWAYS_MAPS: Final = 2
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def value(selector: ir.ClaimSelector, tokens: Mapping[str, str]) -> str | None:
    """Returns an expression for what the selector has of a request: the claim's value where each counts for itself,
    else MATCHED; it fails where the selector does not match. None: no token can match.

    `tokens` has the ids, by name, of the providers whose tokens a request may have.
    """
    ids = ids_of(selector.provider, tokens)
    if not ids:
        return None
    steps = selector.claim.split(".")
    if selector.kind == "Distinct":
        return _first_of([(_presence(id_, steps), _claim(id_, steps)) for id_ in ids])
    found = " || ".join(_condition(id_, steps, selector) for id_ in ids)
    # There is no such key where it is false: so the expression fails, and nothing is asked of the service.
    return f"{{true: '{MATCHED}'}}[{f'!({found})' if selector.invert else found}]"


def ids_of(provider: str | None, tokens: Mapping[str, str]) -> Sequence[str]:
    """Returns the ids of the providers that a selector is about: the one that it names, else all."""
    if provider is None:
        return tuple(tokens.values())
    return (tokens[provider],) if provider in tokens else ()


def _condition(id_: str, steps: Sequence[str], selector: ir.ClaimSelector) -> str:
    """Says whether the claim has one of the values; fails where it is not there, unless that is what is asked for."""
    claim = _claim(id_, steps)
    wanted = [literal for each in selector.values for literal in _literals(each)]
    if selector.array:
        held = " || ".join(f"{literal} in {claim}" for literal in wanted)
    else:
        held = f"{claim} in [{', '.join(wanted)}]"
    # `or` makes good for what fails beside it; `not` does not.
    if not selector.invert:
        return f"({held})"
    is_list = f" && type({claim}) == list" if selector.array else ""
    return f"({_presence(id_, steps)}{is_list} && ({held}))"


def _first_of(alternatives: Sequence[tuple[str, str]]) -> str:
    """Returns the first that is there; the last without a question, so that the expression fails where none is."""
    *others, (_, last) = alternatives
    return "".join(f"{presence} ? {found} : " for presence, found in others) + last


def presence(steps: Sequence[str], *, maps: int = _ALWAYS_MAPS) -> str:
    """Says whether the metadata has a value there; it never fails, whatever a token has on the way to it.

    The first `maps` steps lead to maps in any case.
    """
    found: list[str] = []
    for index, step in enumerate(steps):
        within = path(steps[:index])
        if index > maps:
            found.append(f"type({within}) == map")
        found.append(f"{_quoted(step)} in {within}")
    return " && ".join(found)


def _presence(id_: str, steps: Sequence[str]) -> str:
    return presence((METADATA, id_, *steps))


def _claim(id_: str, steps: Iterable[str]) -> str:
    return path((METADATA, id_, *steps))


def _literals(text: str) -> Iterator[str]:
    """Yields what a claim may be that is written like this: a text, and a number or a truth value."""
    yield _quoted(text)
    if _NUMBER.fullmatch(text):
        yield text if "." in text else f"{text}.0"
    elif text in ("true", "false"):
        yield text


def path(steps: Iterable[str]) -> str:
    """Returns the expression of a value in the metadata."""
    return "metadata.filter_metadata" + "".join(f"[{_quoted(step)}]" for step in steps)


def _quoted(text: str) -> str:
    """Writes a text as CEL has it, which knows JSON's escapes but no pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False)

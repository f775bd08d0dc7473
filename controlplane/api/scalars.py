"""Constrained scalars of Gateway API: names, ports, hostnames, durations; the checks run inside pydantic-core."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta
from typing import Annotated, Final, TypeAlias, TypeVar

from pydantic import Field
from pydantic_core import PydanticCustomError

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED: Final = rf"({_SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]"

LABEL_PATTERN: Final = f"^{_LABEL}$"
SUBDOMAIN_PATTERN: Final = f"^{_SUBDOMAIN}$"
HOSTNAME_PATTERN: Final = rf"^(\*\.)?{_SUBDOMAIN}$"
GROUP_PATTERN: Final = f"^$|^{_SUBDOMAIN}$"
KIND_PATTERN: Final = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
CONTROLLER_PATTERN: Final = rf"^{_SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$"
QUALIFIED_PATTERN: Final = f"^{_QUALIFIED}$"
HEADER_NAME_PATTERN: Final = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"
HEADER_VALUE_PATTERN: Final = r"^[^\x00-\x08\x0a-\x1f\x7f]+$"
DURATION_PATTERN: Final = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
PROTOCOL_PATTERN: Final = rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|^{_SUBDOMAIN}/[A-Za-z0-9]+$"
ADDRESS_TYPE_PATTERN: Final = rf"^(Hostname|IPAddress|NamedAddress|{_SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+)$"
ORIGIN_PATTERN: Final = r"^(\*|https?://(\*|(\*\.)?[a-zA-Z0-9*.\-]+|\[[0-9a-fA-F:.]+\])(:([0-9]{1,5}|\*))?)$"
URI_PATTERN: Final = r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?$"
URL_PATTERN: Final = "^https?://[^/?#]+"
METADATA_NAMESPACE_PATTERN: Final = r"^[^:()%\s]+$"
METADATA_KEY_PATTERN: Final = r"^[^:()%\s]+(:[^:()%\s]+)*$"
CALLER_PATTERN: Final = r"[^*]$"
URI_PATH_PATTERN: Final = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"

# What a value that fails its pattern should have been, for people.
PATTERN_MEANINGS: Final[dict[str, str]] = {
    LABEL_PATTERN: "a DNS label (lower-case letters, digits and '-')",
    SUBDOMAIN_PATTERN: "a DNS name (lower-case letters, digits, '-' and '.')",
    HOSTNAME_PATTERN: "a host name in lower case, such as `www.example.com` or `*.example.com`",
    GROUP_PATTERN: "an API group: empty, or a DNS name in lower case",
    KIND_PATTERN: "a kind, such as `Service`",
    CONTROLLER_PATTERN: "a controller name: a domain and a path, such as `dragoman.dev/gateway-controller`",
    QUALIFIED_PATTERN: "a qualified name, such as `example.com/name`",
    HEADER_NAME_PATTERN: "a header name, such as `x-tenant`",
    HEADER_VALUE_PATTERN: "a header value without control characters",
    DURATION_PATTERN: "a duration, such as `10s`, `500ms` or `1h30m`",
    PROTOCOL_PATTERN: "a protocol: HTTP, HTTPS, TLS, TCP, UDP or `example.com/name`",
    ADDRESS_TYPE_PATTERN: "an address type: IPAddress, Hostname, NamedAddress or `example.com/name`",
    ORIGIN_PATTERN: "an origin: `*` or `https://HOST[:PORT]`",
    URI_PATTERN: "an absolute URI, such as `spiffe://example.com/name`",
    URL_PATTERN: "an http or https URL",
    METADATA_NAMESPACE_PATTERN: "a namespace of metadata, without spaces, colons, parentheses and percent signs",
    METADATA_KEY_PATTERN: "keys in metadata with colons between them, without spaces, parentheses and percent signs",
    CALLER_PATTERN: "a name, which must not end with '*': callers are named one by one",
    URI_PATH_PATTERN: "a path of valid URI characters",
}

Int: TypeAlias = Annotated[int, Field(strict=True)]
Int32: TypeAlias = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
Bool: TypeAlias = Annotated[bool, Field(strict=True)]
Port: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=65535)]
NonNegative: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Positive: TypeAlias = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Percent: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=100)]

ObjectName: TypeAlias = Annotated[str, Field(min_length=1, max_length=253)]
MetaName: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
NamespaceName: TypeAlias = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
SectionName: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
Group: TypeAlias = Annotated[str, Field(max_length=253, pattern=GROUP_PATTERN)]
Kind: TypeAlias = Annotated[str, Field(min_length=1, max_length=63, pattern=KIND_PATTERN)]
Hostname: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=HOSTNAME_PATTERN)]
PreciseHostname: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
HeaderName: TypeAlias = Annotated[str, Field(min_length=1, max_length=256, pattern=HEADER_NAME_PATTERN)]
HeaderValue: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096, pattern=HEADER_VALUE_PATTERN)]
ControllerName: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=CONTROLLER_PATTERN)]
QualifiedName: TypeAlias = Annotated[str, Field(min_length=1, max_length=317, pattern=QUALIFIED_PATTERN)]
Origin: TypeAlias = Annotated[str, Field(min_length=1, max_length=253, pattern=ORIGIN_PATTERN)]
Duration: TypeAlias = Annotated[str, Field(pattern=DURATION_PATTERN)]
"""A duration as GEP-2257 writes it; `parse_duration` gives the timedelta."""

_UNITS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION_PART: Final = re.compile(r"([0-9]{1,5})(ms|h|m|s)")


def parse_duration(text: str) -> timedelta:
    """The length of a duration such as `1h30m`, `10s` or `500ms` (GEP-2257); ValueError for anything else."""
    if re.fullmatch(DURATION_PATTERN, text) is None:
        raise ValueError(f"{text!r} is not {PATTERN_MEANINGS[DURATION_PATTERN]}")
    return timedelta(milliseconds=sum(int(count) * _UNITS[unit] for count, unit in _DURATION_PART.findall(text)))


def refuse(message: str, field: str = "") -> PydanticCustomError:
    """An error to raise from a validator; `field` (dotted, as written in YAML) points below the validated value."""
    # Braces would be read as placeholders of the template.
    return PydanticCustomError("refused", "{message}", {"message": message, "field": field})


T = TypeVar("T")


def require_unique(items: Iterable[T], key: Callable[[T], Hashable], what: str) -> None:
    """Raises for the second item of the same key; the message names it, the path points at it."""
    seen: set[Hashable] = set()
    for index, item in enumerate(items):
        value = key(item)
        if value in seen:
            raise refuse(f"duplicate {what} {value!r}", f"[{index}]")
        seen.add(value)


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether the whole text has the form; for fields whose form depends on another field."""
    return re.fullmatch(pattern, text) is not None

# pyright: standard, reportAttributeAccessIssue=false
"""Envoy's messages with fields that are newer than the installed `xds-protos`.

They are kept in a pool of their own, into which a file is taken from the default one when something in it is first
asked for, with what it lacks. A message of this pool holds messages of this pool alone; packed into an Any, it goes
anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_ROUTE: Final = "envoy.config.route.v3.RateLimit"
_LIMITS: Final = "envoy.extensions.common.ratelimit.v3"


class _Field(NamedTuple):
    """A field to be added; `kind` is a scalar type, or the full name of a message or enum with a dot before it."""

    name: str
    number: int
    kind: str
    oneof: str = ""


_FIELDS: Final[Mapping[str, tuple[_Field, ...]]] = MappingProxyType(
    {
        _ROUTE: (_Field("x_ratelimit_option", 7, f".{_ROUTE}.XRateLimitOption"),),
        f"{_ROUTE}.Action": (
            _Field("remote_address_match", 13, f".{_ROUTE}.Action.RemoteAddressMatch", "action_specifier"),
        ),
        f"{_ROUTE}.Action.RemoteAddressMatch": (
            _Field("descriptor_value", 1, "string"),
            _Field("descriptor_key", 2, "string"),
            _Field("default_value", 3, "string"),
            _Field("address_matcher", 4, ".envoy.type.matcher.v3.AddressMatcher"),
        ),
        f"{_ROUTE}.HitsAddend": (_Field("is_negative_hits", 3, "bool"),),
        "envoy.type.matcher.v3.AddressMatcher": (_Field("invert_match", 2, "bool"),),
        f"{_LIMITS}.LocalRateLimitDescriptor": (_Field("shadow_mode", 3, "bool"),),
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": (
            _Field("enable_retry_after_header", 19, "bool"),
        ),
    }
)
_MESSAGES: Final = MappingProxyType({f"{_ROUTE}.Action": ("RemoteAddressMatch",)})
_ENUMS: Final = MappingProxyType({_ROUTE: (("XRateLimitOption", ("UNSPECIFIED", "OFF", "DRAFT_VERSION_03")),)})
_IMPORTS: Final = MappingProxyType(
    {"envoy/config/route/v3/route_components.proto": ("envoy/type/matcher/v3/address.proto",)}
)


@cache
def message(name: str) -> Any:
    """Returns the class of a message by its full name; KeyError for one whose module was not imported."""
    return GetMessageClass(_pool().FindMessageTypeByName(name))


def pool() -> Any:
    """Returns what finds messages by name, for `google.protobuf.json_format`."""
    return _pool()


@cache
def _pool() -> _Pool:
    return _Pool()


class _Pool:
    def __init__(self) -> None:
        self._pool = DescriptorPool()
        self._taken: set[str] = set()

    def FindMessageTypeByName(self, name: str) -> Any:  # noqa: N802  (as a DescriptorPool has it)
        self._take(Default().FindFileContainingSymbol(name))
        return self._pool.FindMessageTypeByName(name)

    def _take(self, file: FileDescriptor) -> None:
        if file.name in self._taken:
            return
        self._taken.add(file.name)
        made = FileDescriptorProto.FromString(file.serialized_pb)
        for each in _IMPORTS.get(file.name, ()):
            if each not in made.dependency:
                made.dependency.append(each)
        for each in made.dependency:
            self._take(Default().FindFileByName(each))
        for each in made.message_type:
            _complete(each, f"{made.package}.{each.name}")
        self._pool.Add(made)


def _complete(made: DescriptorProto, name: str) -> None:
    """Adds what a message lacks, and what those within it do."""
    there = {each.name for each in made.nested_type}
    made.nested_type.extend(DescriptorProto(name=each) for each in _MESSAGES.get(name, ()) if each not in there)
    enums = {each.name for each in made.enum_type}
    for title, values in _ENUMS.get(name, ()):
        if title not in enums:
            numbered = [EnumValueDescriptorProto(name=value, number=number) for number, value in enumerate(values)]
            made.enum_type.append(EnumDescriptorProto(name=title, value=numbered))
    fields = {each.name for each in made.field}
    made.field.extend(_field(made, each) for each in _FIELDS.get(name, ()) if each.name not in fields)
    for each in made.nested_type:
        _complete(each, f"{name}.{each.name}")


def _field(owner: DescriptorProto, wanted: _Field) -> FieldDescriptorProto:
    made = FieldDescriptorProto(name=wanted.name, number=wanted.number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if not wanted.kind.startswith("."):
        made.type = FieldDescriptorProto.Type.Value(f"TYPE_{wanted.kind.upper()}")
    else:
        enum = any(title == wanted.kind.rpartition(".")[2] for each in _ENUMS.values() for title, _ in each)
        made.type = FieldDescriptorProto.TYPE_ENUM if enum else FieldDescriptorProto.TYPE_MESSAGE
        made.type_name = wanted.kind
    if wanted.oneof:
        made.oneof_index = [each.name for each in owner.oneof_decl].index(wanted.oneof)
    return made

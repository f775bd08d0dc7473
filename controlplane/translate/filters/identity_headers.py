# pyright: standard, reportAttributeAccessIssue=false
"""Headers that policies set are taken from every request of a Gateway, whichever route it is for.

The filter is on everywhere and comes by ECDS: a new name reaches open connections, and touches no listener. Names under
the reserved prefix are gone before routes are chosen (see `listeners`).
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.common.mutation_rules.v3.mutation_rules_pb2 import HeaderMutation as Mutation
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation, Mutations
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.filters.discovery import discovered, extension

NAME: str = "dragoman/identity-headers"


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener."""
    return discovered(NAME, HeaderMutation)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns None: no route has settings of its own."""
    return None


def extension_config(names: Iterable[str]) -> bytes:
    """Encodes the configuration that removes these headers."""
    removals = [Mutation(remove=name) for name in sorted(names) if not name.startswith(ir.RESERVED_PREFIX)]
    return extension(NAME, HeaderMutation(mutations=Mutations(request_mutations=removals)))

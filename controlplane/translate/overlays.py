# pyright: standard, reportAttributeAccessIssue=false
"""A route in parts: what it is of itself, and what policies lay over it, encoded once for all routes that share them.

Bytes of one message that stand one after the other are that message, merged (Protocol Buffers, Last One Wins).
No field is in two of the parts here, so that nothing has to win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from envoy.config.route.v3.route_components_pb2 import Route
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.actions import edit_headers, set_action, set_denial
from controlplane.translate.filters import (
    FilterModule,
    cors,
    per_route_configs,
    rate_limit_quota,
    ratelimit,
    request_id,
    shield,
)
from controlplane.translate.matches import route_match
from controlplane.translate.wire import encode

_NO_RULE = ir.Rule("", (), ir.Respond(500))
_NO_POLICIES = ir.Policies()
_OF_LIMITS: tuple[FilterModule, ...] = (*rate_limit_quota.ALL, request_id, shield, *ratelimit.ALL)


@dataclass(frozen=True, slots=True)
class Base:
    """A route without policies, encoded but for its own cross-origin settings, which stand apart."""

    name: str
    match: ir.Match
    body: bytes
    cors: bytes


@dataclass(frozen=True, slots=True)
class Overlay:
    """What policies add to a route: an answer in place of its action, or what enables filters.

    `apart` is a limit that counts for each route apart, so that no two routes have the same bytes of it.
    """

    denial: bytes | None = None
    cors: bytes = b""
    rest: bytes = b""
    apart: ir.GlobalLimit | None = None
    jwt: ir.Jwt | None = None  # whose tokens' claims that limit may ask for
    keys: ir.KeyPolicy | None = None  # what else may prove to it who calls
    asked: tuple[FilterModule, ...] = ()  # the filters that it needs

    def over(self, base: Base, *, scope: str = "") -> bytes:
        """Encodes a route with this laid over it; `scope` is whose requests count together towards `apart`."""
        limit = self._limit(self.apart, scope) if self.apart is not None else b""
        body = base.body if self.denial is None else encode(_head(base.name, base.match)) + self.denial
        return b"".join((body, base.cors or self.cors, self.rest, limit))

    def _limit(self, limit: ir.GlobalLimit, scope: str) -> bytes:
        policies = ir.Policies(jwt=self.jwt, keys=self.keys, global_limit=limit, limit_scope=scope)
        found = ((each.NAME, each.route_config(_NO_RULE, policies)) for each in self.asked)
        return _encoded({name: config for name, config in found if config is not None})


def base(name: str, match: ir.Match, rule: ir.Rule, *, port: int, https: bool) -> Base:
    """Encodes a route of a rule as it stands on a listener of this port."""
    message = _head(name, match)
    set_action(message, rule.action, path=match.path, port=port, https=https)
    edit_headers(rule.request_headers, rule.response_headers, message)
    own_cors = cors.route_config(rule, _NO_POLICIES)
    return Base(name, match, encode(message), _encoded({cors.NAME: own_cors}) if own_cors is not None else b"")


def overlay(policies: ir.Policies) -> Overlay:
    """Encodes what policies add to every route on which they are in force."""
    shared, apart = policies, None
    if policies.global_limit is not None and policies.global_limit.counts_apart and not policies.limit_scope:
        shared, apart = replace(policies, global_limit=None), policies.global_limit
    configs = dict(per_route_configs(_NO_RULE, shared))
    of_cors = {cors.NAME: configs.pop(cors.NAME)} if cors.NAME in configs else {}
    if policies.deny is None:
        made = Overlay(None, _encoded(of_cors), _encoded(configs), apart)
        if apart is None:
            return made
        asked = tuple(each for each in _OF_LIMITS if each.route_config(_NO_RULE, policies) is not None)
        return replace(made, jwt=policies.jwt, keys=policies.keys, asked=asked)
    denial = Route()
    set_denial(denial, policies.deny)
    return Overlay(encode(denial), _encoded(of_cors))


def _head(name: str, match: ir.Match) -> Route:
    return Route(name=name, match=route_match(match))


def _encoded(configs: Mapping[str, AnyMessage]) -> bytes:
    message = Route()
    for name, config in configs.items():
        message.typed_per_filter_config[name].CopyFrom(config)
    return encode(message)

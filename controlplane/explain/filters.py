# pyright: standard
"""The filters that a request of a route goes through, in order, with the objects that ask for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile.policies import Merged
from controlplane.explain import values
from controlplane.explain.model import Filter, Setting, Source
from controlplane.explain.sources import Locate
from controlplane.translate.filters import (
    FILTERS,
    api_key_auth,
    authorization,
    cors,
    ext_authz,
    identity_headers,
    jwt,
    local_ratelimit,
    per_route_configs,
    rate_limit_quota,
    ratelimit,
    request_id,
    shield,
)

FIELDS_OF: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        identity_headers.NAME: (),
        cors.NAME: ("cors",),
        api_key_auth.NAME: ("api_keys",),
        jwt.NAME: ("jwt",),
        ext_authz.NAME: ("keys",),
        authorization.NAME: ("authorization", "own_authorization"),
        local_ratelimit.NAME: ("local_limit",),
        **{each.NAME: ("global_limit",) for each in rate_limit_quota.ALL},
        request_id.NAME: ("global_limit",),
        shield.NAME: ("global_limit",),
        **{each.NAME: ("global_limit",) for each in ratelimit.ALL},
    }
)
"""The fields of `ir.Policies` that enable a filter, by its name."""
_PART_OF_A_LIMIT: Final[Mapping[str, str]] = MappingProxyType(
    {
        request_id.NAME: "gives the request a name, by which limits of what runs at a time know that it has ended",
        shield.NAME: "refuses who asks for more than twice what a limit admits; the service is not asked",
        rate_limit_quota.KEY_NAME: "names the limits, and whose requests count together, to the filter that follows",
    }
)
_WORDS: Final[Mapping[str, Callable[[ir.GlobalLimit], str]]] = MappingProxyType(
    {rate_limit_quota.NAME: values.by_shares, **{each.NAME: values.asked_about for each in ratelimit.ALL}}
)
"""What filters do of a field of which others do the rest."""
_ROUTER: Final = "envoy.filters.http.router"


def settings(merged: Merged, locate: Locate) -> tuple[Setting, ...]:
    """Returns what policies ask of the requests of a rule, and whose each field is."""
    return tuple(
        Setting(name, values.in_words(name, value), source)
        for name in values.FIELDS
        if (value := getattr(merged.policies, name)) is not None
        for source in _sources(merged, name, locate)[:1] or (Source("", name),)
    )


def filters(route: ir.Route, merged: Merged, locate: Locate, *, key: ObjectKey, field: str) -> Iterator[Filter]:
    """Yields the filters that are enabled on a route, the router last; `field` is the path of its rule."""
    enabled = {name for name, _ in per_route_configs(route.rule, route.policies)}
    for module in FILTERS:
        if module is identity_headers:
            yield Filter(module.NAME, "drops what clients send of headers that policies set")
        elif module.NAME in enabled:
            yield _filter(module.NAME, route, merged, locate, key=key, field=field)
    yield Filter(_ROUTER, "does what the rule says", (locate(key, field),))


def _filter(name: str, route: ir.Route, merged: Merged, locate: Locate, *, key: ObjectKey, field: str) -> Filter:
    if name == cors.NAME and route.rule.cors is not None:
        return Filter(name, values.in_words("cors", route.rule.cors), (locate(key, f"{field}.filters"),))
    found = [each for each in FIELDS_OF[name] if getattr(route.policies, each) is not None]
    if name in _PART_OF_A_LIMIT:
        sources = (source for each in found for source in _sources(merged, each, locate))
        return Filter(name, _PART_OF_A_LIMIT[name], tuple(sources))
    said = ((_WORDS.get(name, partial(values.in_words, each)), getattr(route.policies, each)) for each in found)
    does = "; and ".join(words(value) for words, value in said)
    return Filter(name, does, tuple(source for each in found for source in _sources(merged, each, locate)))


def _sources(merged: Merged, field: str, locate: Locate) -> tuple[Source, ...]:
    return tuple(locate(each.policy, each.path) for each in merged.sources if each.field == field)

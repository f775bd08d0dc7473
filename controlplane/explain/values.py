"""Policies in words: what each field of them asks of a request. Keys and secrets are counted, never shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from controlplane import ir
from controlplane.explain import limits


def in_words(field: str, value: Any) -> str:
    """Returns a field of `ir.Policies` in words."""
    return _WORDS[field](value)


def _cors(value: ir.Cors) -> str:
    return f"browsers of {', '.join(value.origins) or 'no origin'} may call" + (
        ", with credentials" if value.credentials else ""
    )


def _jwt(value: ir.Jwt) -> str:
    providers = ", ".join(f"{each.name} (issuer {each.issuer or 'any'})" for each in value.providers)
    return f"a token of {providers}" + ("; without one it passes, too" if value.optional else "")


def _api_keys(value: ir.ApiKeys) -> str:
    return f"one of {len(value.keys)} API keys, in {_places(value.sources)}"


def _keys(value: ir.KeyPolicy) -> str:
    scopes = f", with the scopes {', '.join(value.required_scopes)}" if value.required_scopes else ""
    known = f"one of {len(value.known)} API keys" if value.known else "an API key of a consumer"
    return f"{known}, in {_places(value.sources)}{scopes}; ext_authz checks it"


def _places(sources: Iterable[ir.KeySource]) -> str:
    found = [
        f"{kind} {name}"
        for source in sources
        for kind, names in (("header", source.headers), ("parameter", source.params), ("cookie", source.cookies))
        for name in names
    ]
    return " or ".join(found) or "no place"


def _authorization(value: ir.Authorization) -> str:
    rules = f"{len(value.rules)} {'rule' if len(value.rules) == 1 else 'rules'}"
    return f"{rules}; who matches none is {'let in' if value.default_allow else 'refused'}"


def _local(value: ir.LocalLimit) -> str:
    return f"{limits.in_words(value.rules)}; each Envoy counts for itself"


def asked_about(value: ir.GlobalLimit) -> str:
    """Returns in words what the service is asked about; empty where it is nothing."""
    rules = limits.in_words(each for each in value.rules if not each.counting.quota)
    found = "; ".join(filter(None, (rules, _plans(value.plans) if value.plans is not None else "")))
    failing = "let through" if value.fail_open else "refused"
    return f"{found}; counted over all Envoys; {failing} while the service cannot be reached" if found else ""


def by_shares(value: ir.GlobalLimit) -> str:
    """Returns in words what Envoys enforce by their shares; empty where it is nothing."""
    rules = limits.in_words(each for each in value.rules if each.counting.quota)
    return f"{rules}; each Envoy enforces its share of that (mode Quota)" if rules else ""


def _global(value: ir.GlobalLimit) -> str:
    return "; and ".join(filter(None, (by_shares(value), asked_about(value))))


def _plans(value: ir.Plans) -> str:
    names = ", ".join(each.name for each in value.plans) or "none"
    proof = {"Key": "an API key", "Token": "a token", "Headers": "headers"}[value.identity.source]
    return f"limits of plans ({names}) by {proof}, else of {value.default}; of {value.anonymous} by address"


def _deny(value: ir.Deny) -> str:
    return f"nothing passes ({value.status}): {value.reason}"


_WORDS: Final[Mapping[str, Callable[[Any], str]]] = MappingProxyType(
    {
        "cors": _cors,
        "jwt": _jwt,
        "api_keys": _api_keys,
        "keys": _keys,
        "authorization": _authorization,
        "own_authorization": _authorization,
        "local_limit": _local,
        "global_limit": _global,
        "deny": _deny,
    }
)
FIELDS: Final = tuple(_WORDS)
"""The fields of `ir.Policies` that ask something of a request."""

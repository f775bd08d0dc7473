"""What the models refuse, in the API server's terms: for each check of a model, rules in CEL, keys, or a format.

A check is named `MODULE.FUNCTION` or `MODULE.MODEL.METHOD`. A rule costs the server time with every write, and a
definition whose rules could cost too much is refused; lists and texts that rules look at therefore have bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.api.meta import GATEWAY_GROUP, Model
from controlplane.api.policy import PolicySpec
from controlplane.api.scalars import HEADER_NAME_PATTERN


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition in CEL on a value, which is `self`."""

    rule: str
    message: str
    field: str = ""
    """What the refusal points at, below the value."""
    at: tuple[str, ...] = ()
    """The fields that lead from the value that is checked to the one that is `self`; `[]` is an item of a list."""


def rules_of_model(model: type[Model]) -> Iterable[Rule]:
    """The rules on a whole object, from the checks of its model and of those that it inherits from."""
    for name, decorator in model.__pydantic_decorators__.model_validators.items():
        for owner in model.__mro__:
            if name in vars(owner):
                check = f"{owner.__module__.removeprefix('controlplane.api.')}.{owner.__qualname__}.{name}"
                made = _MODEL_RULES.get(check, ())
                yield from made(model) if callable(made) else made
                break
        else:
            raise TypeError(f"{decorator.cls_ref} has no check {name}")


def rules_of_value(check: str) -> Iterable[Rule]:
    """The rules on a value that this function checks."""
    return _VALUE_RULES.get(check, ())


def known_checks() -> set[str]:
    """All checks that this module names."""
    return {*FORMATS, *KEYS, *_MODEL_RULES, *_VALUE_RULES, *WITHOUT_RULES}


FORMATS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Rules cannot see its fields whose insides are not described.
    "authorization.Principal._not_empty": {"minProperties": 1},
    "backend._check_address": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    # Beside its type such a format would let a list pass for a text.
    "policy._check_cidr": {"allOf": [{"format": "cidr"}]},
    "proxyprovider._check_ip": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
}
"""What a keyword of the schema says."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "httpfilters._check_headers": ("name",),
    "jwt._check_providers": ("name",),
}
"""Lists whose items are told apart by these fields."""

WITHOUT_RULES: Final[Mapping[str, str]] = {
    "meta._nothing": "the server has a schema for status, and clients cannot write it with the object",
    "meta._without_copies": "it refuses nothing",
    "policy._is_mapping": "the type of the schema says it",
    "policy._is_list": "the type of the schema says it",
}
"""Checks that need no rule, or can have none; and why."""


def _set(field: str) -> str:
    return f"(has(self.{field}) && size(self.{field}) > 0)"


def _only_with(kind_field: str, kind: str, field: str) -> Rule:
    """`field` is set when, and only when, the type is `kind`."""
    return Rule(
        f"(self.{kind_field} == '{kind}') == has(self.{field})",
        f"{field} goes with {kind_field} {kind}, and with no other",
        field,
    )


def _not_both(one: str, other: str) -> Rule:
    return Rule(f"!has(self.{one}) || !has(self.{other})", f"set {one} or {other}, not both", other)


def _targets(model: type[Model]) -> list[Rule]:
    assert issubclass(model, PolicySpec)
    kinds = model.target_kinds
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    group = f"expected group '{GATEWAY_GROUP}'"
    kind = f"this policy applies to {', '.join(kinds)}"
    of_targets = [
        rule
        for at in (("targetRef",), ("targetRefs", "[]"), ("targetSelectors", "[]"))
        for rule in (
            Rule(f"self.group == '{GATEWAY_GROUP}'", group, "group", at),
            Rule(f"self.kind in [{listed}]", kind, "kind", at),
        )
    ]
    both = f"!(has(self.targetRef) && {_set('targetRefs')})"
    some = f"has(self.targetRef) || {_set('targetRefs')} || {_set('targetSelectors')}"
    return [
        Rule(both, "set targetRef or targetRefs, not both", "targetRef"),
        Rule(some, "a policy needs targetRefs or targetSelectors", "targetRefs"),
        *of_targets,
    ]


_WHOLE_GATEWAY = "{0}.kind == 'Gateway' && !has({0}.sectionName)"
_NO_PATH: Final = "self.type == 'RegularExpression' || "
_PATH_CHARACTERS: Final = r"[-A-Za-z0-9/._~!$&()*+,;=:@\']|%[0-9a-fA-F]{2}"
_PATH: Final = (
    Rule(f"{_NO_PATH}self.value.startsWith('/')", "expected an absolute path that starts with '/'", "value"),
    Rule(
        rf"{_NO_PATH}self.value.matches('^({_PATH_CHARACTERS})*$')",
        "expected a path of valid URI characters (others as %XX)",
        "value",
    ),
    Rule(
        rf"{_NO_PATH}!self.value.matches('//|/[.][.]?(/|$)|%2[fF]')",
        "a path must not contain '//', '/./', '/../' or '%2F'",
        "value",
    ),
)
_COUNTED: Final = (
    *(
        Rule(f"!has(self.{field}) || self.algorithm == '{algorithm}'", f"{field} needs algorithm {algorithm}", field)
        for field, algorithm in (("burst", "TokenBucket"), ("delay", "LeakyBucket"), ("leaseTime", "Concurrency"))
    ),
    Rule(
        "(self.precision == 'Lease') == has(self.leaseSize)",
        "leaseSize goes with precision Lease, and with no other",
        "leaseSize",
    ),
    *(
        Rule(
            f"self.{field} != '{value}' || !(self.algorithm in ['LeakyBucket', 'Concurrency'])",
            f"algorithms LeakyBucket and Concurrency have no {what}",
            field,
        )
        for field, value, what in (("precision", "Lease", "leases"), ("mode", "Quota", "quotas"))
    ),
)
_SELECTORS: Final = ("headers", "methods", "path", "sourceCIDR", "queryParams", "claims")

_MODEL_RULES: Final[Mapping[str, tuple[Rule, ...] | Callable[[type[Model]], list[Rule]]]] = {
    "apikey.ExtractFrom._one_kind": (
        Rule(
            f"[{', '.join(_set(each) for each in ('headers', 'params', 'cookies'))}].exists_one(each, each)",
            "set exactly one of headers, params and cookies",
        ),
    ),
    "authorization.PathMatch._value_is_path": _PATH,
    "authorization.Operation._not_empty": (Rule(f"{_set('methods')} || has(self.path)", "set methods, path or both"),),
    "authorization.JWTPrincipal._not_empty": (
        Rule(f"{_set('claims')} || {_set('scopes')}", "set claims, scopes or both"),
    ),
    "backend.BackendEndpoint._one_sort": (
        Rule(
            "[has(self.fqdn), has(self.ip), has(self.unix)].exists_one(each, each)",
            "set exactly one of fqdn, ip and unix",
        ),
    ),
    "backend.BackendTLSSettings._one_trust": (
        Rule(
            f"!({_set('caCertificateRefs')} && has(self.wellKnownCACertificates))",
            "set caCertificateRefs or wellKnownCACertificates, not both",
            "wellKnownCACertificates",
        ),
        Rule(
            f"!self.insecureSkipVerify || !({_set('caCertificateRefs')} || has(self.wellKnownCACertificates))",
            "insecureSkipVerify leaves nothing to trust; set one or the other",
            "insecureSkipVerify",
        ),
    ),
    "backend.BackendSpec._type_has_endpoints": (
        Rule(
            f"(self.type == 'Endpoints') == {_set('endpoints')}",
            "type Endpoints needs endpoints, and no other type has them",
            "endpoints",
        ),
    ),
    "counting.Counted._fit_together": _COUNTED,
    "httproutefilter.HostnameModifier._type_has_value": (_only_with("type", "Header", "header"),),
    "httproutefilter.ResponseBody._type_has_value": (
        _only_with("type", "Inline", "inline"),
        _only_with("type", "ValueRef", "valueRef"),
    ),
    "jwt.LocalJWKS._type_has_value": (
        _only_with("type", "Inline", "inline"),
        _only_with("type", "ValueRef", "valueRef"),
    ),
    "jwt.JWTProvider._one_source_of_keys": (
        Rule("has(self.remoteJWKS) != has(self.localJWKS)", "set either remoteJWKS or localJWKS"),
        Rule(
            f"!self.recomputeRoute || {_set('claimToHeaders')}",
            "recomputeRoute needs claimToHeaders",
            "recomputeRoute",
        ),
    ),
    "meta.BackendObjectReference._service_has_port": (
        Rule(
            "has(self.port) || self.kind != 'Service' || self.group != ''",
            "a reference to a Service needs a port",
            "port",
        ),
    ),
    "meta.LabelSelectorRequirement._values_fit": (
        Rule(
            f"(self.operator in ['In', 'NotIn']) == {_set('values')}",
            "operators In and NotIn need at least one value, the others have none",
            "values",
        ),
    ),
    "oidc.OIDC._one_client_id": (
        Rule("has(self.clientID) != has(self.clientIDRef)", "set either clientID or clientIDRef"),
    ),
    "plan.PlanOverride._one_sort": (
        Rule(f"{_set('consumers')} != {_set('tenants')}", "set consumers or tenants, and not both"),
    ),
    "policy.PolicySpec._has_targets": _targets,
    "policy.MergeablePolicySpec._merges_into_parent": (
        Rule(
            "!has(self.mergeType) || !has(self.targetRef) || !(" + _WHOLE_GATEWAY.format("self.targetRef") + ")",
            "a policy for a whole Gateway has no parent to merge into",
            "mergeType",
        ),
        Rule(
            "!has(self.mergeType) || !has(self.targetRefs) || !self.targetRefs.exists(each, "
            + _WHOLE_GATEWAY.format("each")
            + ")",
            "a policy for a whole Gateway has no parent to merge into",
            "mergeType",
        ),
    ),
    "proxyconfig.ShutdownConfig._in_order": (
        Rule(
            "duration(self.minDrainDuration) <= duration(self.drainTimeout)",
            "must not be longer than drainTimeout",
            "minDrainDuration",
        ),
    ),
    "proxyprovider.KubernetesProvider._fit_together": (
        _not_both("envoyDeployment", "envoyDaemonSet"),
        Rule("!has(self.envoyDaemonSet) || !has(self.envoyHpa)", "a DaemonSet is not scaled", "envoyHpa"),
    ),
    "proxyprovider.ProxyAutoscaler._in_order": (
        Rule(
            "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
            "must not be less than minReplicas",
            "maxReplicas",
        ),
    ),
    "proxyprovider.ProxyContainer._one_image": (_not_both("image", "imageRepository"),),
    "proxyprovider.ProxyDisruptionBudget._one_of": (_not_both("minAvailable", "maxUnavailable"),),
    "proxyprovider.ProxyProvider._is_kubernetes": (
        Rule("self.type == 'Kubernetes'", "only Kubernetes is supported", "type"),
    ),
    "proxyprovider.ProxyService._fits_type": (
        *(
            Rule(f"self.type == 'LoadBalancer' || !has(self.{field})", "goes with type LoadBalancer alone", field)
            for field in ("loadBalancerClass", "loadBalancerIP", "allocateLoadBalancerNodePorts")
        ),
        Rule(
            f"self.type == 'LoadBalancer' || !{_set('loadBalancerSourceRanges')}",
            "goes with type LoadBalancer alone",
            "loadBalancerSourceRanges",
        ),
    ),
    "ratelimit._ValueMatch._type_has_value": (
        Rule(
            "(self.type == 'Distinct') != has(self.value)",
            "value must not be set for type Distinct, and other types need it",
            "value",
        ),
        Rule("self.type != 'Distinct' || !self.invert", "invert must not be set for type Distinct", "invert"),
    ),
    "ratelimit.ClaimMatch._type_has_values": (
        Rule(
            f"(self.type == 'Distinct') != {_set('values')}",
            "values must not be set for type Distinct, and type Exact needs them",
            "values",
        ),
        Rule("self.type != 'Distinct' || !self.invert", "invert must not be set for type Distinct", "invert"),
        Rule(
            "self.type != 'Distinct' || self.valueType == 'String'",
            "type Distinct needs a claim with one value",
            "valueType",
        ),
    ),
    "ratelimit.RateLimitSelectCondition._not_empty": (
        Rule(
            " || ".join(_set(each) if each.endswith("s") else f"has(self.{each})" for each in _SELECTORS),
            f"set at least one of {', '.join(_SELECTORS[:-1])} and {_SELECTORS[-1]}",
        ),
    ),
    "ratelimit.RateLimitCostSpecifier._source_has_value": (
        _only_with("from", "Number", "number"),
        _only_with("from", "Metadata", "metadata"),
    ),
    "ratelimit.GlobalRateLimit._not_empty": (
        Rule(f"{_set('rules')} || has(self.plans)", "set rules, plans or both", "rules"),
    ),
    "plans.PlanIdentity._fits_source": (
        Rule("!has(self.provider) || self.from == 'Token'", "provider goes with from Token", "provider"),
        *(
            Rule(f"!has(self.{field}) || self.from != 'Key'", f"the {field} of a key is known", field)
            for field in ("consumer", "tenant")
        ),
        *(
            Rule(f"has(self.{field}) || self.from != 'Headers'", f"from Headers needs {field}", field)
            for field in ("plan", "consumer")
        ),
        *(
            Rule(
                f"!has(self.{field}) || self.from != 'Headers' || self.{field}.matches(r\"{HEADER_NAME_PATTERN}\")",
                "expected a header name, such as `x-plan`",
                field,
            )
            for field in ("plan", "consumer", "tenant")
        ),
    ),
    "plans.RateLimitPlans._refs_differ": (
        Rule(
            f"!{_set('refs')} || self.refs.all(a, self.refs.exists_one(b, a.name == b.name))",
            "two of refs have the same name",
            "refs",
        ),
        *(
            Rule(
                f"!{_set('refs')} || !has(self.{field}) || self.refs.exists(each, each.name == self.{field})",
                f"{field} is none of refs",
                field,
            )
            for field in ("default", "anonymous")
        ),
    ),
    "ratelimit.LocalRateLimit._no_response_cost": (
        Rule(
            "!has(self.cost) || !has(self.cost.response)",
            "local limits have no response cost",
            "cost.response",
            ("rules", "[]"),
        ),
        Rule(
            "!has(self.limit.fromMetadata)",
            "local limits do not come from metadata",
            "limit.fromMetadata",
            ("rules", "[]"),
        ),
    ),
    "ratelimit.RateLimitSpec._type_has_value": (
        Rule("has(self.global) || has(self.local)", "set global, local or both"),
        Rule("!has(self.type) || self.type != 'Global' || has(self.global)", "type Global needs global", "global"),
        Rule("!has(self.type) || self.type != 'Local' || has(self.local)", "type Local needs local", "local"),
    ),
    "securitypolicy.ExtAuth._one_protocol": (Rule("has(self.grpc) != has(self.http)", "set either grpc or http"),),
}

_VALUE_RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "backend._check_endpoints": (
        Rule(
            "self.all(each, has(each.fqdn)) || !self.exists(each, has(each.fqdn))",
            "fqdn endpoints cannot be mixed with others",
        ),
    ),
    "counting._check_delay": (Rule("duration(self) <= duration('10s')", "expected at most 10s"),),
    "counting._check_lease_time": (
        Rule("duration(self) >= duration('1s') && duration(self) <= duration('24h')", "expected 1s to 24h"),
    ),
    "meta.check_targets": (
        Rule(
            "self.all(a, self.exists_one(b, b.group == a.group && b.kind == a.kind && b.name == a.name"
            " && (!has(a.sectionName) || !has(b.sectionName) || a.sectionName == b.sectionName)))",
            "references to the same object must each set a sectionName of its own",
        ),
    ),
}

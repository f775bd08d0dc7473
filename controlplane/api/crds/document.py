"""A CustomResourceDefinition for each of our kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from controlplane.api.crds.schema import field_schema, said
from controlplane.api.crds.status import conditions_status, policy_status
from controlplane.api.fields import shapes
from controlplane.api.kinds import SERVED
from controlplane.api.meta import POLICY_GROUP, Resource

Document = dict[str, Any]

_API_VERSION: Final = "The version of the schema of this object."
_KIND: Final = "The kind of this object."


class _Names(NamedTuple):
    plural: str
    short: tuple[str, ...]
    is_policy: bool


_NAMES: Final[dict[str, _Names]] = {
    "Backend": _Names("backends", ("be",), False),
    "BackendTrafficPolicy": _Names("backendtrafficpolicies", ("btp",), True),
    "ClientTrafficPolicy": _Names("clienttrafficpolicies", ("ctp",), True),
    "ExtensionPolicy": _Names("extensionpolicies", ("extp",), True),
    "HTTPRouteFilter": _Names("httproutefilters", ("hrf",), False),
    "PatchPolicy": _Names("patchpolicies", ("ppo",), True),
    "Plan": _Names("plans", ("pln",), False),
    "ProxyConfig": _Names("proxyconfigs", ("pxc",), False),
    "SecurityPolicy": _Names("securitypolicies", ("sp",), True),
}


def definitions() -> Iterator[tuple[str, Document]]:
    """Each of our kinds with its CustomResourceDefinition, by the name of its file."""
    for group, kind in SERVED:
        if group == POLICY_GROUP:
            yield f"{group}_{_NAMES[kind].plural}.yaml", definition(kind)


def definition(kind: str) -> Document:
    """The CustomResourceDefinition of a kind of our group."""
    served, names = SERVED[POLICY_GROUP, kind], _NAMES[kind]
    # Direct: a policy applies to its targets, and is not inherited as a whole (GEP-2648).
    labels = {"gateway.networking.k8s.io/policy": "Direct"} if names.is_policy else {}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.plural}.{POLICY_GROUP}",
            **({"labels": labels} if labels else {}),
        },
        "spec": {
            "group": POLICY_GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": names.plural,
                "singular": kind.lower(),
                "shortNames": list(names.short),
                "categories": ["dragoman", "gateway-api"],
            },
            "scope": "Cluster" if served.model.cluster_scoped else "Namespaced",
            "versions": [_version(version, served.model, names) for version in served.versions],
        },
    }


def _version(version: str, model: type[Resource], names: _Names) -> Document:
    path = ".status.ancestors[0].conditions" if names.is_policy else ".status.conditions"
    return {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Accepted", "type": "string", "jsonPath": f'{path}[?(@.type=="Accepted")].status'},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": _object(model, names)},
    }


def _object(model: type[Resource], names: _Names) -> Document:
    spec = next(shape for shape in shapes(model) if shape.name == "spec")
    return {
        "description": said(model),
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": _API_VERSION},
            "kind": {"type": "string", "description": _KIND},
            "metadata": {"type": "object"},
            "spec": field_schema(spec),
            "status": policy_status() if names.is_policy else conditions_status(),
        },
        **({"required": ["spec"]} if spec.info.is_required() else {}),
    }

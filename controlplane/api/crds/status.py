"""The schemas of `status`: Gateway API's PolicyStatus, and plain conditions."""

from __future__ import annotations

from typing import Any, Final

from controlplane.api.crds.schema import Schema, model_schema
from controlplane.api.meta import ParentReference
from controlplane.api.scalars import CONTROLLER_PATTERN

_CONDITION: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One aspect of the state of this object.",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "type": {
            "type": "string",
            "description": "The aspect, such as Accepted.",
            "maxLength": 316,
            "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        },
        "status": {
            "type": "string",
            "description": "Whether it holds.",
            "enum": ["True", "False", "Unknown"],
        },
        "reason": {
            "type": "string",
            "description": "Why, in a word for programs.",
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        "message": {"type": "string", "description": "Why, in words for people.", "maxLength": 32_768},
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "description": "The generation of the object that this is about.",
            "minimum": 0,
        },
        "lastTransitionTime": {
            "type": "string",
            "format": "date-time",
            "description": "When the status became what it is.",
        },
    },
}


def conditions_status() -> Schema:
    """The status of an object that is what it is for everybody."""
    return {"type": "object", "description": "What became of it.", "properties": {"conditions": _conditions(0)}}


def policy_status() -> Schema:
    """Gateway API: PolicyStatus; the state of a policy for each Gateway that it has to do with."""
    ancestor = {
        "type": "object",
        "description": "The state of the policy for one of them.",
        "required": ["ancestorRef", "conditions", "controllerName"],
        "properties": {
            "ancestorRef": {"description": "The Gateway, or the object that is nearest to one.", **_ancestor_ref()},
            "controllerName": {
                "type": "string",
                "description": "Whose word this is.",
                "minLength": 1,
                "maxLength": 253,
                "pattern": CONTROLLER_PATTERN,
            },
            "conditions": _conditions(1),
        },
    }
    ancestors = {
        "type": "array",
        "description": "The state of the policy for each Gateway, or object before it, that it has to do with.",
        "maxItems": 16,
        "x-kubernetes-list-type": "atomic",
        "items": ancestor,
    }
    return {
        "type": "object",
        "description": "What became of it.",
        "required": ["ancestors"],
        "properties": {"ancestors": ancestors},
    }


def _ancestor_ref() -> Schema:
    return model_schema(ParentReference)


def _conditions(least: int) -> Schema:
    return {
        "type": "array",
        "description": "Its aspects.",
        **({"minItems": least} if least else {}),
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": _CONDITION,
    }

"""A gateway whose Envoys refuse what the control plane lets pass: long regular expressions."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tests.support.gateway import Gateway

SHORT = 40
"""How long the program of an expression may be."""


class StrictGateway(Gateway):
    """As `Gateway`, with Envoys that take short programs of regular expressions only."""

    def _bootstrap(self, name: str, number: int) -> Mapping[str, Any]:
        document = copy.deepcopy(dict(super()._bootstrap(name, number)))
        for layer in document["layered_runtime"]["layers"]:
            if "static_layer" in layer:
                layer["static_layer"]["re2.max_program_size.error_level"] = SHORT
        return document


def long_expression(start: str) -> str:
    """Returns a regular expression of paths that such an Envoy refuses."""
    return f"{start}/[a-z0-9]{{60}}"

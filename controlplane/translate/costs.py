# pyright: standard, reportAttributeAccessIssue=false
"""What requests and responses cost, as Envoy's descriptors of rate limits say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from controlplane.translate import claims

_MOST: Final = 1_000_000_000
"""What Envoy takes for a number of hits."""


def set_request_cost(message: Any, steps: Sequence[str]) -> None:
    """Has a request cost what the metadata says at these steps, and 1 where that is no number.

    Envoy leaves a descriptor out whose cost is none: a request without it would escape a limit that is used up.
    """
    found = claims.path(steps)
    present = claims.presence(steps, maps=1)
    number = f"{present} && type({found}) == double && {found} >= 0.0"
    digits = f'{present} && type({found}) == string && {found}.matches("^[0-9]{{1,9}}([.][0-9]+)?$")'
    cost = f"{number} ? ({found} <= {_MOST}.0 ? {found} : {_MOST}.0) : ({digits} ? {found} : 1.0)"
    # The text of a command ends with these two characters.
    text = cost.replace(")%", ")\\u0025")
    message.hits_addend.format = f"%TYPED_CEL({text})%"


def set_response_cost(message: Any, steps: Sequence[str]) -> None:
    """Has a response cost what the metadata says at these steps; where that is no number, nothing is counted."""
    message.hits_addend.format = f"%DYNAMIC_METADATA({':'.join(steps)})%"

"""Kubernetes quantities, such as `500m` of CPU or `512Mi` of memory, as numbers."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

_FORM: Final = re.compile(r"([0-9.]{1,20})(m|[kKMGTPE]i?|[eE][0-9]{1,2})?")
_FACTORS: Final = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate(("", "K", "M", "G", "T", "P", "E")) if unit},
    "m": Decimal("0.001"),
}


def parse_quantity(value: object) -> Decimal | None:
    """Returns what a quantity is in units (cores, bytes); None for what is none, which the API server will refuse."""
    found = _FORM.fullmatch(str(value))
    if found is None:
        return None
    number, unit = found[1], found[2] or ""
    try:
        if unit[:1] in ("e", "E") and len(unit) > 1 and unit[1] != "i":
            return Decimal(f"{number}e{unit[1:]}")
        return Decimal(number) * _FACTORS[unit]
    except (InvalidOperation, KeyError):
        return None

# pyright: standard, reportMissingTypeStubs=false
"""Regular expressions judged by Envoy's own engine, so that what is accepted here loads there."""

from __future__ import annotations

from typing import Any

import re2


def fault_of(pattern: str) -> str | None:
    """Returns what RE2 says against a pattern; None where it accepts it."""
    try:
        _compiled(pattern)
    except re2.error as error:
        reason = error.args[0] if error.args else "it does not parse"
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return None


def groups_of(pattern: str) -> int:
    """Returns how many groups a pattern has that RE2 accepts."""
    return int(_compiled(pattern).groups)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    # Envoy's expressions see bytes, and refuse `\x{100}`.
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode(), options)

"""The environment of envoyproxy/ratelimit as it is read: texts, flags, lists and times as Go takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE: Final = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(slots=True)
class Translation:
    """`settings` are ours, as texts; `faults` is what cannot be done, `notes` what has no counterpart."""

    settings: dict[str, str] = field(default_factory=dict[str, str])
    faults: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Given:
    """The variables, and what comes of them. No value is in faults or notes."""

    environ: Mapping[str, str]
    out: Translation

    def text(self, name: str, default: str = "") -> str:
        """Returns a variable; an empty one is none."""
        return self.environ.get(name) or default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Returns whether a variable is true."""
        value = self.environ.get(name, "")
        if value not in TRUE and value not in FALSE:
            self.out.faults.append(f"{name} is neither true nor false")
        return value in TRUE if value else default

    def pairs(self, name: str) -> dict[str, str]:
        """Returns a variable of the form `name:value,name:value`."""
        found: dict[str, str] = {}
        for pair in self.text(name).split(",") if self.text(name) else ():
            key, *values = pair.strip().split(":")
            if len(values) != 1:
                self.out.faults.append(f"{name} is not name:value, with commas between")
                return {}
            found[key] = values[0]
        return found

    def seconds(self, name: str, default: float) -> float:
        """Returns a time such as `1m30s`."""
        text = self.text(name)
        if not text:
            return default
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.out.faults.append(f"{name} is not a time such as 10s")
            return default
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)

    def put(self, name: str, value: str) -> None:
        """Sets what is not empty."""
        if value:
            self.out.settings[name] = value

"""Writes lines: names as envoyproxy/ratelimit's, with tags as the collector takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ratelimit_service.statsd.target import Dialect, Rewrite, compiled

_IPV4: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_GROUP: Final = re.compile(r"\$[0-9]+")
# Names have clients' values in them: none of these may end a line, or begin another.
_TAKEN: Final = str.maketrans(dict.fromkeys((*range(32), 127, 133, 8232, 8233, ord(":"), ord("|")), "_"))
_IN_TAGS: Final = str.maketrans(".:|", "___")


def sanitised(name: str) -> str:
    """Returns a name without what statsd cannot have: colons, bars, addresses' dots, and what is not printed."""
    return _IPV4.sub(lambda found: found[0].replace(".", "_"), name.translate(_TAKEN))


class Writer:
    """Writes the lines of one dialect."""

    def __init__(
        self, dialect: Dialect, *, tags: Mapping[str, str] | None = None, rewrites: Mapping[str, Rewrite] | None = None
    ) -> None:
        told = {name: value.translate(_IN_TAGS) for name, value in sorted((tags or {}).items()) if name and value}
        datadog = dialect is Dialect.DOGSTATSD
        self._in_name = "" if datadog else "".join(f".__{name}={value}" for name, value in told.items())
        self._tags = tuple(f"{name}:{value}" for name, value in told.items()) if datadog else ()
        self._rewrites = tuple((compiled(each.pattern), each) for each in (rewrites or {}).values() if datadog)

    def counter(self, name: str, count: int) -> bytes:
        """Returns the line of a counter that grew by so many."""
        return self._line(name, f"{count}|c")

    def timer(self, name: str, milliseconds: float, *, rate: float) -> bytes:
        """Returns the line of a time that stands for 1 / `rate` such."""
        return self._line(name, f"{milliseconds:.6g}|ms" + (f"|@{rate:.6g}" if rate < 1 else ""))

    def _line(self, name: str, value: str) -> bytes:
        name, tags = self._rewritten(name)
        end = f"|#{','.join(tags)}" if tags else ""
        return f"{name}{self._in_name}:{value}{end}\n".encode("utf-8", "replace")

    def _rewritten(self, name: str) -> tuple[str, tuple[str, ...]]:
        for pattern, rewrite in self._rewrites:
            match = pattern.search(name)
            if match is not None:
                more = tuple(f"{tag}:{_filled(value, match)}" for tag, value in rewrite.tags.items())
                return _filled(rewrite.name, match), (*self._tags, *more)
        return name, self._tags


def _filled(text: str, match: Any) -> str:
    """Puts what groups matched in the place of `$1` and the like; of groups that there are not it stays as it is."""

    def group(found: re.Match[str]) -> str:
        index = int(found[0][1:])
        return (match[index] or "") if index <= match.re.groups else found[0]

    return _GROUP.sub(group, text)

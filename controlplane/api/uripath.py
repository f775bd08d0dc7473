"""The form of paths in matches and rewrites."""

from __future__ import annotations

import re
from typing import Final

from controlplane.api.scalars import refuse

_PATH: Final = re.compile(r"/(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*")
_FORBIDDEN: Final = re.compile(r"//|/\.{1,2}(?:/|$)|%2[fF]")


def check_path(path: str, field: str = "value") -> None:
    """Gateway API: HTTPPathMatch of type Exact or PathPrefix; the error says what is wrong."""
    if _PATH.fullmatch(path) is None:
        if not path.startswith("/"):
            raise refuse(f"expected an absolute path that starts with '/'; got {path!r}", field)
        raise refuse(f"expected a path of valid URI characters (others as %XX); got {path!r}", field)
    found = _FORBIDDEN.search(path)
    if found is not None:
        raise refuse(f"a path must not contain {found.group()!r}; got {path!r}", field)

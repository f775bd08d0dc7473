"""Finds in a request what may be credentials: in headers, query parameters and cookies."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Protocol
from urllib.parse import unquote_plus

from ext_authz.policy import Places, Policy, Source

MAX_CREDENTIALS = 4
"""How many tokens, and how many keys, of one request are looked at."""

Found = Sequence[str]
"""What each place of the policy holds, nothing where it is absent."""


class Http(Protocol):
    """What is read of `AttributeContext.HttpRequest`."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def path(self) -> str: ...


def look(places: Places, http: Http) -> Found:
    """Returns what the request has in the places. On the path of every request: no more steps than it takes."""
    headers = http.headers
    names = places.headers
    found = [headers.get(names[0], "")] if len(names) == 1 else [headers.get(name, "") for name in names]
    if places.params:
        path = http.path
        for name in places.params:
            found.append(_param(path, name) if name in path else "")
    if places.cookies:
        cookie = headers.get("cookie", "")
        found += [_cookie(cookie, name) for name in places.cookies]
    return found


def fingerprint(policy: Policy, found: Found) -> bytes:
    """Returns the key of a verdict: it depends on the policy and on what its places hold, and on nothing else."""
    if len(found) == 1:
        text = found[0]
    elif len(found) == 2:
        # With lengths, so that no two requests with different values look alike.
        text = f"{len(found[0])}:{found[0]}{found[1]}"
    else:
        text = "".join([f"{len(value)}:{value}" for value in found])
    return policy.serial + sha256(text.encode()).digest()


def credentials(sources: Sequence[Source], found: Found) -> list[str]:
    """Returns the distinct credentials that the sources find, in their order."""
    values: dict[str, None] = {}
    for source in sources:
        value = found[source.place]
        if source.prefix:
            if value[: len(source.prefix)].lower() != source.prefix:
                continue
            value = value[len(source.prefix) :]
        if value := value.strip():
            values[value] = None
    return list(values)[:MAX_CREDENTIALS]


def without_cookies(header: str, names: frozenset[str]) -> str:
    """Returns a Cookie header without these cookies."""
    pairs = (pair.strip() for pair in header.split(";"))
    return "; ".join(pair for pair in pairs if pair and pair.partition("=")[0].strip() not in names)


def _param(path: str, name: str) -> str:
    query = path.partition("?")[2].partition("#")[0]
    for pair in query.split("&"):
        # A name that is written in another way (%61...) is another one to Envoy, which could not take it out.
        key, _, value = pair.partition("=")
        if key == name:
            return unquote_plus(value)
    return ""


def _cookie(header: str, name: str) -> str:
    if name not in header:
        return ""
    for pair in header.split(";"):
        key, mark, value = pair.partition("=")
        if mark and key.strip() == name:
            return value.strip().strip('"')
    return ""

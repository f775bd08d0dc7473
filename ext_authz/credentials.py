"""Finds in a request what may be credentials: in headers, query parameters and cookies."""

import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_plus

from ext_authz.policy import Place, Policy, Source

MAX_PLACE_BYTES = 16 * 1024
"""What one place may hold, before anything looks into it: a token with its prefix, twice over."""
MAX_CREDENTIALS = 4
"""How many tokens, and how many keys, of one request are looked at."""

Found = tuple[str | None, ...]
"""What each place of the policy holds, None where it is absent."""


def look(policy: Policy, headers: Mapping[str, str], path: str) -> Found:
    """Returns what the request has in the policy's places."""
    return tuple([_at(place, headers, path) for place in policy.places])


def fingerprint(policy: Policy, found: Found) -> bytes:
    """Returns the key of a verdict: it depends on the policy and on what its places hold, and on nothing else."""
    if len(found) == 1:
        text = found[0] or ""
    else:
        # With lengths, so that no two requests with different values look alike.
        text = "".join(["-" if value is None else f"{len(value)}:{value}" for value in found])
    return policy.serial + hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def credentials(sources: Sequence[Source], found: Found) -> list[str]:
    """Returns the distinct credentials that the sources find, in their order."""
    values: dict[str, None] = {}
    for source in sources:
        value = found[source.place]
        if value is None:
            continue
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


def _at(place: Place, headers: Mapping[str, str], path: str) -> str | None:
    if place.kind == "header":
        return headers.get(place.name)
    if place.kind == "param":
        return _param(path, place.name)
    return _cookie(headers.get("cookie"), place.name)


def _param(path: str, name: str) -> str | None:
    _, mark, query = path.partition("?")
    if not mark or len(query) > MAX_PLACE_BYTES * 2:
        return None
    for pair in query.partition("#")[0].split("&"):
        key, _, value = pair.partition("=")
        if key == name or (("%" in key or "+" in key) and unquote_plus(key) == name):
            return unquote_plus(value)
    return None


def _cookie(header: str | None, name: str) -> str | None:
    if header is None:
        return None
    for pair in header.split(";"):
        key, mark, value = pair.partition("=")
        if mark and key.strip() == name:
            return value.strip().strip('"')
    return None

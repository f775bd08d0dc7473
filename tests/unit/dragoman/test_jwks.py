"""JSON Web Key Sets over a real HTTP server that rotates, fails, hangs and answers nonsense."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from dragoman.echo import Answer, Request
from dragoman.jwks import JwksCache, JwksError, canonicalise, fetch_jwks
from tests.support.certificates import Authority
from tests.support.jwks_server import JwksServer
from tests.support.tokens import SigningKey, jwks
from tests.support.upstream import Upstream
from tests.support.waiting import until

MakeCache = Callable[..., JwksCache]


@pytest_asyncio.fixture
async def make_cache() -> AsyncIterator[MakeCache]:
    made: list[JwksCache] = []

    def make(**options: object) -> JwksCache:
        made.append(JwksCache(**{"on_change": lambda uri, document: None, **options}))  # pyright: ignore[reportArgumentType]
        return made[-1]

    yield make
    for cache in made:
        await cache.close()


def test_canonical_documents_are_sorted_and_public() -> None:
    first, second = SigningKey.make("b", "ES256"), SigningKey.make("a", "EdDSA")
    document = {
        "keys": [
            {**first.jwk, "d": "secret", "x5c": ["AAAA"], "more": 1},
            second.jwk,
            second.jwk,
            {"kty": "oct", "k": "secret"},
            {**second.jwk, "use": "enc"},
        ]
    }
    text = canonicalise(json.dumps(document))
    assert text == canonicalise(json.dumps(jwks(second, first)).encode())
    assert "secret" not in text
    assert json.loads(text) == {"keys": sorted(jwks(first, second)["keys"], key=lambda key: key["alg"])}


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{}", '{"keys": 1}', '{"keys": []}', '{"keys": [7, {"kty": ["RSA"]}, {"kty": "RSA"}]}', "[" * 100_000],
)
def test_what_is_no_jwks_is_refused(document: str) -> None:
    with pytest.raises(JwksError):
        canonicalise(document)


def test_a_document_with_too_many_keys_is_refused() -> None:
    key = SigningKey.make().jwk
    with pytest.raises(JwksError, match="more than 100 keys"):
        canonicalise(json.dumps({"keys": [{**key, "kid": str(number)} for number in range(101)]}))


async def test_what_cannot_be_fetched_says_why(issuer: JwksServer) -> None:
    for uri, says in (
        ("file:///etc/passwd", "neither https"),
        ("ftp://127.0.0.1/", "neither https"),
        ("http://127.0.0.1:1/", "refused"),
        ("http://user:hunter2@127.0.0.1:1/", "."),
    ):
        with pytest.raises(JwksError, match=says) as caught:
            await fetch_jwks(uri)
        assert "hunter2" not in str(caught.value)
    issuer.fail(503)
    with pytest.raises(JwksError, match="status 503"):
        await fetch_jwks(issuer.uri)
    issuer.answer_document({"pad": "x" * 2000})
    with pytest.raises(JwksError, match="more than 1000 bytes"):
        await fetch_jwks(issuer.uri, max_bytes=1000)
    issuer.hang()
    started = time.monotonic()
    with pytest.raises(JwksError, match=r"within 0\.2 s"):
        await fetch_jwks(issuer.uri, timeout_s=0.2)
    assert time.monotonic() - started < 2


async def test_the_certificate_of_an_https_issuer_is_checked(
    authority: Authority, signing_key: SigningKey, tmp_path: Path
) -> None:
    document = json.dumps(jwks(signing_key)).encode()
    tls = authority.leaf("localhost").server_context(tmp_path)

    def respond(request: Request) -> Answer:
        return (
            Answer(302, b"", (("location", "http://127.0.0.1/"),)) if request.path == "/down" else Answer(200, document)
        )

    async with Upstream(tls=tls, respond=respond) as server:
        at = f"https://localhost:{server.port}"
        with pytest.raises(JwksError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch_jwks(f"{at}/")
        trusting = authority.client_context()
        assert await fetch_jwks(f"{at}/", tls=trusting) == document.decode()
        with pytest.raises(JwksError, match="a redirect away from https"):
            await fetch_jwks(f"{at}/down", tls=trusting)


async def test_redirects_are_followed_a_few_times_and_to_http_alone(signing_key: SigningKey) -> None:
    document = json.dumps(jwks(signing_key)).encode()

    def respond(request: Request) -> Answer:
        left = request.path.strip("/")
        if left == "file":
            return Answer(302, b"", (("location", "file:///etc/passwd"),))
        if left == "0":
            return Answer(200, document)
        return Answer(302, b"", (("location", f"/{int(left) - 1}"),))

    async with Upstream(respond=respond) as server:
        at = f"http://127.0.0.1:{server.port}"
        assert await fetch_jwks(f"{at}/3") == document.decode()
        with pytest.raises(JwksError):
            await fetch_jwks(f"{at}/5")
        with pytest.raises(JwksError, match=r"redirect|302"):
            await fetch_jwks(f"{at}/file")


async def test_a_rotation_is_noticed_and_told_once(issuer: JwksServer, make_cache: MakeCache) -> None:
    told: list[str] = []
    cache = make_cache(on_change=lambda uri, document: told.append(document))
    cache.want({issuer.uri: 0.05})
    await until(lambda: cache.document(issuer.uri), what="the first document")
    second = SigningKey.make("key-2")
    issuer.rotate(second)
    await until(lambda: len(told) == 2, what="the second document")
    seen = issuer.fetches
    await until(lambda: issuer.fetches > seen + 2, what="more fetches")
    assert told[1] == cache.document(issuer.uri) == canonicalise(json.dumps(jwks(second)))
    assert len(told) == 2


async def test_an_outage_leaves_what_there_was_and_ends_by_itself(issuer: JwksServer, make_cache: MakeCache) -> None:
    cache = make_cache(first_retry_s=0.01)
    cache.want({issuer.uri: 0.02})
    await until(lambda: cache.document(issuer.uri), what="the first document")
    before = cache.document(issuer.uri)
    for outage in (issuer.fail, issuer.answer_nonsense, issuer.stop):
        outage()
        await until(lambda: cache.status(issuer.uri).failures >= 2, what="failures")
        assert cache.document(issuer.uri) == before
        issuer.rotate(SigningKey.make("key-1"))
        await issuer.start() if outage == issuer.stop else None
        await until(lambda: cache.status(issuer.uri).fault is None, what="recovery")
        before = cache.document(issuer.uri)


async def test_a_rotation_that_could_not_be_put_to_use_is_told_again(issuer: JwksServer, make_cache: MakeCache) -> None:
    told: list[str] = []

    async def on_change(uri: str, document: str) -> None:
        told.append(document)
        if len(told) == 1:
            raise RuntimeError("can't start new thread")

    cache = make_cache(on_change=on_change, first_retry_s=0.01)
    cache.want({issuer.uri: 3600.0})
    await until(lambda: len(told) == 2, what="the second attempt")
    await until(lambda: cache.status(issuer.uri).fault is None, what="its success")
    assert told[0] == told[1] == cache.document(issuer.uri)


async def test_retries_back_off(make_cache: MakeCache) -> None:
    attempts: list[float] = []

    async def fail(uri: str) -> str:
        attempts.append(time.monotonic())
        raise JwksError("down")

    cache = make_cache(fetch=fail, first_retry_s=0.02)
    cache.want({"http://issuer/": 300})
    await until(lambda: len(attempts) == 6, what="six attempts")
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses[4] > 0.02 * 2**4 * 0.8 * 0.9
    assert pauses[4] > min(pauses[:2])


async def test_a_refetch_is_shared_and_not_repeated_at_once(make_cache: MakeCache) -> None:
    release = asyncio.Event()
    count = 0

    async def fetch(uri: str) -> str:
        nonlocal count
        count += 1
        await release.wait()
        return json.dumps(jwks(SigningKey.make(f"key-{count}")))

    cache = make_cache(fetch=fetch, refetch_s=0.2)
    assert cache.refetch("http://issuer/") is None, "nobody wants it"
    cache.want({"http://issuer/": 300})
    await until(lambda: count == 1, what="the first fetch")
    first, second = cache.refetch("http://issuer/"), cache.refetch("http://issuer/")
    assert first is not None
    assert first is second
    release.set()
    assert await first is True
    third = cache.refetch("http://issuer/")
    assert third is not None
    assert await third is True
    assert cache.refetch("http://issuer/") is None, "too soon"
    assert await until(lambda: cache.refetch("http://issuer/"), what="the next refetch to be due") is True
    assert count == 3


async def test_documents_from_before_stand_until_fresh_ones_come(issuer: JwksServer, make_cache: MakeCache) -> None:
    issuer.stop()
    cache = make_cache(known={issuer.uri: "before"})
    cache.want({issuer.uri: 300})
    await until(lambda: cache.status(issuer.uri).failures, what="a failure")
    assert cache.document(issuer.uri) == "before"
    cache.want({})
    assert cache.document(issuer.uri) is None

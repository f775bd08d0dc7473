"""An issuer's JWKS endpoint that can rotate its keys, fail, hang or answer nonsense."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tests.support.tokens import SigningKey, jwks
from tests.support.upstream import Upstream


class JwksServer:
    """`async with JwksServer(key) as issuer`: serves the keys at `issuer.uri`, and counts `fetches`."""

    def __init__(self, *keys: SigningKey, port: int | None = None) -> None:
        self._upstream = Upstream("jwks", port=port)
        self.rotate(*keys)

    async def __aenter__(self) -> JwksServer:
        await self._upstream.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._upstream.stop()

    @property
    def port(self) -> int:
        return self._upstream.port

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/.well-known/jwks.json"

    @property
    def fetches(self) -> int:
        return self._upstream.count

    def rotate(self, *keys: SigningKey) -> None:
        """From now on these are the keys; also ends `fail` and `answer_nonsense`."""
        self.answer_document(jwks(*keys))

    def answer_document(self, document: Any) -> None:
        """From now on serves this JSON document."""
        self._upstream.answer_json(document)

    def fail(self, status: int = 500) -> None:
        """From now on answers with an error."""
        self._upstream.answer(status, "down\n")

    def answer_nonsense(self) -> None:
        """From now on answers 200 with something that is not JSON."""
        self._upstream.answer(200, "<html>maintenance</html>")

    def hang(self, for_s: float = 60.0) -> None:
        """From now on answers this much later; 0 ends it."""
        self._upstream.be_slow(for_s)

    def stop(self) -> None:
        """Refuses connections until `start`."""
        self._upstream.stop()

    async def start(self) -> None:
        """Listens again."""
        await self._upstream.start()

"""TLS of one connection, by hand: a transport that does it holds a quarter of a megabyte for each, silent or not."""

from __future__ import annotations

import ssl
from typing import Final

# Of a record at a time, for what is passed through at once stays allocated in between.
_RECORD_BYTES: Final = 16_384


class Tls:
    """`receive` takes what has come and returns what it says; `send` returns what is to be sent to say something."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_said", "ready")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._said: list[bytes] = []
        self.ready = False

    def receive(self, data: bytes) -> bytes:
        """Raises ssl.SSLError for what is no TLS, or not for HTTP/2."""
        heard: list[bytes] = []
        view = memoryview(data)
        for start in range(0, len(view), _RECORD_BYTES):
            self._incoming.write(view[start : start + _RECORD_BYTES])
            if self._shake():
                self._read(heard)
        return heard[0] if len(heard) == 1 else b"".join(heard)

    def send(self, data: bytes) -> bytes:
        """Returns it encrypted, behind what the protocol itself has to say."""
        view = memoryview(data)
        for start in range(0, len(view), _RECORD_BYTES):
            self._object.write(view[start : start + _RECORD_BYTES])
            self._said.append(self._outgoing.read())
        said, self._said = self._said, []
        return said[0] if len(said) == 1 else b"".join(said)

    def _shake(self) -> bool:
        if not self.ready:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                self._note()
                return False
            if self._object.selected_alpn_protocol() != "h2":
                raise ssl.SSLError("the client does not offer h2")
            self.ready = True
            self._note()
        return True

    def _read(self, heard: list[bytes]) -> None:
        try:
            while piece := self._object.read(_RECORD_BYTES):
                heard.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass  # It says goodbye; that its side of the connection is closed comes next.
        self._note()

    def _note(self) -> None:
        if self._outgoing.pending:
            self._said.append(self._outgoing.read())

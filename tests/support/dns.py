"""A DNS server on loopback whose answers can be changed, delayed, refused or withheld."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSHeader, DNSRecord  # pyright: ignore

from tests.support.ports import free_port


class DnsServer:
    """`async with DnsServer({"api.example.com": ["127.0.0.1"]}) as dns`: answers A and AAAA over UDP on `dns.port`."""

    def __init__(self, records: dict[str, list[str]] | None = None, *, ttl_s: int = 1) -> None:
        self.port = free_port()
        self.queries: list[tuple[str, str]] = []
        self._records = {name.rstrip(".").lower(): addresses for name, addresses in (records or {}).items()}
        self._ttl_s = ttl_s
        self._delay_s = 0.0
        self._silent = False
        self._failing = False
        self._transport: asyncio.DatagramTransport | None = None
        self._replies: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Protocol(self), local_addr=("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reply in self._replies:
            reply.cancel()
        if self._transport is not None:
            self._transport.close()

    def set(self, name: str, *addresses: str) -> None:
        """From now on `name` has these addresses; without any it does not exist."""
        self._records[name.rstrip(".").lower()] = list(addresses)

    def be_slow(self, delay_s: float) -> None:
        """From now on every answer comes this much later."""
        self._delay_s = delay_s

    def fail(self, failing: bool = True) -> None:
        """From now on answers SERVFAIL."""
        self._failing = failing

    def be_silent(self, silent: bool = True) -> None:
        """From now on answers nothing at all."""
        self._silent = silent

    def received(self, data: bytes, peer: Any) -> None:
        """Called by the protocol for each query."""
        query = DNSRecord.parse(data)
        name, kind = str(query.q.qname).rstrip(".").lower(), str(QTYPE[query.q.qtype])
        self.queries.append((name, kind))
        if self._silent:
            return
        task = asyncio.create_task(self._reply(self._answer(query, name, kind), peer, self._delay_s))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def _answer(self, query: Any, name: str, kind: str) -> bytes:
        reply = DNSRecord(DNSHeader(id=query.header.id, qr=1, aa=1, ra=1), q=query.q)
        addresses = self._records.get(name, [])
        if self._failing:
            reply.header.rcode = RCODE.SERVFAIL
        elif not addresses:
            reply.header.rcode = RCODE.NXDOMAIN
        else:
            for address in addresses:
                record = ("AAAA", AAAA(address)) if ":" in address else ("A", A(address))
                if record[0] == kind:
                    reply.add_answer(RR(query.q.qname, query.q.qtype, ttl=self._ttl_s, rdata=record[1]))
        return bytes(reply.pack())

    async def _reply(self, data: bytes, peer: Any, delay_s: float) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
        if self._transport is not None:
            self._transport.sendto(data, peer)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._server.received(data, addr)

"""Which of several Envoys that share a port holds a connection: asked of the kernel, by the connection's ports."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_SOCK_DIAG: Final = 4
_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_ERROR: Final = 2
_LOOPBACK: Final = socket.inet_aton("127.0.0.1") + bytes(12)
_ANY_COOKIE: Final = b"\xff" * 8
# sock_diag(7): the inode is the last field of inet_diag_msg.
_INODE_AT: Final = 16 + 68


@dataclass(slots=True)
class Envoys:
    """The names of processes by their ids; they may change while connections are open."""

    pids: Mapping[str, int]
    _netlink: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
        self._netlink.settimeout(1.0)

    def close(self) -> None:
        self._netlink.close()

    def holding(self, server_port: int, client_port: int) -> str:
        """Returns the name of the process that has accepted a connection; empty where none has it any more."""
        inode = self._inode(server_port, client_port)
        if not inode:
            return ""
        wanted = f"socket:[{inode}]"
        return next((name for name, pid in self.pids.items() if _holds(pid, wanted)), "")

    def _inode(self, server_port: int, client_port: int) -> int:
        ends = struct.pack("!HH16s16sI", server_port, client_port, _LOOPBACK, _LOOPBACK, 0) + _ANY_COOKIE
        request = struct.pack("BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
        self._netlink.send(struct.pack("IHHII", 16 + len(request), _DIAG_BY_FAMILY, _REQUEST, 1, 0) + request)
        answer = self._netlink.recv(8192)
        if struct.unpack_from("H", answer, 4)[0] == _ERROR:
            return 0
        return int(struct.unpack_from("I", answer, _INODE_AT)[0])


def _holds(pid: int, wanted: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{name}") == wanted:
                    return True
            except OSError:
                continue
    except OSError:
        pass
    return False

"""The HTTP/2 session of the ngh2 engine: what a client may send, and how much of it at a time."""

from __future__ import annotations

from typing import Final

import ngh2

_STREAM_WINDOW_BYTES: Final = 256 * 1024
_CONNECTION_WINDOW_BYTES: Final = 1024 * 1024
_MAX_HEADER_LIST_BYTES: Final = 32 * 1024


def new_session() -> ngh2.Connection:
    """Returns the server's side of a session, its SETTINGS queued."""
    session = ngh2.Connection(
        ngh2.Role.SERVER,
        ngh2.Configuration(max_inbound_header_list_size=_MAX_HEADER_LIST_BYTES, max_inbound_header_count=256),
    )
    session.initiate_connection(
        {
            # Of one client: more than Envoy and our own clients ever open.
            ngh2.Setting.MAX_CONCURRENT_STREAMS: 100,
            ngh2.Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
            ngh2.Setting.MAX_HEADER_LIST_SIZE: _MAX_HEADER_LIST_BYTES,
        }
    )
    session.set_local_window_size(_CONNECTION_WINDOW_BYTES)
    return session

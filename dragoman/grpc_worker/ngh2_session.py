"""The HTTP/2 session of the ngh2 engine: what a peer may send, and how much of it at a time."""

import ngh2

from dragoman.grpc_worker.api import Limits

STREAM_WINDOW_BYTES = 256 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024


def new_session(limits: Limits) -> ngh2.Connection:
    """An HTTP/2 server session with our limits, its SETTINGS queued."""
    session = ngh2.Connection(
        ngh2.Role.SERVER,
        ngh2.Configuration(
            stream_reset_rate_limit=limits.stream_resets,
            glitch_rate_limit=limits.glitches,
            max_inbound_header_list_size=limits.max_header_list_bytes,
            max_inbound_header_count=256,
        ),
    )
    session.initiate_connection(
        {
            ngh2.Setting.MAX_CONCURRENT_STREAMS: limits.max_concurrent_streams,
            ngh2.Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            ngh2.Setting.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
    )
    session.set_local_window_size(CONNECTION_WINDOW_BYTES)
    return session

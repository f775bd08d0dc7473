# pyright: standard, reportAttributeAccessIssue=false
"""Descriptors of limits of concurrency: the service is told which request begins, and that it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from controlplane.translate.descriptors import RateLimit, expression, generic

REQUEST_KEY: Final = "dragoman.request"
DONE_KEY: Final = "dragoman.done"


def until_done(descriptor: Any, *, running: bool) -> Iterator[Any]:
    """Yields the descriptor of a limit; of one of running requests, with the request's name, and again for its end."""
    if not running:
        yield descriptor
        return
    descriptor.actions.append(expression(REQUEST_KEY, f'filter_state["{REQUEST_KEY}"]'))
    yield descriptor
    done = RateLimit()
    done.CopyFrom(descriptor)
    done.apply_on_stream_done = True
    done.actions.append(generic(DONE_KEY, "true"))
    yield done

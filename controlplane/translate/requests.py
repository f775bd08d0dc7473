# pyright: standard, reportAttributeAccessIssue=false
"""Descriptors of limits of concurrency: the service is told which request begins, and that it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.route.v3.route_components_pb2 import RateLimit
from envoy.extensions.rate_limit_descriptors.expr.v3.expr_pb2 import Descriptor

from controlplane import ir
from controlplane.translate.wire import packed

REQUEST_KEY: Final = "dragoman.request"
DONE_KEY: Final = "dragoman.done"
_EXPRESSION: Final = "envoy.rate_limit_descriptors.expr"


def until_done(descriptor: RateLimit, counting: ir.Counting) -> Iterator[RateLimit]:
    """Yields the descriptor of a limit; of one of concurrency, with the request's name, and again for its end."""
    if counting.algorithm != "Concurrency":
        yield descriptor
        return
    descriptor.actions.append(expression(REQUEST_KEY, f'filter_state["{REQUEST_KEY}"]'))
    yield descriptor
    done = RateLimit()
    done.CopyFrom(descriptor)
    done.apply_on_stream_done = True
    done.actions.append(
        RateLimit.Action(generic_key=RateLimit.Action.GenericKey(descriptor_key=DONE_KEY, descriptor_value="true"))
    )
    yield done


def expression(key: str, text: str) -> RateLimit.Action:
    """Returns the entry that an expression (CEL) yields; where it fails, the descriptor is not sent."""
    return RateLimit.Action(
        extension=TypedExtensionConfig(name=_EXPRESSION, typed_config=packed(Descriptor(descriptor_key=key, text=text)))
    )

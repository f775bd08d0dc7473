"""What long-running processes tell Python's garbage collector."""

from __future__ import annotations

import gc


def spare_the_collector() -> None:
    """Takes what exists now out of the collector's sight, and lets it look less often.

    The pipeline holds hundreds of thousands of objects that live long and form no garbage cycles; looking through them
    again and again costs a change its milliseconds. Not even once, either: with 10,000 routes that takes most of a
    second, in which Envoys wait.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()

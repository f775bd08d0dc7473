"""How long to wait before trying again: twice as long each time, within bounds, and never all at the same time."""

from __future__ import annotations

import random

from controlplane.kube.client import ApiError


class Backoff:
    """`next_s()` is the next wait; `reset()` after success."""

    def __init__(self, *, first_s: float = 0.1, longest_s: float = 10.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.tries = 0

    def next_s(self, error: ApiError | None = None, *, longest_s: float | None = None) -> float:
        """Returns seconds; no fewer than the API server asks for in its refusal."""
        wait_s = min(self._first_s * 2 ** min(self.tries, 20), longest_s or self._longest_s)
        self.tries += 1
        asked_s = (error.retry_after_s if error is not None else None) or 0.0
        jitter = random.random()  # noqa: S311
        return max(asked_s * (1 + 0.3 * jitter), wait_s * (0.7 + 0.3 * jitter))

    def reset(self) -> None:
        """Starts again with the shortest wait."""
        self.tries = 0

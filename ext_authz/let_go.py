"""Lets go of policies that are no longer in force: all at once, a large one would keep every request waiting."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any, Final

from ext_authz.policy import Policy

_LOOK_AGAIN_S: Final = 0.1


def let_go(policies: list[Policy]) -> None:
    """Empties the list, one by one, in a thread."""
    if policies:
        threading.Thread(target=_let_go, args=(policies,), name="let go", daemon=True).start()


def _let_go(policies: list[Policy]) -> None:
    parts: list[Any] = []
    unused: list[weakref.ref[Any]] = []
    while policies:
        policy = policies.pop()
        if policy.api_keys is not None and policy.api_keys.inline:
            # What holds them then goes in an instant, for they do not go with it.
            parts += policy.api_keys.inline.keys()
            parts += policy.api_keys.inline.values()
            unused.append(weakref.ref(policy.api_keys))
        del policy
    for each in unused:
        # A request that waits for the store may still go by it.
        while each() is not None:
            _look_again()
    while parts:
        parts.pop()


def _look_again() -> None:
    time.sleep(_LOOK_AGAIN_S)

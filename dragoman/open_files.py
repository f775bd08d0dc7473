"""How many files and sockets a process may have open."""

import contextlib
import resource
from typing import Final

_ENOUGH: Final = 65_536


def allow_many() -> None:
    """Raises the bound as far as this process may, within reason.

    Systems often begin at 1,024, for the sake of programs that use select(); a port that is to hold that many
    connections, and let the next one in, needs more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

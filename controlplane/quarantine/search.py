"""Which of many are at fault, found by trying some of them at a time: a state machine without I/O.

Suspects are tried in their order: what has been accepted stays in every later trial, so that each trial adds some to
what is known to be good. A trial that is rejected is tried again with fewer, until one is left, which is convicted: it
is rejected on top of what is accepted. So two that are bad only together end with the later one convicted, and N
culprits among M suspects take some N·log2(M) trials.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Named = Callable[[Collection[K], str], Collection[K]]
"""Returns those of the suspects that a message speaks of."""


class Search(Generic[K]):
    """`trial` is what is to be in force now; say whether it was `accepted` or `rejected`, until `done`.

    All suspects together have been rejected, with `message`. They come in the order in which they are to be trusted.
    """

    def __init__(self, suspects: Iterable[K], message: str, *, named: Named[K] | None = None) -> None:
        self._named = named or _nobody
        self._good: dict[K, None] = {}
        self._rest: list[K] = list(dict.fromkeys(suspects))
        self._size = 0  # how many of the rest are tried
        self._bad = len(self._rest)  # how many of the rest are known to be rejected together; 0 if that is not known
        self._message = message
        self._proven = False  # whether what is good has been accepted as it is
        self._pointed_at: set[K] = set()
        self.convicted: dict[K, str] = {}
        self._unproven: list[K] = []  # convicted since anything was last accepted
        self.unexplained = False
        self._divide(self._bad)
        self._decide()

    @property
    def suspects(self) -> frozenset[K]:
        """Everybody who is not convicted."""
        return frozenset((*self._good, *self._rest))

    @property
    def trial(self) -> frozenset[K]:
        """Those that are to be in force now."""
        return frozenset((*self._good, *self._rest[: self._size]))

    @property
    def undecided(self) -> tuple[K, ...]:
        """Those that nothing is known of yet."""
        return tuple(self._rest)

    @property
    def done(self) -> bool:
        """Whether everything that can be found out has been: then the trial is what stays in force."""
        if not (self._good or self._rest or self.convicted):
            return True
        return self.unexplained or (not self._rest and self._proven and not self._unproven)

    @property
    def message(self) -> str:
        """Why the last trial was rejected."""
        return self._message

    def told(self, verdict: str | bool) -> None:
        """Takes in what has become of the trial: why it was rejected, or that it was not."""
        if isinstance(verdict, str):
            self.rejected(verdict)
        else:
            self.accepted()

    def accepted(self) -> None:
        """Takes in that the trial was accepted."""
        self._proven = True
        self._unproven.clear()
        self._good.update(dict.fromkeys(self._rest[: self._size]))
        del self._rest[: self._size]
        self._bad = max(0, self._bad - self._size)
        self._divide(self._bad)
        self._decide()

    def rejected(self, message: str) -> None:
        """Takes in that the trial was rejected."""
        self._message = message
        if self._size == 0:
            # Without any of the suspects: they are not what is rejected, nor were those that were just convicted.
            self.unexplained = True
            for key in self._unproven:
                del self.convicted[key]
                self._rest.append(key)
            return
        self._bad = self._size
        self._divide(self._bad)
        self._decide()

    def join(self, more: Iterable[K], message: str) -> None:
        """Adds suspects that were in force in every trial, and so may be what the last one was rejected for."""
        known = self.suspects
        self._rest += [key for key in more if key not in known and key not in self.convicted]
        self._message = message
        self._bad = len(self._rest)
        self._proven = False
        self._divide(self._bad)
        self._decide()

    def leave(self, key: K) -> None:
        """Forgets a suspect: it has changed, or is gone."""
        self._good.pop(key, None)
        self.convicted.pop(key, None)
        if key in self._unproven:
            self._unproven.remove(key)
        if key in self._rest:
            index = self._rest.index(key)
            del self._rest[index]
            self._size -= index < self._size
            if index < self._bad:
                self._bad = 0

    def _divide(self, bad: int) -> None:
        """Chooses how many to try, of as many as were rejected together."""
        if bad == 0:
            self._size = len(self._rest)
            return
        chunk = self._rest[:bad]
        named = [key for key in self._named(chunk, self._message) if key not in self._pointed_at]
        if not named or len(named) > max(1, bad // 2):
            self._size = bad // 2
            return
        self._pointed_at.update(named)
        guilty = frozenset(named)
        self._rest[:bad] = [*(key for key in chunk if key not in guilty), *(key for key in chunk if key in guilty)]
        self._size = bad - len(guilty)

    def _decide(self) -> None:
        """Convicts who is alone with what is accepted, and sees to it that something is."""
        if self._bad != 1:
            return
        if not self._proven or len(self._unproven) > 1:
            self._proven = False
            self._size = 0
            return
        culprit = self._rest.pop(0)
        self.convicted[culprit] = self._message
        self._unproven.append(culprit)
        self._bad = 0
        self._size = len(self._rest)


def _nobody(keys: Collection[K], message: str) -> Collection[K]:
    return ()

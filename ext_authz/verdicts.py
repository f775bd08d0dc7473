"""Remembers verdicts, bounded: those that let pass until their credential expires, those that refuse for a moment."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from ext_authz.identity import Refusal


@dataclass(frozen=True, slots=True)
class Pass:
    """An answer that lets a request pass, as bytes that are ready to send."""

    body: bytes
    expires_at: float
    """Seconds since the epoch."""
    key_ids: tuple[str, ...] = ()


class VerdictCache:
    """Least recently used goes first; refusals have a place of their own, so that bad credentials evict no good one."""

    def __init__(self, *, max_passes: int = 65_536, max_refusals: int = 8_192, refusal_s: float = 2.0) -> None:
        self.passes: OrderedDict[bytes, Pass] = OrderedDict()
        self._refusals: OrderedDict[bytes, tuple[Refusal, float]] = OrderedDict()
        self._by_key: dict[str, set[bytes]] = {}
        self._max_passes = max_passes
        self._max_refusals = max_refusals
        self._refusal_s = refusal_s

    def get(self, key: bytes, now: float) -> Pass | None:
        """Returns the verdict that lets pass, if it still holds."""
        verdict = self.passes.get(key)
        if verdict is None:
            return None
        if now >= verdict.expires_at:
            self._drop(key)
            return None
        self.passes.move_to_end(key)
        return verdict

    def put(self, key: bytes, verdict: Pass) -> None:
        """Keeps a verdict that lets pass."""
        self._drop(key)
        self.passes[key] = verdict
        for key_id in verdict.key_ids:
            self._by_key.setdefault(key_id, set()).add(key)
        if len(self.passes) > self._max_passes:
            self._drop(next(iter(self.passes)))

    def refusal(self, key: bytes, now: float) -> Refusal | None:
        """Returns why this credential was refused a moment ago."""
        entry = self._refusals.get(key)
        return entry[0] if entry is not None and now < entry[1] else None

    def put_refusal(self, key: bytes, refusal: Refusal, now: float) -> None:
        """Keeps a refusal for a moment."""
        self._refusals[key] = (refusal, now + self._refusal_s)
        self._refusals.move_to_end(key)
        if len(self._refusals) > self._max_refusals:
            self._refusals.popitem(last=False)

    def forget_refusals(self) -> None:
        """Something that was unknown may now be known."""
        self._refusals.clear()

    def forget_keys(self, key_ids: Iterable[str] | None) -> None:
        """Drops the verdicts that rest on these keys of the store (None: on any)."""
        for key_id in list(self._by_key) if key_ids is None else key_ids:
            for key in tuple(self._by_key.get(key_id, ())):
                self._drop(key)
        self.forget_refusals()

    def _drop(self, key: bytes) -> None:
        verdict = self.passes.pop(key, None)
        for key_id in verdict.key_ids if verdict is not None else ():
            held = self._by_key.get(key_id)
            if held is not None:
                held.discard(key)
                if not held:
                    del self._by_key[key_id]

"""Ties quarantine to the engine and to the Envoys: who is suspected of what is rejected, and what comes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from controlplane.api.meta import ObjectKey, Resource
from controlplane.api.version import version_of
from controlplane.engine import Engine, Step
from controlplane.pipeline.objects import Verdict
from controlplane.quarantine.bystanders import Bystanders
from controlplane.quarantine.confirming import Confirming, Envoys, Later, Patience
from controlplane.quarantine.entry import Bounds, Entries, Entry, tidy
from controlplane.quarantine.evidence import Evidence, Watched, is_of_the_machine
from controlplane.quarantine.hunt import Hunt, Suspect, joined
from controlplane.quarantine.metrics import Outcome, QuarantineMetrics
from controlplane.quarantine.rehearsal import Context, Rehearsal
from controlplane.quarantine.search import Search
from controlplane.quarantine.suspects import Recall, Suspects
from controlplane.quarantine.suspicion import Texts, may_open, named
from controlplane.quarantine.unconfirmed import Unconfirmed
from controlplane.quarantine.unexplained import Unexplained, version_in
from controlplane.quarantine.unexplained import version_of as version_of_resource
from controlplane.xds.events import Ack, Nack, StreamEvent

_log = logging.getLogger(__name__)

_AT_A_STRETCH_S: Final = 0.05


class Quarantine:
    """Everything is called on the event loop, as it happens; `publish` takes a step that this has caused.

    `later` calls when nobody else uses the engine.
    """

    def __init__(
        self,
        engine: Engine,
        envoys: Envoys,
        *,
        publish: Callable[[Step], None],
        clock: Callable[[], float] = time.monotonic,
        later: Later,
        bounds: Bounds | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.entries = Entries()
        self.may_search: Callable[[], bool] = lambda: True
        self._engine = engine
        self._envoys = envoys
        self._publish = publish
        self._clock = clock
        self._later = later
        self._bounds = bounds or Bounds()
        self._unconfirmed = Unconfirmed()
        self._suspects = Suspects(engine, self._unconfirmed)
        self._hunt: Hunt | None = None
        self._nacks: list[Nack] = []
        self._due = False
        self._round = 0
        self._searching = False
        self._begun = False
        self._unexplained = Unexplained(envoys.published)
        self._confirming = Confirming(
            envoys,
            self._unconfirmed,
            accepted=engine.pipeline.objects.accepted.peek,
            hindered=lambda: self._hunt is not None or bool(self._nacks),
            doubted=self._unexplained.doubted,
            on_settled=self._suspects.settled,
            on_confirmed=self._confirmed,
            clock=clock,
            later=later,
            patience=patience or Patience(),
        )
        self._suspects.acked_at = self._confirming.acked_at
        self.rehearsal = Rehearsal(
            engine,
            Context(
                published=envoys.published,
                known_good=self._suspects.is_known_good,
                unconfirmed=lambda: self._unconfirmed.waiting,
                busy=lambda: self._hunt is not None,
                done=self._rehearsed,
            ),
        )
        self.metrics = QuarantineMetrics(lambda: self.entries, lambda: len(self._unconfirmed.waiting))
        engine.judge = self._judge

    def remember(self, entries: Mapping[ObjectKey, Entry], recall: Recall) -> None:
        """Takes over what the process before this one knew; to be called before the engine has any object."""
        self.entries.update(entries)
        self._suspects.recall = recall

    def is_confirmed(self, key: ObjectKey) -> bool:
        """Says whether Envoys have acknowledged the version of an object that is in force."""
        return key not in self._unconfirmed.waiting

    @property
    def searching(self) -> bool:
        """Says whether it is being found out what Envoys reject."""
        return self._hunt is not None

    def adopt(self, key: ObjectKey, entry: Entry, standing: Resource | None) -> Step | None:
        """Takes over from another replica that a version is at fault, and what stands in for it.

        Returns the engine's step if the version is the newest here; if it is yet to come, it is known by then.
        """
        newest = self._suspects.newest(key)
        if newest is None or version_of(newest) != entry.version:
            self.entries.announce(key, entry)
            return None
        if key in self.entries:
            return None
        waiting = self._unconfirmed.forget(key)
        if self._hunt is not None and key in self._hunt.suspects:
            self._hunt.leave(key)
        self.entries.enter({key: entry})
        accepted = self._engine.pipeline.objects.accepted.peek(key)
        if accepted == newest:
            before = waiting.before if waiting is not None else None
            return self._engine.rejudge((key,), {key: standing or before})
        return self._engine.rejudge((key,))

    # What happens

    def stepped(self, step: Step, *, published: bool = True) -> None:
        """Takes in a step that has just been taken, and published unless nothing is yet."""
        engine, hunt = self._engine, self._hunt
        for key in step.changed:
            if engine.pipeline.objects.peek(key) is None:
                self._unconfirmed.forget(key)
                self.entries.forget(key)
        held = frozenset(hunt.suspects) - hunt.in_force if hunt is not None else frozenset[ObjectKey]()
        self._confirming.took(step, held | self.rehearsal.held, known=self._begun)
        if published and not self._begun:
            # All that there is has been read: what was remembered of other objects is of such that are gone.
            self.entries.keep(lambda key: engine.pipeline.objects.peek(key) is not None)
            self._begun = True
        if hunt is not None and not self._searching:
            self._moved_meanwhile(hunt, step)
        self.entries.tell()
        self.rehearsal.begin()

    def acked(self, ack: Ack) -> None:
        """Takes in an acknowledgement."""
        self._confirming.acked(ack)
        if self._hunt is not None and self._hunt.evidence.acked(ack, self._clock()):
            self._look_soon()
            self._later(self._bounds.straggler_s, partial(self._look, self._round, of_any=True))

    def nacked(self, nack: Nack) -> None:
        """Takes in a rejection."""
        if not self.may_search() or not self._is_current(nack) or self._unexplained.knows(nack):
            return
        if is_of_the_machine(nack):
            evidence = Evidence()
            evidence.nacked(nack)
            self._unexplained.add(evidence.rejected)
            return
        self._nacks.append(replace(nack, message=tidy(nack.message)))
        self._look_soon()

    def settled(self, owner: str) -> None:
        """Takes in that an Envoy of an owner has answered, or is to be sent something."""
        self._confirming.settled(owner)

    def came_or_went(self, event: StreamEvent) -> None:
        """Takes in that an Envoy has come or gone."""
        if event.open:
            return
        if self._hunt is not None:
            self._hunt.evidence.went(event.owner, event.node_id)
        if not self._confirming.is_connected(event.owner):
            self._suspects.gone(event.owner)
            self._confirming.gone(event.owner)

    def age(self) -> None:
        """Tries again what was not found out, and confirms what has been in force for long; for every few seconds."""
        now = self._clock()
        if self._hunt is not None:
            if now - self._hunt.started_at > self._bounds.seconds + 2 * self._bounds.round_s:
                self._end(self._hunt, "given up")
            return
        self._confirming.grow_old()
        if again := self.entries.due(now):
            self._release(again)

    # Judging

    def _judge(self, key: ObjectKey, object_: Resource) -> Verdict | None:
        if (entered := self.entries.verdict(key, object_)) is not None:
            return entered
        accepted = self._engine.pipeline.objects.accepted.peek(key)
        verdict = self._hunt.judge(key, object_, accepted) if self._hunt is not None else None
        return verdict or self.rehearsal.judge(key, object_, accepted)

    def _rehearsed(
        self, tried: Mapping[ObjectKey, Resource], convicted: Mapping[ObjectKey, str], step: Step | None
    ) -> None:
        if step is not None:
            self._publish(step)
            return
        self.entries.enter({key: Entry(version_of(tried[key]), message) for key, message in convicted.items()})
        self._publish(self._engine.rejudge(list(tried)))
        self.entries.tell()

    def _confirmed(self, keys: Collection[ObjectKey]) -> None:
        self.entries.note(keys)
        self.entries.tell()

    def _is_current(self, nack: Nack) -> bool:
        return any(
            self._version(Watched(nack.owner, nack.type_url, name)) == version
            for name, version in nack.versions.items()
        )

    def _version(self, watched: Watched) -> str | None:
        return version_of_resource(self._envoys.published(watched.owner), watched)

    # Searching

    def _look_soon(self) -> None:
        # Not from within the stream's own call: what it leads to is sent to that stream too.
        if not self._due:
            self._due = True
            self._later(0.0, self._look_now)

    def _look_now(self) -> None:
        self._due = False
        nacks, self._nacks = [nack for nack in self._nacks if self._is_current(nack)], []
        if self._hunt is None:
            if nacks:
                self._begin(nacks)
            return
        self._hear(self._hunt, nacks)
        self._look(self._round)

    def _begin(self, nacks: list[Nack]) -> None:
        evidence = Evidence()
        for nack in nacks:
            evidence.nacked(nack)
        suspects = self._suspects.of(nacks, {}) or self._suspects.wider(evidence.watched, self._envoys.published, {})
        if not suspects:
            self._leave_unexplained(evidence, nacks[0].message)
            return
        self._hunt = Hunt(
            suspects,
            Search(suspects, nacks[-1].message, named=partial(named, text=Texts(self._suspects.newest).of)),
            evidence,
            self._clock(),
            frozenset(suspects),
            unconfirmed=lambda: self._unconfirmed.waiting,
            bystanders=Bystanders(self._engine.pipeline.objects),
        )
        _log.warning("Envoy rejects what %d changed objects are part of: searching for the one at fault", len(suspects))
        self._go_on(self._hunt)

    def _hear(self, hunt: Hunt, nacks: list[Nack]) -> None:
        for nack in nacks:
            hunt.evidence.nacked(nack)
            more = {k: v for k, v in self._suspects.of([nack], hunt.suspects).items() if k not in hunt.suspects}
            if more:
                hunt.join(more, nack.message)
                self._go_on(hunt)

    def _look(self, round_: int, *, of_any: bool = False) -> None:
        hunt = self._hunt
        if hunt is None or round_ != self._round or self._searching:
            return
        verdict = hunt.evidence.verdict(self._version, of_any=of_any)
        if verdict is not None:
            hunt.search.told(verdict)
            self._go_on(hunt)

    def _overdue(self, round_: int) -> None:
        """An Envoy that does not answer is not asked any longer."""
        hunt = self._hunt
        if hunt is None or round_ != self._round:
            return
        self._look(round_, of_any=True)
        if self._round == round_:
            self._end(hunt, "given up")

    def _go_on(self, hunt: Hunt) -> None:
        """Publishes one trial after the other, until one has to be answered by Envoys, or nothing is left to try."""
        try:
            self._try(hunt)
        except Exception:
            # A fault of ours: nothing is to be kept back because of it.
            _log.exception("the search for what Envoy rejects has failed")
            self._hunt = None
            self._release((*hunt.suspects, *hunt.newcomers))

    def _try(self, hunt: Hunt) -> None:
        self._round += 1
        step, begun = None, self._clock()
        while True:
            if hunt.search.done:
                self._end(hunt, "unexplained" if hunt.search.unexplained else "found", step)
                return
            if hunt.rounds >= self._bounds.rounds or self._clock() - hunt.started_at > self._bounds.seconds:
                self._end(hunt, "given up", step)
                return
            hunt.rounds += 1
            moved, standing = hunt.next_trial()
            for key in standing:
                self._unconfirmed.forget(key)
            step = joined(step, self._engine.rejudge(moved, standing))
            verdict = hunt.evidence.verdict(partial(version_in, step.snapshots, self._envoys.published))
            late = self._clock() - begun > _AT_A_STRETCH_S
            if isinstance(verdict, str) and not late:
                hunt.search.rejected(verdict)  # As is known already: nobody has to be told of it.
                continue
            self._put_out(hunt, step)
            step = None
            verdict = hunt.evidence.verdict(self._version)
            if verdict is None or late:
                # What the engine has is published when others have their turn, whatever is known of it.
                self._later(self._bounds.round_s, partial(self._overdue, self._round))
                if verdict is not None:
                    self._later(0.0, partial(self._look, self._round))
                return
            hunt.search.told(verdict)

    def _put_out(self, hunt: Hunt | None, step: Step) -> None:
        now = self._clock()
        self._searching = True
        try:
            self._publish(step)
        finally:
            self._searching = False
        if hunt is not None:
            hunt.evidence.published({each: self._version(each) for each in hunt.evidence.watched}, now)

    def _moved_meanwhile(self, hunt: Hunt, step: Step) -> None:
        """Something else has been published during a trial: what is asked about may be another version now."""
        objects = self._engine.pipeline.objects
        for key, suspect in hunt.outdated(step.changed, objects.peek):
            tried = key in hunt.in_force
            hunt.leave(key)
            if tried and objects.peek(key) is not None and objects.accepted.peek(key) == suspect.object:
                # A newer version waits; the one that was tried is not to be judged any more.
                self._unconfirmed.forget(key)
                self._put_out(hunt, self._engine.rejudge((key,), {key: suspect.before}))
        if any(map(may_open, step.superseded)) and (guards := hunt.guards_aside()):
            self._put_out(hunt, self._engine.rejudge(guards))
        if free := hunt.let_go(step.changed, objects.peek):
            self._put_out(hunt, self._engine.rejudge(free))
        hunt.evidence.published({each: self._version(each) for each in hunt.evidence.watched}, self._clock())
        self._look_soon()

    # Ending

    def _end(self, hunt: Hunt, outcome: Outcome, step: Step | None = None) -> None:
        if outcome == "unexplained":
            wider = self._suspects.wider(hunt.evidence.watched, self._envoys.published, hunt.suspects)
            if wider:
                self._widen(hunt, wider, step)
                return
        took_s = self._clock() - hunt.started_at
        self.metrics.searched(outcome, hunt.rounds, took_s)
        self._hunt = None
        self._round += 1
        # Whom nobody is left to ask about is tried when somebody comes.
        again = outcome == "given up" and any(map(self._confirming.is_connected, hunt.evidence.owners()))
        self.entries.enter(hunt.sentences(self._clock() + self._bounds.retry_s if again else None))
        if outcome == "unexplained":
            self._leave_unexplained(hunt.evidence, hunt.search.message)
        _log.warning("the search took %d rounds and %.0f ms: %s", hunt.rounds, took_s * 1000, outcome)
        self._release((*hunt.suspects, *hunt.newcomers), step)
        self.entries.tell()
        for owner in {*hunt.evidence.owners(), *self._unconfirmed.owners()}:
            self.settled(owner)

    def _widen(self, hunt: Hunt, wider: Mapping[ObjectKey, Suspect], step: Step | None) -> None:
        """Not those that the resource was made from alone: perhaps something that it was not known to be made from."""
        hunt.suspects |= wider
        hunt.in_force |= wider.keys()
        convicted = hunt.search.convicted
        others = (key for key in hunt.suspects if key not in convicted)
        hunt.search = Search(others, hunt.search.message)
        hunt.search.convicted.update(convicted)
        if step is not None:
            self._put_out(hunt, step)
        self._go_on(hunt)

    def _release(self, keys: Iterable[ObjectKey], step: Step | None = None) -> None:
        self._put_out(None, joined(step, self._engine.rejudge(list(dict.fromkeys(keys)))))

    def _leave_unexplained(self, evidence: Evidence, message: str) -> None:
        _log.error("no object explains what Envoy rejects: %s", message)
        self._unexplained.add(evidence.rejected)

"""Keeps in the cluster what the plans of all Gateways say, while this replica leads; tells addresses and troubles."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition, false
from controlplane.kube.client import Api, ApiError
from controlplane.provision.kubernetes.addresses import (
    address_trouble,
    is_serving,
    node_addresses,
    service_addresses,
    workload_trouble,
)
from controlplane.provision.kubernetes.applying import Applier, NotOursError
from controlplane.provision.kubernetes.labels import CONTROLLER, annotation, owner_of
from controlplane.provision.kubernetes.plan import plan
from controlplane.provision.kubernetes.wanted import Defaults, Document, StatusAddress, WantedGateway
from controlplane.provision.kubernetes.watching import DAEMON_SET, DEPLOYMENT, KINDS, SERVICE, Id, Watched, id_of
from controlplane.provision.names import resource_name

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
_NODES_S: Final = 60.0
# How the API server refuses an apply with a field that it doesn't know; its status is 500.
_UNTYPED: Final = "failed to create typed patch object"


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to wait after a failure; then twice as long each time. Each Gateway has its own count."""

    first_s: float = 0.5
    longest_s: float = 60.0

    def wait_s(self, failures: int) -> float:
        """Returns a wait with jitter."""
        return min(self.first_s * 2 ** min(failures - 1, 16), self.longest_s) * random.uniform(0.7, 1.0)  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Outcome:
    addresses: tuple[StatusAddress, ...] = ()
    trouble: Condition | None = None


class Provisioner:
    """`want` says which Gateways there are; `run`, while this replica leads, makes it so until it is cancelled.

    `on_change` is told of Gateways whose `addresses` or `trouble` are others than before. It writes by server-side
    apply and only what differs; what belongs to no Gateway any more is deleted. What fails for one Gateway is tried
    again, later and later, and holds up no other.
    """

    def __init__(
        self,
        api: Api,
        *,
        defaults: Defaults,
        on_change: Callable[[Iterable[ObjectKey]], None],
        namespaces: Sequence[str] = (),
        retry: Retry | None = None,
    ) -> None:
        self._api = api
        self._defaults = defaults
        self._on_change = on_change
        self._namespaces = namespaces
        self._retry = retry or Retry()
        self._wanted: Mapping[ObjectKey, WantedGateway] | None = None
        self._held: frozenset[ObjectKey] = frozenset()
        self._outcomes: dict[ObjectKey, _Outcome] = {}
        self._plans: dict[ObjectKey, tuple[WantedGateway, Defaults, tuple[Document, ...]]] = {}
        self._reset()

    def _reset(self) -> None:
        self._watched = Watched(self._api, on_change=self._changed, namespaces=self._namespaces)
        self._applier = Applier(self._api, self._watched, recheck=self._recheck)
        self._due: set[ObjectKey] = set()
        self._busy: set[ObjectKey] = set()
        self._failures: dict[ObjectKey, int] = {}
        self._wake = asyncio.Event()
        self._nodes: tuple[str, ...] = ()
        self._nodes_at = float("-inf")

    def want(self, wanted: Mapping[ObjectKey, WantedGateway], *, held: Collection[ObjectKey] = ()) -> None:
        """Sets the Gateways that are to have Envoys. Those in `held` (not valid at the moment) keep what they have.

        To be called only when all Gateways are known: what is made for any other is deleted.
        """
        before = dict(self._wanted or {})
        moved = self._held ^ frozenset(held)
        # What is wanted as before stays the same object: it needs no new plan.
        self._wanted = {key: before[key] if before.get(key) == each else each for key, each in wanted.items()}
        self._held = frozenset(held)
        for key in {*before, *wanted, *moved}:
            if before.get(key) != wanted.get(key) or key in moved:
                self._failures.pop(key, None)
                self._mark(key)

    def set_defaults(self, defaults: Defaults) -> None:
        """Sets what holds for all Gateways anew, such as the authority of the control plane's certificate."""
        if defaults != self._defaults:
            self._defaults = defaults
            for key in self._wanted or {}:
                self._mark(key)

    def addresses(self, key: ObjectKey) -> tuple[StatusAddress, ...]:
        """Returns where a Gateway is reached; nothing while that is not known."""
        return self._outcomes.get(key, _Outcome()).addresses

    def trouble(self, key: ObjectKey) -> Condition | None:
        """Returns why a Gateway is not Programmed as far as what is made for it goes; None if all is well."""
        return self._outcomes.get(key, _Outcome()).trouble

    async def run(self) -> None:
        """Makes it so, until it is cancelled; may be called again."""
        self._reset()
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watched.run())
            await self._watched.synced.wait()
            self._due |= {*(self._wanted or {}), *(key for each in self._watched.objects() if (key := owner_of(each)))}
            while True:
                for key in self._due - self._busy if self._wanted is not None else ():
                    self._due.discard(key)
                    self._busy.add(key)
                    group.create_task(self._settle(key, slots))
                self._wake.clear()
                await self._wake.wait()

    def _mark(self, key: ObjectKey) -> None:
        self._due.add(key)
        self._wake.set()

    def _recheck(self, key: ObjectKey, after_s: float) -> None:
        asyncio.get_running_loop().call_later(after_s, self._mark, key)

    def _changed(self, id_: Id, before: Document | None, after: Document | None) -> None:
        for key in {owner_of(each) for each in (before, after) if each is not None}:
            if key is not None:
                self._mark(key)

    async def _settle(self, key: ObjectKey, slots: asyncio.Semaphore) -> None:
        try:
            async with slots:
                await self._tell(key, await self._reconcile(key))
        except Exception:
            # Whatever it is, it is about this Gateway, and must not hold up others.
            _log.exception("Gateway %s/%s cannot be provisioned", key.namespace, key.name)
            self._recheck(key, self._retry.longest_s)
        finally:
            self._busy.discard(key)
            self._wake.set()

    async def _reconcile(self, key: ObjectKey) -> Condition | None:
        wanted = (self._wanted or {}).get(key)
        if wanted is None and key in self._held:
            return None
        documents = self._planned(wanted) if wanted is not None else ()
        errors = await self._applier.apply(key, documents)
        errors += await self._prune(key, documents)
        if not errors:
            self._failures.pop(key, None)
            return None
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        wait_s = self._retry.wait_s(failures)
        for error in errors:
            _log.warning("Gateway %s/%s, again in %.1f s: %s", key.namespace, key.name, wait_s, error)
        self._recheck(key, wait_s)
        return _condition(errors[0])

    def _planned(self, wanted: WantedGateway) -> tuple[Document, ...]:
        known = self._plans.get(wanted.key)
        # Every event of what was made leads here, and next to none of them has to do with what is wanted.
        if known is None or known[0] is not wanted or known[1] is not self._defaults:
            known = self._plans[wanted.key] = (wanted, self._defaults, plan(wanted, self._defaults))
        return known[2]

    async def _prune(self, key: ObjectKey, documents: Sequence[Document]) -> list[Exception]:
        kept = {id_of(each) for each in documents}
        errors: list[Exception] = []
        # All that is made for a Gateway has one name.
        for id_ in (Id(kind, key.namespace, resource_name(key.name)) for kind in KINDS):
            seen = self._watched.get(id_)
            if seen is None or id_ in kept or "deletionTimestamp" in seen["metadata"]:
                continue
            ours = owner_of(seen) == key and annotation(seen, CONTROLLER) == self._defaults.controller_name
            if not ours or self._stands_in(id_, kept):
                continue
            try:
                await self._applier.delete(id_, seen)
            except ApiError as error:
                errors.append(error)
        return errors

    def _stands_in(self, id_: Id, kept: Collection[Id]) -> bool:
        """Says whether a Deployment (or DaemonSet) still serves for the other that is to follow it."""
        if id_.kind not in (DEPLOYMENT, DAEMON_SET):
            return False
        follows = [each for each in kept if each.kind in (DEPLOYMENT, DAEMON_SET)]
        return any(not is_serving(self._watched.get(each)) for each in follows)

    async def _tell(self, key: ObjectKey, failed: Condition | None) -> None:
        wanted = (self._wanted or {}).get(key)
        before = self._outcomes.get(key)
        if wanted is None and key not in self._held:
            self._outcomes.pop(key, None)
            self._plans.pop(key, None)
            return
        after = await self._outcome(key, wanted, failed)
        if before != after:
            self._outcomes[key] = after
            self._on_change((key,))

    async def _outcome(self, key: ObjectKey, wanted: WantedGateway | None, failed: Condition | None) -> _Outcome:
        name = resource_name(key.name)
        service = self._watched.get(Id(SERVICE, key.namespace, name))
        if service is not None and owner_of(service) != key:
            service = None
        nodes = (
            await self._node_addresses() if service is not None and service["spec"].get("type") == "NodePort" else ()
        )
        found = service_addresses(service, nodes=nodes) if service is not None else ()
        if wanted is None:
            return _Outcome(found)
        workloads = (self._watched.get(Id(kind, key.namespace, name)) for kind in (DEPLOYMENT, DAEMON_SET))
        short = next((trouble for each in workloads if (trouble := workload_trouble(each))), None)
        return _Outcome(found, failed or short or address_trouble(wanted, service, found))

    async def _node_addresses(self) -> tuple[str, ...]:
        now = asyncio.get_running_loop().time()
        if now - self._nodes_at > _NODES_S:
            self._nodes_at = now
            try:
                self._nodes = node_addresses(await self._api.get("/api/v1/nodes", params={"limit": "100"}))
            except ApiError as error:
                _log.info("the addresses of nodes are not known: %s", error)
        return self._nodes


def _condition(error: Exception) -> Condition:
    """Returns what a failure means for the Gateway (Gateway API: GatewayConditionProgrammed)."""
    message = str(error)[:1000]
    if isinstance(error, NotOursError):
        return false("Programmed", "Invalid", message)
    if isinstance(error, ApiError) and error.forbidden:
        return false("Programmed", "NoResources", message)
    if isinstance(error, ApiError) and (error.invalid or _UNTYPED in error.message):
        return false("Programmed", "Invalid", message)
    return false("Programmed", "Pending", message)

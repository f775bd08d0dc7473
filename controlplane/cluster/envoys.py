"""The Envoys of each Gateway, as this replica wants them: started by the provisioner while it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.api.meta import ObjectKey
from controlplane.cluster.settings import ClusterSettings
from controlplane.conditions import Condition
from controlplane.kube.client import Api
from controlplane.pipeline.infrastructure import Infrastructure
from controlplane.provision.address import TcpAddress, parse_address
from controlplane.provision.kubernetes.provisioner import Provisioner
from controlplane.provision.kubernetes.wanted import (
    ENVOY_IMAGE,
    Defaults,
    ListenerPort,
    WantedGateway,
    wanted_gateway,
)


@dataclass(frozen=True, slots=True)
class Trust:
    """How Envoys tell the control plane from others: the name in its certificate, and the authorities, as PEM."""

    server_name: str
    authorities: str


class Envoys:
    """`take` says which Gateways there are, `lead` whether this replica sees to them; `run` until cancelled.

    Without an address at which Envoys find the control plane, or where provisioning is off, none are started, and a
    Gateway has no addresses.
    """

    def __init__(
        self,
        api: Api,
        settings: ClusterSettings,
        *,
        uid_of: Callable[[ObjectKey], str | None],
        on_change: Callable[[Iterable[ObjectKey]], None],
    ) -> None:
        self._api = api
        self._settings = settings
        self._uid_of = uid_of
        self._on_change = on_change
        self._found: dict[ObjectKey, Infrastructure] = {}
        self._wanted: dict[ObjectKey, WantedGateway] = {}
        self._trust = Trust("", "")
        self._complete = False
        self._leading = asyncio.Event()
        self._moved = asyncio.Event()
        self._provisioner = self._new_provisioner()

    def trust(self, trust: Trust) -> None:
        """Says how Envoys are to know the control plane; those that run are told by a new bootstrap."""
        if trust != self._trust:
            self._trust = trust
            if self._provisioner is not None:
                self._provisioner.set_defaults(self._defaults())

    def take(self, changes: Mapping[ObjectKey, Infrastructure | None], *, complete: bool) -> None:
        """Takes in which Gateways are new, changed or gone; until all are known (`complete`) nothing is done."""
        for key, found in changes.items():
            if found is None:
                self._found.pop(key, None)
            else:
                self._found[key] = found
        if complete and (changes or not self._complete):
            self._complete = True
            self._decide()

    def seen(self, keys: Iterable[ObjectKey]) -> None:
        """Takes in that objects have been observed: a Gateway's own identity is known only then.

        One that was made anew under its name has another, which what is made for it must name as its owner.
        """
        if self._complete and any(self._is_another(key) for key in keys if key in self._found):
            self._decide()

    def _is_another(self, key: ObjectKey) -> bool:
        wanted = self._wanted.get(key)
        return wanted is None or wanted.uid != self._uid_of(key)

    def _decide(self) -> None:
        if self._provisioner is None:
            return
        self._wanted = {key: wanted for key, found in self._found.items() if (wanted := self._want(key, found))}
        self._provisioner.want(self._wanted, held=self._found.keys() - self._wanted.keys())

    def addresses(self, key: ObjectKey) -> Sequence[tuple[str, str]]:
        """Returns where a Gateway is reached."""
        return self._provisioner.addresses(key) if self._provisioner is not None else ()

    def trouble(self, key: ObjectKey) -> Condition | None:
        """Returns what keeps clients from reaching a Gateway."""
        return self._provisioner.trouble(key) if self._provisioner is not None else None

    def lead(self, leading: bool) -> None:
        """Sees to the Envoys from now on, or leaves them to another."""
        if leading:
            self._leading.set()
        else:
            self._leading.clear()
        self._moved.set()

    async def run(self) -> None:
        """Provisions whenever this replica leads."""
        while self._provisioner is not None:
            await self._leading.wait()
            self._moved.clear()
            work = asyncio.create_task(self._provisioner.run(), name="provisioner")
            moved = asyncio.create_task(self._moved.wait())
            try:
                await asyncio.wait((work, moved), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
            finally:
                work.cancel()
                moved.cancel()
                await asyncio.wait((work, moved))

    def _want(self, key: ObjectKey, found: Infrastructure) -> WantedGateway | None:
        uid = self._uid_of(key)
        if uid is None:
            return None
        ports = [ListenerPort(port, transport) for port, transport in found.ports]
        if found.parameters is None:
            # What is named cannot be had: as it was, but for the ports, which are the Gateway's own.
            before = self._wanted.get(key)
            return None if before is None else replace(before, ports=tuple(sorted(ports)))
        return wanted_gateway(found.gateway, uid=uid, ports=ports, config=found.parameters)

    def _new_provisioner(self) -> Provisioner | None:
        if not self._settings.provisioning or self._settings.xds_address is None:
            return None
        return Provisioner(
            self._api, defaults=self._defaults(), on_change=self._on_change, namespaces=self._settings.namespaces
        )

    def _defaults(self) -> Defaults:
        address = parse_address(self._settings.xds_address or "")
        assert isinstance(address, TcpAddress)
        return Defaults(
            xds=address,
            image=self._settings.image,
            server_name=self._trust.server_name,
            ca_certificate=self._trust.authorities,
            envoy_image=self._settings.envoy_image or ENVOY_IMAGE,
        )

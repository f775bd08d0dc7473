"""Which Gateways are to have Envoys, and as whose."""

from __future__ import annotations

from typing import Any, cast

import pytest

from controlplane.api.gateway import Gateway
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.cluster.envoys import Envoys
from controlplane.cluster.settings import ClusterSettings, Identity
from controlplane.pipeline.infrastructure import Infrastructure
from controlplane.provision.kubernetes.provisioner import Provisioner
from controlplane.provision.kubernetes.wanted import WantedGateway
from tests.support import manifests as m


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[dict[ObjectKey, WantedGateway]]:
    """Each set of Gateways that the provisioner was told of."""
    told: list[dict[ObjectKey, WantedGateway]] = []
    monkeypatch.setattr(Provisioner, "want", lambda self, each, held=(): told.append(dict(each)))  # pyright: ignore
    return told


async def test_a_gateway_is_started_once_its_identity_is_known_and_again_when_it_was_made_anew(
    wanted: list[dict[ObjectKey, WantedGateway]],
) -> None:
    uids: dict[ObjectKey, str] = {}
    settings = ClusterSettings(identity=Identity("one", "system"), xds_address="xds.system.svc:18000")
    envoys = Envoys(cast(Any, None), settings, uid_of=uids.get, on_change=lambda keys: None)
    gateway = load(m.gateway()).object
    assert isinstance(gateway, Gateway)
    key, found = gateway.key, Infrastructure(gateway, frozenset({(80, "TCP")}), ProxyConfigSpec())
    envoys.take({key: found}, complete=True)
    assert wanted[-1] == {}
    for uid in ("first", "second"):
        uids[key] = uid
        envoys.seen([key])
        assert wanted[-1][key].uid == uid
    envoys.seen([key])
    assert len(wanted) == 3, "nothing is new"

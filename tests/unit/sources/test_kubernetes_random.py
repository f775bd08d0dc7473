"""Whatever happens, in whatever order: in the end the source has handed over what there is."""

from __future__ import annotations

import asyncio
import random

import pytest

from controlplane.sources.kubernetes import Tuning
from controlplane.sources.kubernetes.references import references
from tests.support.kube_api import FakeKubeApi, Refusal
from tests.support.kube_source import GATEWAY_API, Reading, gateway, reading, route, secret
from tests.support.waiting import until

_HASTY = Tuning(page=3, first_wait_s=0.002, longest_wait_s=0.01, patience_s=0.05)


class _World:
    """An API server to which things happen at random."""

    def __init__(self, api: FakeKubeApi, seed: int) -> None:
        self._api = api
        self._random = random.Random(seed)

    def happen(self) -> None:
        name, other = (f"n{self._random.randrange(6)}" for _ in range(2))
        event = self._random.choice(
            [
                *[lambda: self._api.put(route(name, f"h{self._random.randrange(3)}.example"))] * 3,
                *[lambda: self._api.put(secret(name, f"v{self._random.randrange(3)}"))] * 3,
                *[lambda: self._api.put(gateway(name, other))] * 3,
                lambda: self._delete("HTTPRoute", name, GATEWAY_API),
                lambda: self._delete("Gateway", name, GATEWAY_API),
                lambda: self._delete("Secret", name, ""),
                self._api.cut,
                self._api.compact,
                self._api.expire_lists,
                self._toggle_failure,
                lambda: self._api.say("gateways", b"nonsense"),
                lambda: self._api.put({**route(name), "status": {"parents": [{"n": self._random.random()}]}}),
            ]
        )
        event()

    def _delete(self, kind: str, name: str, group: str) -> None:
        plural = f"{kind.lower()}s"
        if ("demo", name) in self._api._objects[group, plural]:
            self._api.delete(kind, "demo", name, group=group)

    def _toggle_failure(self) -> None:
        if self._api.refusals:
            self._api.refusals.clear()
        else:
            self._api.refusals[self._random.choice(["get", "list", "watch"])] = Refusal(503)

    def specs(self) -> dict[tuple[str, str], object]:
        """Returns what a source should have: everything, and the Secrets that something refers to."""
        objects = {place: dict(found) for place, found in self._api._objects.items()}
        gateways = objects[GATEWAY_API, "gateways"].values()
        wanted = {key.name for each in gateways for key in references(each)}
        found: dict[tuple[str, str], object] = {}
        for plural in ("gateways", "httproutes"):
            found |= {(each["kind"], name): each["spec"] for (_, name), each in objects[GATEWAY_API, plural].items()}
        secrets = objects["", "secrets"].items()
        return found | {("Secret", name): each["data"] for (_, name), each in secrets if name in wanted}


def _handed(found: Reading) -> dict[tuple[str, str], object]:
    kinds = ("Gateway", "HTTPRoute", "Secret")
    return {
        (key.kind, key.name): document.get("spec", document.get("data"))
        for key, document in found.objects.items()
        if key.kind in kinds
    }


@pytest.mark.parametrize("seed", range(12))
async def test_after_any_events_and_faults_all_is_as_the_api_server_has_it(seed: int) -> None:
    async with FakeKubeApi() as api:
        for kind in ("Gateway", "HTTPRoute"):
            api.define(kind)
        world = _World(api, seed)
        pace = random.Random(seed)
        for _ in range(10):
            world.happen()
        api.refusals.clear()
        async with reading(api, tuning=_HASTY) as found:
            for _ in range(150):
                world.happen()
                if pace.random() < 0.3:
                    await asyncio.sleep(pace.choice([0, 0, 0.002, 0.01]))
            api.refusals.clear()

            def is_same() -> bool:
                return _handed(found) == world.specs()

            await until(is_same, what="the same", detail=lambda: f"{_handed(found)}\n{world.specs()}")
            # And it stays so: nothing that is still under way undoes it.
            await asyncio.sleep(0.1)
            assert is_same()
            seen = [key for key in found.objects if key.kind == "HTTPRoute"]
            for key in seen:
                stored = api._objects[GATEWAY_API, "httproutes"]["demo", key.name]
                observed = found.source.observed(key)
                assert observed is not None
                assert observed.resource_version == stored["metadata"]["resourceVersion"]
                assert observed.status == stored.get("status", {})

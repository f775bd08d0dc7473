"""Of Secrets and ConfigMaps only those are held that something refers to, and nobody sees them missing for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from controlplane.sources.kubernetes import Tuning
from tests.support.kube_api import FakeKubeApi, Refusal
from tests.support.kube_source import GATEWAY_API, gateway, key, reading, route, secret
from tests.support.waiting import until


@pytest.fixture
async def api() -> AsyncGenerator[FakeKubeApi]:
    async with FakeKubeApi() as fake:
        for kind in ("Gateway", "HTTPRoute"):
            fake.define(kind)
        fake.define("BackendTLSPolicy", plural="backendtlspolicies")
        yield fake


def _tls_policy(name: str, config_map: str) -> dict[str, Any]:
    validation = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": config_map}], "hostname": "a.b"}
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "validation": validation}
    metadata = {"namespace": "demo", "name": name}
    return {"apiVersion": f"{GATEWAY_API}/v1", "kind": "BackendTLSPolicy", "metadata": metadata, "spec": spec}


async def test_secrets_that_nothing_refers_to_are_neither_read_nor_held(api: FakeKubeApi) -> None:
    for name in ("used", "other"):
        api.put(secret(name))
    api.put(gateway("gw", "used"))
    async with reading(api) as found:
        assert found.names("Secret") == {"used"}
        assert found.names("ConfigMap") == set()
        assert [path for verb, path, _ in api.requests if verb == "get"] == ["/api/v1/namespaces/demo/secrets/used"]
        count = len(found.changes)
        api.put(secret("other", "two"))
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        assert [raw.key.name for changes in found.changes[count:] for raw in changes.upserted] == ["a"]


async def test_an_object_comes_together_with_the_secret_that_it_newly_refers_to(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    async with reading(api) as found:
        api.put(gateway("gw", "one"))
        await found.until_names("Gateway", "gw")
        assert {raw.key.kind for raw in found.changes[-1].upserted} == {"Gateway", "Secret"}
        assert found.objects[key("Secret", "demo", "one", "")]["data"] == {"value": "one"}


async def test_exchanging_secrets_is_one_change(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    api.put(secret("two"))
    api.put(gateway("gw", "one"))
    async with reading(api) as found:
        api.put(gateway("gw", "two"))
        await found.until_names("Secret", "two")
        changes = found.changes[-1]
        assert {raw.key.name for raw in changes.upserted} == {"gw", "two"}
        assert changes.removed == (key("Secret", "demo", "one", ""),)
        assert len(found.changes) == 2


async def test_a_secret_goes_from_memory_with_the_last_reference(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    for name in ("a", "b"):
        api.put(gateway(name, "one"))
    async with reading(api) as found:
        api.delete("Gateway", "demo", "a", group=GATEWAY_API)
        await found.until_names("Gateway", "b")
        assert found.names("Secret") == {"one"}
        api.delete("Gateway", "demo", "b", group=GATEWAY_API)
        await found.until_names("Gateway")
        assert found.names("Secret") == set()
        # And it comes back with a new one.
        api.put(gateway("c", "one"))
        await found.until_names("Gateway", "c")
        assert found.names("Secret") == {"one"}


async def test_a_secret_that_is_rotated_is_handed_over_by_itself(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    api.put(gateway("gw", "one"))
    async with reading(api) as found:
        where = key("Secret", "demo", "one", "")
        api.put(secret("one", "rotated"))
        await until(lambda: found.objects[where]["data"] == {"value": "rotated"}, what="the new value")
        assert [raw.key.name for raw in found.changes[-1].upserted] == ["one"]


async def test_a_missing_secret_is_missing_until_it_is_created(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        api.put(gateway("gw", "late"))
        await found.until_names("Gateway", "gw")
        assert found.names("Secret") == set()
        api.put(secret("late"))
        await found.until_names("Secret", "late")
        api.delete("Secret", "demo", "late")
        await found.until_names("Secret")


async def test_a_secret_that_is_made_anew_is_never_missing(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    api.put(gateway("gw", "one"))
    async with reading(api) as found:
        where = key("Secret", "demo", "one", "")
        api.delete("Secret", "demo", "one")
        api.put(secret("one", "anew"))
        await until(lambda: found.objects.get(where, {}).get("data") == {"value": "anew"}, what="the new one")
        assert not [changed for changes in found.changes for changed in changes.removed]


async def test_a_secret_that_changed_while_history_was_lost_is_noticed(api: FakeKubeApi) -> None:
    for name in ("changed", "deleted", "kept"):
        api.put(secret(name))
    api.put(gateway("gw", "changed", "deleted", "kept"))
    async with reading(api) as found:
        fetched = len(api.asked("get", "/secrets/kept"))
        api.put(secret("changed", "two"), tell=False)
        api.delete("Secret", "demo", "deleted", tell=False)
        api.compact()
        api.cut("secrets")
        await found.until_names("Secret", "changed", "kept")
        where = key("Secret", "demo", "changed", "")
        await until(lambda: found.objects[where]["data"] == {"value": "two"}, what="the new value")
        assert len(api.asked("get", "/secrets/kept")) == fetched


async def test_an_object_waits_for_its_secret_only_so_long_and_others_not_at_all(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    async with reading(api, tuning=Tuning(patience_s=2.0, first_wait_s=0.01)) as found:
        api.hanging = True
        began = asyncio.get_running_loop().time()
        api.put(gateway("gw", "one"))
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        assert asyncio.get_running_loop().time() - began < 1.5
        assert found.names("Gateway") == set()
        await found.until_names("Gateway", "gw")
        assert 2.0 <= asyncio.get_running_loop().time() - began < 10


async def test_a_secret_that_could_not_be_read_is_read_later(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    async with reading(api, tuning=Tuning(patience_s=0.1, first_wait_s=0.01)) as found:
        api.refusals["get"] = Refusal(500)
        api.put(gateway("gw", "one"))
        await found.until_names("Gateway", "gw")
        assert found.names("Secret") == set()
        api.refusals.clear()
        await found.until_names("Secret", "one")


async def test_what_is_in_force_keeps_its_secret_while_a_new_version_waits_for_another(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    api.put(secret("two"))
    api.put(gateway("gw", "one"))
    async with reading(api) as found:
        api.hanging = True
        api.put(gateway("gw", "two"))
        await until(lambda: api.asked("get", "/secrets/two"), what="the question")
        assert found.names("Secret") == {"one"}
        # It is taken back before it came: nothing has changed.
        api.put(gateway("gw", "one"))
        api.hanging = False
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        assert found.names("Secret") == {"one"}
        assert not [changed for changes in found.changes for changed in changes.removed]


async def test_config_maps_are_held_by_reference_too(api: FakeKubeApi) -> None:
    for name in ("ca", "other"):
        api.put(secret(name, kind="ConfigMap"))
    api.put(_tls_policy("p", "ca"))
    async with reading(api) as found:
        assert found.names("ConfigMap") == {"ca"}
        api.put(_tls_policy("p", "other"))
        await found.until_names("ConfigMap", "other")


async def test_all_that_is_there_includes_the_secrets(api: FakeKubeApi) -> None:
    for i in range(100):
        api.put(secret(f"s{i}"))
        api.put(gateway(f"g{i}", f"s{i}"))
    async with reading(api) as found:
        assert len(found.names("Secret")) == 100
        assert len(found.changes) == 1


async def test_permission_for_single_secrets_may_be_missing(api: FakeKubeApi) -> None:
    api.put(secret("one"))
    api.put(gateway("gw", "one"))
    api.refusals["get"] = Refusal(403, "Forbidden")
    async with reading(api) as found:
        assert found.names("Gateway") == {"gw"}
        assert found.names("Secret") == set()

"""Kinds come and go with their definitions; versions, namespaces and permissions are what a cluster has them be."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from controlplane.sources.kubernetes import Tuning
from tests.support.kube_api import CRDS, FakeKubeApi, Refusal
from tests.support.kube_source import GATEWAY_API, gateway, key, reading, route, secret
from tests.support.waiting import until

DEFINITIONS = f"/apis/{CRDS[0]}/v1/{CRDS[1]}"


@pytest.fixture
async def api() -> AsyncGenerator[FakeKubeApi]:
    async with FakeKubeApi() as fake:
        for kind in ("Gateway", "HTTPRoute"):
            fake.define(kind)
        yield fake


async def test_kinds_that_are_not_installed_are_lived_with(api: FakeKubeApi) -> None:
    api.put(gateway())
    async with reading(api) as found:
        assert found.source.trouble is None
        assert not found.changes[0].faults
        assert found.names("Gateway") == {"gw"}


async def test_a_cluster_without_the_gateway_api_is_an_empty_one_until_it_is_installed() -> None:
    async with FakeKubeApi() as bare, reading(bare) as found:
        assert found.changes[0].complete
        bare.define("Gateway")
        bare.put(gateway())
        await found.until_names("Gateway", "gw")


async def test_a_kind_that_is_installed_later_is_picked_up_though_served_a_moment_after(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        api.define("TCPRoute", "v1alpha2")
        api.hide("TCPRoute")
        api.put(route("a", kind="TCPRoute") | {"apiVersion": f"{GATEWAY_API}/v1alpha2"})
        looks = len(api.asked("discover"))
        await until(lambda: len(api.asked("discover")) > looks + 3, what="looks")
        api.hide("TCPRoute", hidden=False)
        await found.until_names("TCPRoute", "a")
        assert found.objects[key("TCPRoute", "demo", "a")]["apiVersion"] == f"{GATEWAY_API}/v1alpha2"


async def test_looking_for_kinds_ends_when_nothing_changes(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        looks = len(api.asked("discover"))
        for i in range(50):
            api.put(route(f"r{i}"))
        await until(lambda: len(found.names("HTTPRoute")) == 51, what="the routes")
        assert len(api.asked("discover")) <= looks + 2


async def test_a_kind_whose_definition_goes_is_gone_with_its_objects(api: FakeKubeApi) -> None:
    api.put(gateway())
    api.put(route("a"))
    async with reading(api) as found:
        api.undefine("HTTPRoute")
        await found.until_names("HTTPRoute")
        assert found.names("Gateway") == {"gw"}
        await until(lambda: found.source.trouble is None, what="no trouble")
        api.define("HTTPRoute")
        api.put(route("b"))
        await found.until_names("HTTPRoute", "b")


async def test_a_kind_that_is_missing_from_discovery_only_is_not_gone(api: FakeKubeApi) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        api.hide("HTTPRoute")
        api.define("TCPRoute")
        looks = len(api.asked("discover"))
        await until(lambda: len(api.asked("discover")) > looks + 5, what="looks")
        assert found.names("HTTPRoute") == {"a"}
        api.put(route("b"))
        await found.until_names("HTTPRoute", "a", "b")


async def test_all_is_not_there_while_a_kind_is_defined_and_not_served_yet(api: FakeKubeApi) -> None:
    api.put(gateway())
    api.hide("HTTPRoute")
    api.put(route("a"))
    async with reading(api, whole=False) as found:
        looks = len(api.asked("discover"))
        await until(lambda: len(api.asked("discover")) > looks + 3, what="looks")
        assert not found.changes
        api.hide("HTTPRoute", hidden=False)
        await until(lambda: found.changes, what="all objects")
        assert found.names("HTTPRoute") == {"a"}


async def test_a_definition_that_is_never_served_is_waited_for_only_so_long(api: FakeKubeApi) -> None:
    api.hide("HTTPRoute")
    async with reading(api, tuning=Tuning(first_wait_s=0.01, whole_patience_s=0.2)) as found:
        assert found.changes[0].complete


async def test_the_preferred_version_is_read_and_a_change_of_versions_followed(api: FakeKubeApi) -> None:
    api.define("Gateway", "v1beta1", "v1")
    api.define("TLSRoute", "v1alpha2")
    api.put(gateway())
    api.put(route("a", kind="TLSRoute"))
    async with reading(api) as found:
        await until(lambda: api.asked("watch", "/v1/gateways"), what="the watch")
        assert not api.asked("watch", "/v1beta1/gateways")
        observed = found.source.observed(key("TLSRoute", "demo", "a"))
        assert observed is not None
        assert observed.api_version == f"{GATEWAY_API}/v1alpha2"
        api.define("TLSRoute", "v1alpha2", "v1")
        where = key("TLSRoute", "demo", "a")
        await until(lambda: found.objects[where]["apiVersion"] == f"{GATEWAY_API}/v1", what="the new version")
        await until(lambda: found.source.observed(where).api_version == f"{GATEWAY_API}/v1", what="it for statuses")  # type: ignore[union-attr]
        api.put(route("b", kind="TLSRoute"))
        await found.until_names("TLSRoute", "a", "b")


async def test_without_permission_for_definitions_kinds_are_looked_for_now_and_then(api: FakeKubeApi) -> None:
    api.refusals[f"list {DEFINITIONS}"] = Refusal(403, "Forbidden")
    api.put(gateway())
    async with reading(api) as found:
        assert found.names("Gateway") == {"gw"}
        assert found.source.trouble is None
        api.define("TCPRoute", "v1alpha2")
        api.put(route("a", kind="TCPRoute") | {"apiVersion": f"{GATEWAY_API}/v1alpha2"})
        await found.until_names("TCPRoute", "a")
        api.hide("TCPRoute")
        looks = len(api.asked("discover"))
        await until(lambda: len(api.asked("discover")) > looks + 1, what="looks")
        assert found.names("TCPRoute") == {"a"}


async def test_a_missing_permission_for_an_optional_kind_is_told_and_lived_with(api: FakeKubeApi) -> None:
    api.define("TCPRoute", "v1alpha2")
    message = 'tcproutes is forbidden: User "x" cannot list resource "tcproutes"'
    api.refusals[f"list /apis/{GATEWAY_API}/v1alpha2/tcproutes"] = Refusal(403, "Forbidden", message)
    api.put(gateway())
    async with reading(api) as found:
        assert [fault.message for fault in found.changes[0].faults] == [message]
        assert not found.changes[0].faults[0].hides
        assert found.source.trouble is None
        api.refusals.clear()
        api.put(route("a", kind="TCPRoute") | {"apiVersion": f"{GATEWAY_API}/v1alpha2"})
        await found.until_names("TCPRoute", "a")
        await until(lambda: not found.changes[-1].faults, what="no fault")


@pytest.mark.parametrize("group", ["dragoman.dev", "gateway.envoyproxy.io"])
async def test_nothing_is_handed_over_without_permission_for_what_guards(api: FakeKubeApi, group: str) -> None:
    api.define("SecurityPolicy", "v1alpha1", group=group, plural="securitypolicies")
    api.refusals[f"list /apis/{group}"] = Refusal(403, "Forbidden", "securitypolicies is forbidden")
    api.put(gateway())
    async with reading(api, whole=False) as found:
        await until(lambda: found.source.trouble == "securitypolicies is forbidden (403 Forbidden)", what="trouble")
        assert not found.changes
        api.refusals.clear()
        await until(lambda: found.changes, what="all objects")


async def test_permission_that_is_taken_away_takes_nothing_away(api: FakeKubeApi) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        await until(lambda: api.watching("httproutes"), what="the watch")
        for verb in ("list", "watch"):
            api.refusals[f"{verb} /apis/{GATEWAY_API}/v1/httproutes"] = Refusal(403, "Forbidden", "not any more")
        api.cut("httproutes")
        await until(lambda: found.source.trouble, what="trouble")
        assert found.names("HTTPRoute") == {"a"}
        await until(lambda: found.changes[-1].faults, what="a finding")
        assert [fault.message for fault in found.changes[-1].faults] == ["not any more"]


async def test_namespaces_may_be_limited_and_then_each_is_read_on_its_own(api: FakeKubeApi) -> None:
    api.define("GatewayClass", plural="gatewayclasses", namespaced=False)
    for namespace in ("one", "two", "three"):
        api.put(route("a", namespace=namespace))
        api.put(secret("s", namespace=namespace))
    crossing = gateway("gw", "s", namespace="one")
    crossing["spec"]["listeners"][0]["tls"]["certificateRefs"].append({"name": "s", "namespace": "three"})
    api.put(crossing)
    async with reading(api, namespaces=["one", "two", "one"]) as found:
        assert {each.namespace for each in found.objects if each.kind == "HTTPRoute"} == {"one", "two"}
        assert {each.namespace for each in found.objects if each.kind == "Secret"} == {"one"}
        paths = {path for verb, path, _ in api.requests if verb == "list"}
        assert f"/apis/{GATEWAY_API}/v1/namespaces/one/httproutes" in paths
        assert "/api/v1/namespaces/two/secrets" in paths
        everywhere = {path.rpartition("/")[2] for path in paths if "/namespaces/" not in path}
        assert everywhere - {"ingressclasses"} == {CRDS[1], "namespaces", "gatewayclasses"}
        assert found.source.observed(key("HTTPRoute", "two", "a")) is not None
        api.delete("HTTPRoute", "two", "a", group=GATEWAY_API)
        await until(lambda: key("HTTPRoute", "two", "a") not in found.objects, what="the deletion")
        assert found.source.observed(key("HTTPRoute", "two", "a")) is None


async def test_namespaces_need_not_be_readable_where_they_are_limited(api: FakeKubeApi) -> None:
    api.refusals["list /api/v1/namespaces$"] = Refusal(403, "Forbidden", "namespaces is forbidden")
    api.put(route("a"))
    async with reading(api, namespaces=["demo"]) as found:
        assert found.names("HTTPRoute") == {"a"}
    async with reading(api, whole=False) as found:
        await until(lambda: found.source.trouble == "namespaces is forbidden (403 Forbidden)", what="trouble")
        assert not found.changes


async def test_the_api_server_of_an_older_kubernetes_is_named_as_such(api: FakeKubeApi) -> None:
    api._discovery = lambda core: {"kind": "APIGroupList", "groups": []}  # type: ignore[method-assign]
    async with reading(api, whole=False) as found:
        await until(lambda: "aggregated discovery" in (found.source.trouble or ""), what="the words")

"""The source keeps up with an API server that ends watches, forgets history, falls silent or fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from controlplane.sources.kubernetes import Tuning
from tests.support.kube_api import FakeKubeApi, Refusal
from tests.support.kube_source import GATEWAY_API, QUICK, gateway, key, reading, route
from tests.support.waiting import until


@pytest.fixture
async def api() -> AsyncGenerator[FakeKubeApi]:
    async with FakeKubeApi() as fake:
        for kind in ("GatewayClass", "Gateway", "HTTPRoute"):
            fake.define(kind, namespaced=kind != "GatewayClass", plural="gatewayclasses" if "Cl" in kind else "")
        yield fake


async def _watched(api: FakeKubeApi, plural: str = "httproutes") -> None:
    await until(lambda: api.watching(plural), what="a watch")


async def test_nothing_is_handed_over_before_every_kind_is_read_and_then_all_at_once(api: FakeKubeApi) -> None:
    api.put(route("a"))
    api.put(gateway())
    api.refusals["list /api/v1/services"] = Refusal(500)
    async with reading(api, whole=False) as found:
        await until(lambda: len(api.asked("list", "/services")) > 2, what="more tries")
        assert not found.changes
        assert found.source.trouble is not None
        api.refusals.clear()
        await until(lambda: found.changes, what="all objects")
        assert found.source.trouble is None
    assert found.changes[0].complete
    assert {raw.key.name for raw in found.changes[0].upserted} == {"a", "gw"}


async def test_reading_without_waiting_gives_nothing_and_says_so(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        assert found.source.read().complete is False
        assert not found.source.read().upserted


async def test_documents_come_without_status_and_bookkeeping(api: FakeKubeApi) -> None:
    api.put({**route("a"), "status": {"parents": []}})
    async with reading(api) as found:
        document = found.objects[key("HTTPRoute", "demo", "a")]
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(document["metadata"]) == {"namespace", "name", "uid", "creationTimestamp", "generation"}


async def test_objects_of_built_in_kinds_say_what_they_are_though_lists_do_not(api: FakeKubeApi) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "demo", "name": "s"}, "spec": {}}
    api.put(service)
    async with reading(api) as found:
        listed = found.objects[key("Service", "demo", "s", "")]
        assert (listed["apiVersion"], listed["kind"]) == ("v1", "Service")
        # The same content in another order of fields is no change.
        before = len(found.changes)
        api.put({"kind": "Service", "apiVersion": "v1", "spec": {}, "metadata": service["metadata"]})
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        assert [raw.key.kind for raw in found.changes[before].upserted] == ["HTTPRoute"]
        assert not found.refusals()


async def test_what_changes_at_the_same_time_is_handed_over_together(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        await _watched(api)
        found.busy.clear()
        api.put(route("first"))
        await found.until_names("HTTPRoute", "first")
        for i in range(100):
            api.put(route(f"r{i}"))
        api.put(route("r0", "other.example"))
        api.delete("HTTPRoute", "demo", "r1", group=GATEWAY_API)
        count = len(found.changes)
        await until(lambda: f"r{99}" in str(found.source._outbox._upserts), what="the last")
        found.busy.set()
        await until(lambda: len(found.names("HTTPRoute")) == 100, what="all")
        assert len(found.changes) == count + 1
        assert found.objects[key("HTTPRoute", "demo", "r0")]["spec"]["hostnames"] == ["other.example"]


async def test_a_watch_that_ends_goes_on_from_where_it_was_without_a_list(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        await _watched(api)
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        lists = len(api.asked("list", "/httproutes"))
        version = api.version
        api.cut("httproutes")
        api.put(route("b"))
        await found.until_names("HTTPRoute", "a", "b")
        assert len(api.asked("list", "/httproutes")) == lists
        assert api.asked("watch", "/httproutes")[-1]["resourceVersion"] == str(version)
        assert [raw.key.name for changes in found.changes for raw in changes.upserted].count("a") == 1


async def test_a_deletion_that_happened_while_history_was_lost_is_seen(api: FakeKubeApi) -> None:
    for name in "abc":
        api.put(route(name))
    async with reading(api) as found:
        await _watched(api)
        api.delete("HTTPRoute", "demo", "a", group=GATEWAY_API, tell=False)
        api.put(route("b", "changed.example"), tell=False)
        api.compact()
        api.cut()
        await found.until_names("HTTPRoute", "b", "c")
        await until(lambda: len(found.changes) > 1, what="changes")
        handed = [raw.key.name for changes in found.changes[1:] for raw in changes.upserted]
        assert handed == ["b"]
        assert found.source.observed(key("HTTPRoute", "demo", "a")) is None


async def test_lost_history_that_is_told_instead_of_a_watch_is_listed_again(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        await _watched(api)
        api.put(route("a"), tell=False)
        api.refusals[f"watch /apis/{GATEWAY_API}/v1/httproutes"] = Refusal(410, "Expired")
        api.cut("httproutes")
        await found.until_names("HTTPRoute", "a")
        api.refusals.clear()
        api.put(route("b"))
        await found.until_names("HTTPRoute", "a", "b")


async def test_bookmarks_are_where_a_watch_goes_on(api: FakeKubeApi) -> None:
    async with reading(api):
        await _watched(api)
        for i in range(5):
            api.put(gateway(f"g{i}"))
        api.bookmark("httproutes")
        api.cut("httproutes")
        await until(
            lambda: api.asked("watch", "/httproutes")[-1]["resourceVersion"] == str(api.version), what="the bookmark"
        )
        assert api.asked("watch", "/httproutes")[-1]["allowWatchBookmarks"] == "true"


async def test_a_bookmark_that_leads_back_is_not_followed_and_two_mean_that_history_was_replaced(
    api: FakeKubeApi,
) -> None:
    async with reading(api) as found:
        await _watched(api)
        api.put(route("a"))
        await found.until_names("HTTPRoute", "a")
        lists, version = len(api.asked("list", "/httproutes")), api.version
        api.bookmark("httproutes", 5)
        api.cut("httproutes")
        await until(lambda: api.watching("httproutes") == [str(version)], what="the watch goes on")
        assert len(api.asked("list", "/httproutes")) == lists
        api.put(route("b"), tell=False)
        api.bookmark("httproutes", 5)
        api.bookmark("httproutes", 6)
        await found.until_names("HTTPRoute", "a", "b")


async def test_a_watch_that_says_nothing_for_too_long_is_asked_for_anew(api: FakeKubeApi) -> None:
    async with reading(api, tuning=Tuning(first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.3)) as found:
        await _watched(api)
        api.silent = True
        api.put(route("a"))
        await until(lambda: len(api.asked("watch", "/httproutes")) > 2, what="another watch")
        assert not found.names("HTTPRoute")
        api.silent = False
        await found.until_names("HTTPRoute", "a")


async def test_an_outage_hands_over_nothing_is_told_and_is_over_when_it_is(
    api: FakeKubeApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        await _watched(api)
        caplog.clear()
        caplog.set_level("INFO")
        count = len(found.changes)
        for verb in ("list", "watch", "get", "discover"):
            api.refusals[verb] = Refusal(503, "ServiceUnavailable", "down")
        api.cut()
        await until(lambda: found.source.trouble, what="trouble")
        assert "down" in str(found.source.trouble)
        await until(lambda: len(api.asked("watch", "/httproutes")) > 5, what="more tries")
        assert len(found.changes) == count
        api.refusals.clear()
        await until(lambda: found.source.trouble is None, what="no trouble")
        api.put(route("b"))
        await found.until_names("HTTPRoute", "a", "b")
    told = [record.message for record in caplog.records if "the Kubernetes API" in record.message]
    assert len(told) == 2
    assert "fails" in told[0]
    assert "answers again" in told[1]


async def test_an_api_server_that_asks_to_be_left_alone_is(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        await _watched(api)
        api.refusals[f"watch /apis/{GATEWAY_API}/v1/httproutes"] = Refusal(429, headers={"Retry-After": "1"})
        api.cut("httproutes")
        before = len(api.asked("watch", "/httproutes"))
        tries = await until(lambda: len(api.asked("watch", "/httproutes")) - before, what="a try") + before
        # Once is no outage.
        assert found.source.trouble is None
        api.refusals.clear()
        api.put(gateway())
        await found.until_names("Gateway", "gw")
        await asyncio.sleep(0.2)
        assert len(api.asked("watch", "/httproutes")) == tries
        await until(lambda: len(api.asked("watch", "/httproutes")) > tries, what="the next try")


async def test_an_api_server_that_stays_busy_is_an_outage(api: FakeKubeApi) -> None:
    async with reading(api) as found:
        await _watched(api)
        api.refusals["watch"] = Refusal(429, message="storage is (re)initializing")
        api.cut("httproutes")
        await until(lambda: "initializing" in (found.source.trouble or ""), what="trouble")


async def test_lists_come_in_pages_and_begin_anew_when_one_is_too_late(api: FakeKubeApi) -> None:
    for i in range(25):
        api.put(route(f"r{i}"))
    async with reading(api, tuning=Tuning(page=10, first_wait_s=0.01)) as found:
        assert len(found.names("HTTPRoute")) == 25
        assert len(api.asked("list", "/httproutes")) == 3
        await _watched(api)
        api.delete("HTTPRoute", "demo", "r24", group=GATEWAY_API, tell=False)
        api.compact()
        api.refusals[f"list /apis/{GATEWAY_API}/v1/httproutes"] = Refusal(410, "Expired")
        api.cut()
        await until(lambda: len(api.asked("list", "/httproutes")) > 4, what="tries")
        assert len(found.names("HTTPRoute")) == 25
        api.refusals.clear()
        await until(lambda: len(found.names("HTTPRoute")) == 24, what="the deletion")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"type":"ADDED","object":{}}', b'{"type":"ADDED"}'])
async def test_a_line_that_makes_no_sense_is_made_good_by_a_list(api: FakeKubeApi, line: bytes) -> None:
    async with reading(api) as found:
        await _watched(api)
        api.put(route("a"), tell=False)
        api.say("httproutes", line)
        await found.until_names("HTTPRoute", "a")
        await until(lambda: found.source.trouble is None, what="no trouble")


async def test_a_line_without_end_is_cut_off(api: FakeKubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.kube.client.MAX_LINE_BYTES", 100_000)
    async with reading(api) as found:
        await _watched(api)
        api.put(route("a"), tell=False)
        (watch,) = [each for each in api._watches if each.plural == "httproutes"]
        watch.queue.put_nowait(b"x" * 300_000)
        await found.until_names("HTTPRoute", "a")


async def test_only_a_status_that_changed_is_observed_and_not_handed_over(api: FakeKubeApi) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        await _watched(api)
        where = key("HTTPRoute", "demo", "a")
        first = found.source.observed(where)
        assert first is not None
        assert (first.api_version, first.plural, first.generation) == (f"{GATEWAY_API}/v1", "httproutes", 1)
        assert first.status == {}
        assert where in found.observed
        found.observed.clear()
        count, version = len(found.changes), api.put({**route("a"), "status": {"parents": [{"x": 1}]}})
        await until(lambda: where in found.observed, what="the status")
        seen = found.source.observed(where)
        assert seen is not None
        assert (seen.status, seen.resource_version) == ({"parents": [{"x": 1}]}, str(version))
        assert seen.uid == first.uid
        assert len(found.changes) == count


async def test_the_generation_observed_is_that_of_the_spec_that_was_taken(api: FakeKubeApi) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        await _watched(api)
        where = key("HTTPRoute", "demo", "a")
        found.busy.clear()
        api.put(route("a", "second.example"))
        await until(lambda: len(found.changes) == 2, what="the change")
        held = found.source.observed(where)
        assert held is not None
        assert held.generation == 1
        found.observed.clear()
        # A status that is written while the change is being taken does not come before it.
        api.put({**route("a", "second.example"), "status": {"parents": []}})
        found.busy.set()
        await until(lambda: where in found.observed, what="the generation")
        now = found.source.observed(where)
        assert now is not None
        assert now.generation == 2
        await until(lambda: found.source.observed(where).status == {"parents": []}, what="the status")  # type: ignore[union-attr]


async def test_metadata_that_changes_is_handed_over_and_finalizers_are_understood(api: FakeKubeApi) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        await _watched(api)
        changed = route("a")
        changed["metadata"] |= {
            "annotations": {"x": "y"},
            "finalizers": ["example.com/keep"],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0,
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}],
            "generateName": "a-",
        }
        api.put(changed)
        await until(lambda: len(found.changes) == 2, what="the change")
        assert not found.refusals()
        assert found.names("HTTPRoute") == {"a"}


async def test_an_object_that_comes_and_goes_unseen_is_never_mentioned(api: FakeKubeApi) -> None:
    api.put(gateway())
    async with reading(api) as found:
        await _watched(api)
        found.busy.clear()
        api.put(gateway("second"))
        await found.until_names("Gateway", "gw", "second")
        api.put(route("a"))
        api.delete("HTTPRoute", "demo", "a", group=GATEWAY_API)
        api.put(route("b"))
        await until(lambda: "'b'" in str(found.source._outbox._upserts), what="the last")
        found.busy.set()
        await found.until_names("HTTPRoute", "b")
        assert not [changed for changes in found.changes for changed in changes.removed]


async def test_an_object_that_is_deleted_made_anew_and_deleted_again_is_gone(api: FakeKubeApi) -> None:
    api.put(route("a"))
    async with reading(api) as found:
        await _watched(api)
        found.busy.clear()
        api.put(gateway())
        await found.until_names("Gateway", "gw")
        for _ in range(2):
            api.delete("HTTPRoute", "demo", "a", group=GATEWAY_API)
            api.put(route("a", "anew.example"))
        api.delete("HTTPRoute", "demo", "a", group=GATEWAY_API)
        api.put(route("b"))
        await until(lambda: "'b'" in str(found.source._outbox._upserts), what="the last")
        found.busy.set()
        await found.until_names("HTTPRoute", "b")


async def test_what_is_handed_over_is_json_as_it_came(api: FakeKubeApi) -> None:
    wanted = route("a")
    wanted["spec"]["rules"] = [{"matches": [{"path": {"type": "PathPrefix", "value": "/é"}}], "filters": []}]
    api.put(wanted)
    async with reading(api) as found:
        document = found.objects[key("HTTPRoute", "demo", "a")]
        assert json.dumps(document["spec"]) == json.dumps(wanted["spec"])


async def test_stopping_ends_every_watch(api: FakeKubeApi) -> None:
    async with reading(api, tuning=QUICK):
        await _watched(api)
    await until(lambda: not api._watches or api.cut(), what="no watch")
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("watch", "fetch", "kinds"))]

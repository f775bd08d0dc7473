"""A fault harms nobody but its object: it is told with file, line and field, and the last good version goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edited, namespace: demo}
spec:
  parentRefs:
  - name: edge
  rules:
  - matches:
    - path: {type: PathPrefix, value: /edited}
    backendRefs:
    - {group: dragoman.dev, kind: Backend, name: echo}
"""
STEADY = [Target("/steady"), Target("/steady", host="other.example.com"), Target("/edited")]


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    authority: Authority
    upstream: Upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Scene]:
    authority = Authority()
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {
            "name": "https",
            "port": 443,
            "protocol": "HTTPS",
            "hostname": "tls.example.com",
            "tls": {"certificateRefs": [{"name": "tls"}]},
        },
    ]
    async with Upstream("echo") as upstream:
        files = {
            "base.yaml": [GATEWAY_CLASS, m.backend("echo", upstream.port)],
            "gateway.yaml": [m.gateway(listeners=listeners)],
            "tls.yaml": [authority.leaf("tls.example.com").secret("demo", "tls")],
            "steady.yaml": [m.route("steady", [m.to_backend("/steady", "echo")])],
            "edited.yaml": GOOD,
        }
        async with Gateway(files) as gateway:
            yield Scene(gateway, authority, upstream)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(running: Scene) -> AsyncIterator[Scene]:
    """The scene under traffic: whatever a test does, no request for what it does not touch may fail."""
    gateway = running.gateway
    texts = {path.name: path.read_text() for path in gateway.folder.iterdir()}
    tls = running.authority.client_context()
    secure = [Target("/steady", host="tls.example.com")]
    async with (
        Probe(gateway.port(80), STEADY, rate_per_s=90) as probe,
        Probe(gateway.port(443), secure, rate_per_s=30, tls=tls) as secure_probe,
    ):
        yield running
        for path in gateway.folder.iterdir():
            if path.name not in texts:
                gateway.remove(path.name)
        for name, text in texts.items():
            gateway.write(name, text)
        await until(lambda: not gateway.findings(), what="recovery", detail=lambda: str(gateway.findings()))
        await until(lambda: len(probe.results) >= 10 and len(secure_probe.results) >= 5, what="requests")
    probe.assert_none_failed(at_least_per_s=1)
    secure_probe.assert_none_failed(at_least_per_s=1)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


FAULTS = {
    "unknown field": ("  rules:", "  ruls:", "spec.ruls", "unknown field"),
    "unknown field below": ("    backendRefs:", "    backendRef:", "spec.rules[0].backendRef", "did you mean"),
    "wrong type": ("  - name: edge", "  - name: 7", "spec.parentRefs[0].name", "expected"),
    "wrong value": ("type: PathPrefix", "type: Prefix", "spec.rules[0].matches[0].path.type", "expected"),
    "bad path": ("value: /edited}", "value: edited}", "spec.rules[0].matches[0].path", "/"),
    "bad regex": (
        "type: PathPrefix, value: /edited}",
        'type: RegularExpression, value: "/edited(?=x)"}',
        "spec.rules[0].matches[0].path.value",
        "RE2",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_faulty_route_is_named_by_file_line_and_field_and_its_last_good_version_serves(
    scene: Scene, name: str
) -> None:
    part, instead, field, words = FAULTS[name]
    bad = GOOD.replace(part, instead)
    assert bad != GOOD
    scene.gateway.write("edited.yaml", bad)
    finding = await scene.gateway.found("HTTPRoute demo/edited", field, words, "the last good version stays in force")
    assert f"edited.yaml:{line_of(bad, instead)}: " in finding
    assert (await scene.gateway.get("/edited")).status == 200
    mended = GOOD.replace("{type: PathPrefix, value: /edited}", "{value: /edited}\n    - path: {value: /mended}")
    scene.gateway.write("edited.yaml", mended)
    await scene.gateway.answers("/mended")
    assert scene.gateway.findings() == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD + "  bad: [unclosed\n", 13),
        (GOOD.replace("  rules:", "\trules:"), 7),
        (GOOD + "---\nkind: HTTPRoute\n  metadata: oops\n", 15),
    ],
    ids=["unclosed bracket", "tab", "in a later document"],
)
async def test_malformed_yaml_is_named_by_file_and_line_and_what_was_there_stays(
    scene: Scene, text: str, line: int
) -> None:
    scene.gateway.write("edited.yaml", text)
    finding = await scene.gateway.found("edited.yaml:")
    assert int(finding.split("edited.yaml:")[1].split(":")[0]) in (line - 1, line, line + 1)
    assert (await scene.gateway.get("/edited")).status == 200


async def test_a_new_route_with_a_fault_is_not_served_and_told(scene: Scene) -> None:
    bad = GOOD.replace("name: edited", "name: fresh").replace("/edited", "/fresh").replace("  rules:", "  ruls:")
    scene.gateway.write("fresh.yaml", bad)
    finding = await scene.gateway.found("HTTPRoute demo/fresh", "spec.ruls")
    assert "last good" not in finding
    assert (await scene.gateway.get("/fresh")).status == 404
    scene.gateway.write("fresh.yaml", bad.replace("ruls", "rules"))
    await scene.gateway.answers("/fresh")


@pytest.mark.parametrize(
    ("ref", "field", "words"),
    [
        ({"name": "nowhere", "port": 80}, "spec.rules[0].backendRefs[0].name", "Service demo/nowhere does not exist"),
        ({"name": "svc", "port": 81}, "spec.rules[0].backendRefs[0].port", "has no port 81"),
        ({"name": "svc", "port": 80, "namespace": "other"}, "spec.rules[0].backendRefs[0]", "no ReferenceGrant"),
        ({"name": "x", "kind": "Pod", "port": 80}, "spec.rules[0].backendRefs[0].kind", "expected a Service"),
    ],
    ids=["missing", "port", "grant", "kind"],
)
async def test_a_dangling_reference_answers_500_and_is_told(
    scene: Scene, ref: dict[str, Any], field: str, words: str
) -> None:
    rules = [{"matches": [{"path": {"value": "/dangling"}}], "backendRefs": [ref]}, m.to_backend("/sound", "echo")]
    scene.gateway.write("dangling.yaml", [m.service("svc"), m.route("dangling", rules)])
    await scene.gateway.answers("/dangling", 500)
    assert (await scene.gateway.get("/sound")).status == 200
    finding = await scene.gateway.found("HTTPRoute demo/dangling", field, words)
    text = (scene.gateway.folder / "dangling.yaml").read_text()
    lines = text.splitlines()
    line = int(finding.split("dangling.yaml:")[1].partition(":")[0])
    # The line is that of the field, or of the reference where the whole of it is meant.
    assert field.rpartition(".")[2].rstrip("[0]") in lines[line - 1] or lines[line - 1].lstrip().startswith("- ")
    assert line > line_of(text, "backendRefs")


async def test_a_reference_that_dangles_after_an_edit_acts_at_once(scene: Scene) -> None:
    scene.gateway.write("dangling.yaml", [m.route("dangling", [m.to_backend("/dangling", "echo")])])
    await scene.gateway.answers("/dangling")
    scene.gateway.write("dangling.yaml", [m.route("dangling", [m.to_backend("/dangling", "gone")])])
    await scene.gateway.answers("/dangling", 500)


async def test_a_route_to_an_unknown_gateway_or_listener_harms_nobody(scene: Scene) -> None:
    lost = m.route("lost", [m.to_backend("/lost", "echo")])
    lost["spec"]["parentRefs"] = [{"name": "edge", "sectionName": "nope"}]
    scene.gateway.write("lost.yaml", [lost])
    await scene.gateway.found("HTTPRoute demo/lost", "spec.parentRefs[0].sectionName", "has no listener of name nope")
    assert (await scene.gateway.get("/lost")).status == 404


async def test_a_route_to_a_gateway_that_nobody_has_is_told(scene: Scene) -> None:
    lost = m.route("lost", [m.to_backend("/lost", "echo")], parent="edgee")
    scene.gateway.write("lost.yaml", [lost])
    await scene.gateway.found("HTTPRoute demo/lost", "spec.parentRefs[0].name", "Gateway demo/edgee does not exist")


async def test_a_gateway_of_a_class_that_nobody_has_is_told(scene: Scene) -> None:
    other = m.gateway("other")
    other["spec"]["gatewayClassName"] = "drogoman"
    scene.gateway.write("other.yaml", [other])
    await scene.gateway.found("Gateway demo/other", "spec.gatewayClassName", "GatewayClass drogoman does not exist")


async def test_a_gateway_with_an_address_that_is_none_is_told_and_binds_nothing(scene: Scene) -> None:
    other = m.gateway("other")
    other["spec"]["addresses"] = [{"type": "IPAddress", "value": "here"}]
    scene.gateway.write("other.yaml", [other])
    await scene.gateway.found("Gateway demo/other", "spec.addresses[0].value", "expected an IP address")
    scene.gateway.write("more.yaml", [m.route("more", [m.to_backend("/more", "echo")])])
    await scene.gateway.answers("/more")


async def test_what_is_not_supported_yet_is_told_by_name(scene: Scene) -> None:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    policy = m.manifest("dragoman.dev/v1alpha1", "ClientTrafficPolicy", "later", {"targetRefs": [target]})
    backend = m.manifest(
        "dragoman.dev/v1alpha1",
        "Backend",
        "later",
        {"endpoints": [{"ip": {"address": "127.0.0.1", "port": 80}}], "fallback": True},
    )
    scene.gateway.write("later.yaml", [policy, backend])
    await scene.gateway.found("ClientTrafficPolicy demo/later", "not supported yet")
    await scene.gateway.found("Backend demo/later", "spec.fallback", "has no effect yet")


@pytest.mark.parametrize("address", ["nowhere", "::1"])
async def test_an_endpoint_that_is_no_address_is_told_and_the_last_good_ones_serve(scene: Scene, address: str) -> None:
    gateway = scene.gateway
    service = [m.service("pods"), m.route("pods", [m.rule("/pods", "pods")])]

    def pods(where: str) -> m.Manifest:
        return {**m.endpoint_slice("pods", where), "ports": [{"port": scene.upstream.port}]}

    gateway.write("pods.yaml", [*service, pods("127.0.0.1")])
    await gateway.answers("/pods")
    gateway.write("pods.yaml", [*service, pods(address)])
    await gateway.found("EndpointSlice demo/pods-a", "endpoints[0].addresses[0]", "expected an address of type IPv4")
    assert (await gateway.get("/pods")).status == 200


@pytest.mark.parametrize("fault", ["expired", "another key", "no PEM", "no certificate"])
async def test_a_faulty_certificate_is_told_and_the_last_good_one_is_shown(scene: Scene, fault: str) -> None:
    authority = scene.authority
    secret = authority.leaf("tls.example.com").secret("demo", "tls")
    other = authority.leaf("tls.example.com").secret("demo", "tls")
    if fault == "expired":
        secret = authority.leaf("tls.example.com", valid_for=timedelta(days=-2)).secret("demo", "tls")
        said = ("data['tls.crt']", "the certificate expired at")
    elif fault == "another key":
        secret["data"]["tls.key"] = other["data"]["tls.key"]
        said = ("data['tls.key']", "does not belong to the certificate")
    elif fault == "no PEM":
        secret["data"]["tls.crt"] = "bm90aGluZw=="
        said = ("data['tls.crt']", "expected a certificate chain in PEM")
    else:
        del secret["data"]["tls.crt"]
        said = ("data", "needs tls.crt")
    scene.gateway.write("tls.yaml", [secret])
    finding = await scene.gateway.found("Secret demo/tls", *said, "the last good version stays in force")
    line = line_of(yaml.safe_dump_all([secret]), f"{said[0][6:-2]}:" if "[" in said[0] else "data:")
    assert f"tls.yaml:{line}: " in finding
    assert "PRIVATE" not in finding


async def test_a_faulty_certificate_that_never_was_good_closes_its_listener_alone(scene: Scene) -> None:
    gateway = scene.gateway
    text = (gateway.folder / "gateway.yaml").read_text()
    document = yaml.safe_load(text)
    https = {**document["spec"]["listeners"][1], "name": "fresh", "hostname": "fresh.example.com"}
    https["tls"] = {"certificateRefs": [{"name": "fresh"}]}
    document["spec"]["listeners"].append(https)
    expired = scene.authority.leaf("fresh.example.com", valid_for=timedelta(days=-2)).secret("demo", "fresh")
    gateway.write("fresh.yaml", [expired])
    gateway.write("gateway.yaml", [document])
    await gateway.found("Secret demo/fresh", "expired")
    finding = await gateway.found("Gateway demo/edge", "spec.listeners[2].tls.certificateRefs[0]")
    assert "gateway.yaml:" in finding
    await gateway.cannot_connect(443, tls=scene.authority.client_context(), sni="fresh.example.com")


def _second_listener(**changes: Any) -> list[m.Manifest]:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}, {"name": "http", "port": 80, "protocol": "HTTP"}]
    listeners[1] |= changes
    return [m.gateway(listeners=listeners)]


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({}, "spec.listeners[1]", "http"),
        ({"name": "twin"}, "spec.listeners[1]", "same port, protocol and hostname as listener 'http'"),
        (
            {"name": "twin", "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "tls"}]}},
            "spec.listeners[0].protocol",
            "listener twin uses port 80 with protocol HTTPS",
        ),
    ],
    ids=["name", "port and hostname", "protocol"],
)
async def test_duplicate_listeners_are_told_and_the_last_good_gateway_serves(
    scene: Scene, changes: dict[str, Any], field: str, words: str
) -> None:
    scene.gateway.write("gateway.yaml", _second_listener(**changes))
    finding = await scene.gateway.found("Gateway demo/edge", field, words, "the last good version stays in force")
    assert "gateway.yaml:" in finding


async def test_of_two_routes_in_conflict_the_older_serves_and_the_other_is_told(scene: Scene) -> None:
    def conflicting(name: str, created: str, path: str = "/same") -> m.Manifest:
        edit = {"set": [{"name": "x-route", "value": name}]}
        rule = m.to_backend(path, "echo", filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}])
        rules = [m.to_backend("/free" + path, "echo"), rule]
        return {**m.route(name, rules), "metadata": {**m.route(name, [])["metadata"], "creationTimestamp": created}}

    async def answered_by(name: str) -> None:
        async def answered() -> bool:
            return (await scene.gateway.answers("/same")).json()["headers"]["x-route"] == name

        await until(answered, what=f"{name} to answer")

    newer = conflicting("a-newer", "2021-01-01T00:00:00Z")
    scene.gateway.write("newer.yaml", [newer])
    await answered_by("a-newer")
    older = conflicting("b-older", "2020-01-01T00:00:00Z")
    older["spec"]["rules"][0]["matches"][0]["path"]["value"] = "/else"
    scene.gateway.write("older.yaml", [older])
    finding = await scene.gateway.found("HTTPRoute demo/a-newer", "HTTPRoute demo/b-older has the same match")
    assert "spec.rules[1].matches[0]" in finding
    assert "newer.yaml:" in finding
    await answered_by("b-older")
    assert not [each for each in scene.gateway.findings() if "HTTPRoute demo/b-older" in each.split(": ")[1]]
    scene.gateway.remove("older.yaml")
    await until(lambda: not scene.gateway.findings(), what="the conflict to end")
    await answered_by("a-newer")


async def test_an_object_that_is_written_twice_counts_once_and_is_told(scene: Scene) -> None:
    scene.gateway.write("zz-again.yaml", GOOD.replace("/edited}", "/again}"))
    finding = await scene.gateway.found("zz-again.yaml:")
    assert "HTTPRoute demo/edited" in finding
    assert (await scene.gateway.get("/again")).status == 404


async def test_an_unknown_kind_and_a_document_that_is_no_object_are_told(scene: Scene) -> None:
    scene.gateway.write("odd.yaml", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRout\nmetadata: {name: x}\n")
    assert "did you mean" in await scene.gateway.found("odd.yaml:2", "HTTPRout")
    scene.gateway.write("odd.yaml", "- just\n- a list\n")
    await scene.gateway.found("odd.yaml:1")


async def test_many_faults_at_once_are_told_one_by_one(scene: Scene) -> None:
    rules = [{"matches": [{"path": {"type": "RegularExpression", "value": f"/x{n}("}}]} for n in range(5)]
    sound = [m.route(f"sound-{n}", [m.to_backend(f"/sound-{n}", "echo")]) for n in range(5)]
    scene.gateway.write("many.yaml", [*sound, m.route("many", rules), *sound[:0]])
    await scene.gateway.answers("/sound-4")
    found = [each for each in scene.gateway.findings() if "HTTPRoute demo/many" in each]
    assert len(found) == 5
    assert len({each.partition(": ")[0] for each in found}) == 5

"""What Ingresses expand to follows what it depends on, whatever changes first; warm it is what it is cold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api.load import key_of, load
from controlplane.api.meta import ObjectKey
from controlplane.compile.ingress_documents import EXPANDED_FROM, name_for, short
from controlplane.expansion import Expander
from controlplane.sources.changes import Changes, Origin, RawObject
from tests.support import manifests as m
from tests.support.ingress import backend, carrier, ingress, ingress_class, path, rule

HTTPS = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "own"}]}}
HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
HOSTS = ("a.example.com", "b.example.com", "*.example.com", None)
NAMED_SERVICE = m.manifest("v1", "Service", "echo", {"ports": [{"name": "web", "port": 8080}]})
OTHER_SERVICE = m.manifest("v1", "Service", "echo", {"ports": [{"name": "web", "port": 9090}]})


class World:
    """What a source has, what an expander has made of it, and the same begun anew."""

    def __init__(self) -> None:
        self.given: dict[ObjectKey, Mapping[str, Any]] = {}
        self.held: dict[ObjectKey, Mapping[str, Any]] = {}
        self.expander = Expander()
        self.line = 0

    def take(self, put: Iterable[Mapping[str, Any]] = (), drop: Iterable[ObjectKey] = ()) -> Changes:
        upserted = {raw.key: raw for raw in map(self._raw, put)}
        removed = tuple(dict.fromkeys(key for key in drop if key in self.given and key not in upserted))
        for key in removed:
            del self.given[key]
        self.given |= {key: raw.document for key, raw in upserted.items()}
        changes = self.expander.take(Changes(upserted=tuple(upserted.values()), removed=removed))
        assert not {raw.key for raw in changes.upserted} & set(changes.removed)
        for key in changes.removed:
            self.held.pop(key, None)
        self.held |= {raw.key: raw.document for raw in changes.upserted}
        return changes

    def names(self, kind: str) -> set[str]:
        return {key.name for key in self.held if key.kind == kind}

    def warnings(self, name: str, namespace: str = "demo") -> list[str]:
        return [each.message for each in self.expander.warnings_of(ingress_key(name, namespace))]

    def _raw(self, document: Mapping[str, Any]) -> RawObject:
        key = key_of(document)
        assert key is not None
        self.line += 1
        return RawObject(key, document, Origin("all.yaml", line=self.line))


def ingress_key(name: str, namespace: str = "demo") -> ObjectKey:
    return ObjectKey("networking.k8s.io", "Ingress", namespace, name)


def begun(*documents: Mapping[str, Any]) -> World:
    world = World()
    world.take([carrier(), ingress_class(), *documents])
    return world


def parents(world: World, name: str) -> list[Mapping[str, Any]]:
    (found,) = (document for key, document in world.held.items() if key.name == name and key.kind == "HTTPRoute")
    return found["spec"]["parentRefs"]


def secured(name: str, host: str = "a.example.com", secret: str = "cert", **more: Any) -> m.Manifest:
    return ingress(name, rule(host, path("/")), tls=[{"hosts": [host], "secretName": secret}], **more)


@st.composite
def ingresses(draw: st.DrawFn) -> m.Manifest:
    hosts = draw(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2))
    port = draw(st.sampled_from([80, "web"]))
    rules = [rule(host, path(draw(st.sampled_from(["/", "/x(/|$)(.*)"])), port=port)) for host in hosts]
    spec: dict[str, Any] = {}
    if draw(st.booleans()):
        tls_hosts = draw(st.lists(st.sampled_from([each for each in HOSTS if each]), max_size=2))
        spec["tls"] = [{"hosts": tls_hosts, "secretName": draw(st.sampled_from(["one", "two", ""]))}]
    if draw(st.booleans()):
        spec["defaultBackend"] = backend("echo", port)
    canary = {"canary": "true", "canary-weight": "10"}
    annotations = draw(st.sampled_from([{}, {}, canary, {"rewrite-target": "/$2"}, {"force-ssl-redirect": "true"}]))
    created = draw(st.sampled_from([None, "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"]))
    made = ingress(
        draw(st.sampled_from(["one", "two", "three"])),
        *rules,
        namespace=draw(st.sampled_from(["demo", "demo", "team"])),
        class_name=draw(st.sampled_from(["dragoman", "dragoman", "second", None])),
        annotations=annotations,
        created=created,
        **spec,
    )
    if draw(st.integers(0, 9)) == 0:
        made["spec"]["rules"] = [{"host": "Not A Host"}]
    return made


CLASSES = [
    ingress_class(),
    ingress_class(default=True),
    ingress_class(gateway=None),
    ingress_class(gateway="other"),
    ingress_class(controller="example.com/other"),
    ingress_class("second", gateway="other"),
    ingress_class("second", default=True),
]
USERS = [
    m.route(name_for("one", f"{short('a.example.com')}-0"), [m.rule("/own", "one")]),
    m.route(name_for("two", "default-0"), [m.rule("/own", "one")]),
]
GATEWAYS = [carrier(), carrier(listeners=[HTTP, HTTPS]), carrier("other"), carrier("other", listeners=[HTTPS])]
documents = st.one_of(
    ingresses(), ingresses(), st.sampled_from([*CLASSES, *GATEWAYS, *USERS, NAMED_SERVICE, OTHER_SERVICE])
)
batches = st.lists(
    st.tuples(st.lists(documents, max_size=4), st.lists(documents.map(lambda each: key_of(each)), max_size=2)),
    max_size=6,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(batches)
def test_what_is_expanded_warm_is_what_is_expanded_cold(edits: list[tuple[list[m.Manifest], list[ObjectKey]]]) -> None:
    warm = World()
    warm.take([*CLASSES[:1], *GATEWAYS[:1]])
    for put, drop in edits:
        warm.take(put, drop)
    cold = World()
    cold.take(warm.given.values())
    assert warm.held == cold.held
    for key in warm.given:
        assert warm.expander.warnings_of(key) == cold.expander.warnings_of(key)
        assert warm.expander.gateway_of(key) == cold.expander.gateway_of(key)
        assert warm.expander.is_ours(key) == cold.expander.is_ours(key)
    gateways = [key for each in GATEWAYS if (key := key_of(each)) is not None]
    for gateway in gateways:
        assert sorted(warm.expander.carried_by(gateway)) == sorted(cold.expander.carried_by(gateway))


def test_the_oldest_ingress_of_a_namespace_gives_the_certificate_of_a_host() -> None:
    older = secured("z-older", created="2020-01-01T00:00:00Z")
    newer = secured("a-newer", secret="another", created="2021-01-01T00:00:00Z")
    world = begun(newer)
    of_newer, of_older = (name_for(each, f"tls-{short('a.example.com')}") for each in ("a-newer", "z-older"))
    assert world.names("ListenerSet") == {of_newer}
    world.take([older])
    assert world.names("ListenerSet") == {of_older}
    route = name_for("a-newer", f"{short('a.example.com')}-0")
    assert parents(world, route) == [{"kind": "ListenerSet", "name": of_older}]
    assert "z-older has this host and comes first" in world.warnings("a-newer")[0]
    world.take(drop=[ingress_key("z-older")])
    assert world.names("ListenerSet") == {of_newer}
    assert world.warnings("a-newer") == []


def test_ingresses_of_other_namespaces_have_nothing_to_do_with_one_another() -> None:
    world = begun(secured("one", created="2020-01-01T00:00:00Z"))
    world.take([secured("one", namespace="team", secret="another")])
    assert [key.namespace for key in sorted(world.held) if key.kind == "ListenerSet"] == ["demo", "team"]
    assert world.warnings("one", "team") == []


def test_the_port_of_a_service_is_found_by_its_name_as_soon_as_there_is_one() -> None:
    world = begun(ingress("one", rule("a.example.com", path("/", port="web"))))
    assert "no port web" in world.warnings("one")[0]
    world.take([NAMED_SERVICE])
    assert world.warnings("one") == []
    (route,) = (document for key, document in world.held.items() if key.kind == "HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "echo", "port": 8080}]


def test_what_depends_on_nothing_that_changed_is_not_expanded_again() -> None:
    world = begun(ingress("one", rule("a.example.com", path("/"))), secured("two", "b.example.com"))
    changes = world.take([NAMED_SERVICE, ingress("three", rule("c.example.com", path("/")))])
    assert world.expander.expanded == (ingress_key("three"),)
    assert {raw.key.kind for raw in changes.upserted} == {"Service", "Ingress", "HTTPRoute"}
    world.take([secured("two", "b.example.com")])
    assert world.expander.expanded == (ingress_key("two"),)


def test_an_object_of_the_user_keeps_its_name_and_the_ingress_says_so() -> None:
    name = name_for("one", f"{short('a.example.com')}-0")
    own = m.route(name, [m.rule("/own", "one")])
    key = key_of(own)
    assert key is not None
    world = begun(ingress("one", rule("a.example.com", path("/"))))
    world.take([own])
    assert world.held[key] == own
    assert "is there already" in world.warnings("one")[0]
    world.take([ingress("one", rule("a.example.com", path("/new")))])
    assert world.held[key] == own
    world.take(drop=[key])
    assert world.held[key]["spec"]["rules"][0]["matches"][0]["path"]["value"] == "/new"
    assert world.warnings("one") == []


def test_what_was_remembered_of_an_expansion_is_not_taken_for_an_object() -> None:
    remembered = m.manifest(
        m.GATEWAY_API, "HTTPRoute", name_for("gone", "x-0"), {}, metadata={"annotations": {EXPANDED_FROM: "gone"}}
    )
    world = World()
    assert world.take([remembered]).upserted == ()


def test_a_bad_ingress_is_expanded_as_it_was_last_accepted() -> None:
    good, bad = ingress("one", rule("a.example.com", path("/"))), ingress("one", rule("Not A Host", path("/")))
    world = begun(good)
    before = dict(world.held)
    world.expander.accepted = lambda key: load(good).object
    world.take([bad])
    assert {key: each for key, each in world.held.items() if key.kind == "HTTPRoute"} == {
        key: each for key, each in before.items() if key.kind == "HTTPRoute"
    }


def test_a_version_that_stands_in_later_is_expanded_then() -> None:
    good, bad = ingress("one", rule("a.example.com", path("/"))), ingress("one", rule("Not A Host", path("/")))
    world = begun(bad)
    assert world.expander.again(ingress_key("one")).upserted == ()
    world.expander.accepted = lambda key: load(good).object
    changes = world.expander.again(ingress_key("one"))
    assert [raw.key.kind for raw in changes.upserted] == ["HTTPRoute"]
    assert world.expander.again(ingress_key("other")) == Changes()


def test_a_default_class_is_that_of_ingresses_that_name_none() -> None:
    world = begun(ingress("one", rule("a.example.com", path("/")), class_name=None))
    assert world.names("HTTPRoute") == set()
    assert "no class is named" in world.warnings("one")[0]
    world.take([ingress_class(default=True)])
    assert len(world.names("HTTPRoute")) == 1
    assert world.expander.carried_by(ObjectKey("gateway.networking.k8s.io", "Gateway", "demo", "edge")) == [
        ingress_key("one")
    ]

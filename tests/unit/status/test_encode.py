from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import ENVOY_GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.conditions import (
    Condition,
    ListenerStatus,
    ObjectStatus,
    ParentRef,
    ParentStatus,
    false,
    true,
)
from controlplane.status.encode import Setting, encode, merge_patch
from controlplane.status.features import FEATURES
from controlplane.status.merge import MAX_MESSAGE
from tests.unit.status.seen import BEFORE, CONTROLLER, NOW, SETTING, STAMP, Seen, again, by_type, key, written

EDGE = ParentRef("Gateway", "edge")
ROUTE = ObjectStatus(parents=(ParentStatus("Gateway demo/edge", (true("Accepted"), true("ResolvedRefs")), EDGE),))
THEIRS: dict[str, Any] = {
    "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "other"},
    "controllerName": "example.com/controller",
    "conditions": [{"type": "Accepted", "status": "False", "reason": "X", "message": "", "lastTransitionTime": BEFORE}],
}
WAITING = [
    {
        "type": type_,
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }
    for type_ in ("Accepted", "Programmed")
]


def test_a_route_tells_of_each_parent_as_the_spec_names_it() -> None:
    ref = ParentRef("Gateway", "edge", namespace="infra", section="web", port=80)
    status = ObjectStatus(parents=(ParentStatus("", (true("Accepted"),), ref),))
    assert written(key("HTTPRoute"), status, Seen(generation=7)) == {
        "parents": [
            {
                "parentRef": {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "namespace": "infra",
                    "name": "edge",
                    "sectionName": "web",
                    "port": 80,
                },
                "controllerName": CONTROLLER,
                "conditions": [
                    {
                        "type": "Accepted",
                        "status": "True",
                        "reason": "Accepted",
                        "message": "",
                        "observedGeneration": 7,
                        "lastTransitionTime": STAMP,
                    }
                ],
            }
        ]
    }


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"])
def test_what_is_there_already_is_not_written_again(kind: str) -> None:
    assert again(key(kind), ROUTE, written(key(kind), ROUTE)) is None


def test_a_transition_is_dated_only_where_the_status_changed() -> None:
    observed = written(key("HTTPRoute"), ROUTE)
    unresolved = false("ResolvedRefs", "BackendNotFound", "gone", "spec.rules[0].backendRefs[1].name")
    changed = ObjectStatus(parents=(ParentStatus("", (true("Accepted", "Other"), unresolved), EDGE),))
    found = again(key("HTTPRoute"), changed, observed)
    assert found is not None
    accepted, resolved = found["parents"][0]["conditions"]
    assert (accepted["reason"], accepted["lastTransitionTime"]) == ("Other", STAMP)
    assert (resolved["status"], resolved["lastTransitionTime"]) == ("False", "2026-05-01T13:00:00Z")
    assert resolved["message"] == "spec.rules[0].backendRefs[1].name: gone"


def test_a_new_generation_alone_is_written() -> None:
    observed = written(key("HTTPRoute"), ROUTE)
    found = written(key("HTTPRoute"), ROUTE, Seen(observed, generation=2))
    assert {each["observedGeneration"] for each in found["parents"][0]["conditions"]} == {2}
    assert {each["lastTransitionTime"] for each in found["parents"][0]["conditions"]} == {STAMP}


def test_parents_of_other_controllers_keep_their_entry_and_their_place() -> None:
    gone = {**THEIRS, "controllerName": CONTROLLER}
    ours = written(key("HTTPRoute"), ROUTE)["parents"][0]
    observed = {"parents": [gone, THEIRS, ours]}
    added = ObjectStatus(parents=(ParentStatus("", (true("Accepted"),), ParentRef("Gateway", "new")), *ROUTE.parents))
    found = written(key("HTTPRoute"), added, Seen(observed))
    assert found["parents"][:2] == [THEIRS, ours]
    assert [each["parentRef"]["name"] for each in found["parents"]] == ["other", "edge", "new"]


def test_a_route_that_is_not_ours_is_left_alone() -> None:
    assert again(key("HTTPRoute"), ObjectStatus(), {}) is None
    assert again(key("HTTPRoute"), None, {"parents": [THEIRS]}) is None
    assert again(key("HTTPRoute"), None, {"parents": []}) is None


def test_entries_of_ours_go_when_the_route_is_ours_no_more() -> None:
    observed = {"parents": [THEIRS, *written(key("HTTPRoute"), ROUTE)["parents"]]}
    assert again(key("HTTPRoute"), None, observed) == {"parents": [THEIRS]}


def test_a_parent_that_nobody_has_is_not_told_of() -> None:
    missing = false("Accepted", "NoMatchingParent", "Gateway demo/x does not exist", "spec.parentRefs[0].name")
    assert again(key("HTTPRoute"), ObjectStatus(conditions=(missing,)), {}) is None


def test_what_is_wrong_with_a_route_is_told_to_each_parent() -> None:
    bad = false("Accepted", "Invalid", "expected a number", "spec.rules[0].timeouts.request")
    found = written(key("HTTPRoute"), ObjectStatus((bad,), ROUTE.parents))
    accepted, resolved = found["parents"][0]["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert resolved["status"] == "True"


def test_of_several_verdicts_of_a_type_the_worst_holds_with_all_its_messages() -> None:
    said = (
        true("ResolvedRefs"),
        false("ResolvedRefs", "BackendNotFound", "a", "spec.rules[0]"),
        false("ResolvedRefs", "RefNotPermitted", "b"),
        false("ResolvedRefs", "RefNotPermitted", "b"),
        Condition("ResolvedRefs", "Unknown", "Pending", "c"),
    )
    found = written(key("HTTPRoute"), ObjectStatus(parents=(ParentStatus("", said, EDGE),)))
    (resolved,) = found["parents"][0]["conditions"]
    assert (resolved["reason"], resolved["message"]) == ("BackendNotFound", "spec.rules[0]: a; b")


def test_a_condition_that_is_bad_when_true_outweighs_its_opposite() -> None:
    said = (
        Condition("NotSupported", "False", "Fine"),
        Condition("NotSupported", "True", "UnsupportedField", "no", "spec.a"),
    )
    found = written(key("HTTPRoute"), ObjectStatus(parents=(ParentStatus("", said, EDGE),)))
    assert by_type(found["parents"][0]["conditions"]) == {"NotSupported": ("True", "UnsupportedField")}


@pytest.mark.parametrize(
    "messages", [["x" * 40000], ["y" * 300] * 1, [f"{n}" * 900 for n in range(60)], ["z" * MAX_MESSAGE]]
)
def test_messages_stay_within_what_the_api_server_takes(messages: list[str]) -> None:
    said = tuple(false("Accepted", "Invalid", text) for text in messages)
    found = written(key("HTTPRoute"), ObjectStatus(parents=(ParentStatus("", said, EDGE),)))
    message = found["parents"][0]["conditions"][0]["message"]
    assert len(message) <= MAX_MESSAGE
    assert len(message) > MAX_MESSAGE - 1000 or message == "; ".join(dict.fromkeys(messages))


def test_what_is_left_out_of_a_message_is_counted() -> None:
    said = tuple(false("Accepted", "Invalid", f"{n:03}" * 300) for n in range(60))
    found = written(key("HTTPRoute"), ObjectStatus(parents=(ParentStatus("", said, EDGE),)))
    message: str = found["parents"][0]["conditions"][0]["message"]
    shown, _, rest = message.rpartition("; and ")
    assert int(rest.removesuffix(" more")) + len(shown.split("; ")) == 60


@pytest.mark.parametrize(
    ("reason", "expected"), [("", "Accepted"), ("9 lives!", "lives"), ("a-b", "ab"), ("Ok:x", "Ok:x")]
)
def test_reasons_take_the_form_that_the_api_server_wants(reason: str, expected: str) -> None:
    said = (Condition("Accepted", "False", reason),)
    found = written(key("HTTPRoute"), ObjectStatus(parents=(ParentStatus("", said, EDGE),)))
    assert found["parents"][0]["conditions"][0]["reason"] == expected


def test_conditions_of_others_stay_where_they_are_and_of_ours_what_holds_no_more_goes() -> None:
    theirs = {"type": "example.com/Seen", "status": "True", "reason": "R", "message": "", "lastTransitionTime": BEFORE}
    old = [
        {"type": "NotSupported", "status": "True", "reason": "R", "message": "", "lastTransitionTime": BEFORE},
        theirs,
        {"type": "Accepted", "status": "True", "reason": "R", "message": "", "lastTransitionTime": BEFORE},
    ]
    found = written(key("Backend", group=POLICY_GROUP), ObjectStatus((true("Accepted"),)), Seen({"conditions": old}))
    assert found["conditions"][0] == theirs
    assert found["conditions"][1]["type"] == "Accepted"
    assert found["conditions"][1]["lastTransitionTime"] == BEFORE
    assert len(found["conditions"]) == 2


def test_no_more_than_eight_conditions_are_written_and_none_of_another_controller_is_dropped() -> None:
    theirs = [
        {"type": f"example.com/{n}", "status": "True", "reason": "R", "message": "", "lastTransitionTime": BEFORE}
        for n in range(6)
    ]
    said = (true("Accepted"), true("ResolvedRefs"), Condition("NotSupported", "True", "UnsupportedField"))
    found = written(key("Backend", group=POLICY_GROUP), ObjectStatus(said), Seen({"conditions": theirs}))
    assert [each["type"] for each in found["conditions"][6:]] == ["Accepted", "ResolvedRefs"]
    assert found["conditions"][:6] == theirs


def test_of_more_than_eight_types_the_first_are_written() -> None:
    said = tuple(Condition(f"Type{n}", "True", "Reason") for n in range(9))
    backend = key("Backend", group=POLICY_GROUP)
    found = written(backend, ObjectStatus(said))
    assert [each["type"] for each in found["conditions"]] == [f"Type{n}" for n in range(8)]
    assert again(backend, ObjectStatus(said), found) is None


def test_a_gateway_replaces_what_the_api_server_filled_in() -> None:
    listener = ListenerStatus("web", 3, ("HTTPRoute",), (true("Accepted"), true("ResolvedRefs"), true("Programmed")))
    status = ObjectStatus(
        (true("Accepted"), true("Programmed")),
        listeners=(listener,),
        addresses=(("IPAddress", "10.0.0.1"),),
        attached_listener_sets=0,
    )
    found = written(key("Gateway"), status, Seen({"conditions": WAITING}, generation=4))
    assert found["addresses"] == [{"type": "IPAddress", "value": "10.0.0.1"}]
    assert found["attachedListenerSets"] == 0
    assert by_type(found["conditions"]) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    assert {each["observedGeneration"] for each in found["conditions"]} == {4}
    assert {each["lastTransitionTime"] for each in found["conditions"]} == {STAMP}
    (one,) = found["listeners"]
    assert one["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]
    assert one["attachedRoutes"] == 3
    assert by_type(one["conditions"])["Conflicted"] == ("False", "NoConflicts")
    assert again(key("Gateway"), status, found) == {
        **found,
        "conditions": [{**each, "observedGeneration": 1} for each in found["conditions"]],
        "listeners": [
            {**one, "conditions": [{**each, "observedGeneration": 1} for each in one["conditions"]]},
        ],
    }


def test_the_date_of_what_the_api_server_filled_in_is_not_taken_for_a_transition() -> None:
    status = ObjectStatus((Condition("Accepted", "Unknown", "Pending"),))
    found = written(key("Gateway"), status, Seen({"conditions": WAITING}))
    assert found["conditions"][0]["lastTransitionTime"] == STAMP


@pytest.mark.parametrize(
    ("kind", "accepted", "expected"),
    [
        ("Gateway", false("Accepted", "UnsupportedAddress", ""), ("False", "Invalid")),
        ("Gateway", true("Accepted"), ("Unknown", "Pending")),
        ("ListenerSet", false("Accepted", "NotAllowed", ""), ("False", "NotAllowed")),
    ],
)
def test_programmed_is_always_said(kind: str, accepted: Condition, expected: tuple[str, str]) -> None:
    found = written(key(kind), ObjectStatus((accepted,)), Seen({"conditions": WAITING}))
    assert by_type(found["conditions"])["Programmed"] == expected


def test_a_gateway_sums_up_what_its_listeners_refer_to() -> None:
    bad = ListenerStatus("tls", 0, (), (true("Accepted"), false("ResolvedRefs", "InvalidCertificateRef", "gone")))
    found = written(key("Gateway"), ObjectStatus((true("Accepted"),), listeners=(bad,)))
    assert by_type(found["conditions"])["ResolvedRefs"] == ("False", "ListenersNotResolved")
    own = ObjectStatus((true("Accepted"), false("ResolvedRefs", "RefNotPermitted", "")), listeners=(bad,))
    assert by_type(written(key("Gateway"), own)["conditions"])["ResolvedRefs"] == ("False", "RefNotPermitted")


def test_listeners_and_addresses_that_are_gone_are_removed() -> None:
    listener = ListenerStatus("web", 0, (), (true("Accepted"),))
    full = ObjectStatus((true("Accepted"),), listeners=(listener,), addresses=(("Hostname", "edge.example.com"),))
    observed = written(key("Gateway"), full)
    bare = again(key("Gateway"), ObjectStatus((true("Accepted"),)), observed)
    assert bare is not None
    assert bare.keys() == {"conditions"}
    assert merge_patch(observed, bare)["addresses"] is None
    assert merge_patch(observed, bare)["listeners"] is None


@pytest.mark.parametrize("kind", ["Gateway", "GatewayClass", "ListenerSet"])
def test_what_another_controller_has_is_never_touched(kind: str) -> None:
    assert again(key(kind), None, {"conditions": WAITING}) is None
    assert again(key(kind), ObjectStatus(), {"conditions": WAITING}) is None


def test_a_class_tells_the_features_sorted() -> None:
    found = written(key("GatewayClass"), ObjectStatus((true("Accepted"),)))
    assert [each["name"] for each in found["supportedFeatures"]] == sorted(FEATURES)
    assert by_type(found["conditions"]) == {"Accepted": ("True", "Accepted")}


@pytest.mark.parametrize(
    ("versions", "expected", "names"),
    [
        ({"gateways": "v1.6.3", "httproutes": "v1.2.0", "tcproutes": "v1.6.0-rc1"}, "True", ()),
        ({"gateways": "v1.7.0", "httproutes": "v1.6.3"}, "False", ("gateways v1.7.0",)),
        ({"gateways": "", "udproutes": "main"}, "False", ("gateways without a version", "udproutes main")),
    ],
)
def test_a_class_says_whether_the_crds_are_known(
    versions: dict[str, str], expected: str, names: tuple[str, ...]
) -> None:
    setting = Setting(CONTROLLER, versions)
    found = written(key("GatewayClass"), ObjectStatus((true("Accepted"),)), setting=setting)
    accepted, version = found["conditions"]
    assert accepted["status"] == "True"
    assert version["status"] == expected
    assert all(name in version["message"] for name in names)


def test_a_class_with_bad_parameters_is_not_accepted_and_still_tells_its_features() -> None:
    bad = false("Accepted", "InvalidParameters", "ProxyConfig x does not exist", "spec.parametersRef")
    found = written(key("GatewayClass"), ObjectStatus((bad,)))
    assert by_type(found["conditions"]) == {"Accepted": ("False", "InvalidParameters")}
    assert found["supportedFeatures"]


def test_an_ingress_gets_the_addresses_of_its_gateway() -> None:
    ingress = ObjectKey("networking.k8s.io", "Ingress", "demo", "one")
    status = ObjectStatus((true("Accepted"),), addresses=(("IPAddress", "10.0.0.1"), ("Hostname", "a.example.com")))
    found = written(ingress, status, Seen({"loadBalancer": {}}))
    assert found == {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "a.example.com"}]}}
    bare = again(ingress, ObjectStatus((true("Accepted"),)), found)
    assert bare is not None
    assert bare == {"loadBalancer": {}}
    assert merge_patch(found, bare) == {"loadBalancer": {"ingress": None}}
    assert again(ingress, None, found) is None


@pytest.mark.parametrize("kind", ["Service", "Secret", "ReferenceGrant"])
def test_kinds_without_conditions_are_left_alone(kind: str) -> None:
    group = "gateway.networking.k8s.io" if kind == "ReferenceGrant" else ""
    assert again(key(kind, group=group), ObjectStatus((true("Accepted"),)), {}) is None
    for mute in ("HTTPRouteFilter", "EnvoyProxy"):
        assert again(key(mute, group=ENVOY_GATEWAY_GROUP), ObjectStatus((true("Accepted"),)), {}) is None


def test_a_status_about_an_older_version_says_so() -> None:
    found = encode(key("HTTPRoute"), ROUTE, Seen(generation=5), now=NOW, setting=SETTING, generation=4)
    assert found is not None
    assert {each["observedGeneration"] for each in found["parents"][0]["conditions"]} == {4}


def test_fields_of_a_status_that_we_do_not_know_are_kept() -> None:
    found = written(key("Gateway"), ObjectStatus((true("Accepted"),)), Seen({"future": {"a": 1}}))
    assert found["future"] == {"a": 1}


def test_a_merge_patch_names_only_what_differs() -> None:
    old = {"a": [1], "b": {"c": 1, "d": 2}, "e": 5}
    new = {"a": [1], "b": {"c": 1, "d": 3}, "f": {}}
    assert merge_patch(old, new) == {"b": {"d": 3}, "e": None, "f": {}}

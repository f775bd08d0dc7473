"""Ports of listeners become ports of containers."""

from __future__ import annotations

import pytest

from controlplane.provision.kubernetes.ports import ADMIN_PORT, DRAIN_PORT, READY_PORT, bind, container_port


@pytest.mark.parametrize(("port", "bound"), [(1, 10001), (80, 10080), (8443, 18443), (55535, 65535)])
def test_a_port_is_bound_ten_thousand_higher(port: int, bound: int) -> None:
    assert container_port(port) == bound


def test_no_two_ports_share_one_but_the_very_highest() -> None:
    bound = [container_port(port) for port in range(1, 64412)]
    assert len(set(bound)) == len(bound)
    assert min(bound) >= 1024
    assert max(container_port(port) for port in range(1, 65536)) <= 65535


def test_no_listener_takes_a_port_that_the_pod_needs_itself() -> None:
    assert not {ADMIN_PORT, READY_PORT, DRAIN_PORT} & {container_port(port) for port in range(1, 65536)}


def test_gateways_do_not_clash_with_one_another() -> None:
    made = bind({"demo/a": ((), (80, 443)), "demo/b": (("192.0.2.1",), (80,))})
    assert made.bound == {
        ("demo/a", 80): (("0.0.0.0", 10080),),
        ("demo/a", 443): (("0.0.0.0", 10443),),
        ("demo/b", 80): (("0.0.0.0", 10080),),
    }
    assert made.clashes == ()


def test_both_families_are_bound_where_a_cluster_has_both() -> None:
    made = bind({"demo/a": ((), (80,))}, hosts=("0.0.0.0", "::"))
    assert made.bound["demo/a", 80] == (("0.0.0.0", 10080), ("::", 10080))


def test_one_of_the_highest_ports_excludes_the_port_ten_thousand_below() -> None:
    made = bind({"demo/a": ((), (55000, 65000))})
    assert list(made.bound) == [("demo/a", 55000)]
    assert [str(clash) for clash in made.clashes] == [
        "Gateway demo/a: port 65000 (bound to 0.0.0.0:65000) is held by port 55000 of the same Gateway"
    ]

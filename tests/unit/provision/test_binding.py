from __future__ import annotations

import os
import socket

import pytest

from controlplane.provision.address import TcpAddress, UnixAddress, parse_address
from controlplane.provision.binding import Bindings, Wanted, bind
from controlplane.provision.busy import busy, holder_of
from tests.support.ports import free_port


def test_ports_are_bound_on_loopback_and_privileged_ones_are_shifted() -> None:
    bindings = bind({"demo/edge": Wanted((), (80, 443, 8080))})
    assert bindings.clashes == ()
    assert dict(bindings.bound) == {
        ("demo/edge", 80): (("127.0.0.1", 10080),),
        ("demo/edge", 443): (("127.0.0.1", 10443),),
        ("demo/edge", 8080): (("127.0.0.1", 8080),),
    }


def test_ports_are_bound_on_the_addresses_that_a_gateway_names() -> None:
    bindings = bind({"demo/edge": Wanted(("127.0.0.2", "::1", "0:0::1"), (8080,))})
    assert bindings.bound["demo/edge", 8080] == (("127.0.0.2", 8080), ("::1", 8080))


def test_the_first_gateway_keeps_a_port_and_the_later_one_is_told_who_holds_it() -> None:
    bindings = bind({"a/old": Wanted((), (8080, 80)), "b/new": Wanted((), (8080, 10080, 8081))})
    assert set(bindings.bound) == {("a/old", 8080), ("a/old", 80), ("b/new", 8081)}
    assert [str(clash) for clash in bindings.clashes] == [
        "Gateway b/new: port 8080 (bound to 127.0.0.1:8080) is held by Gateway a/old (port 8080)",
        "Gateway b/new: port 10080 (bound to 127.0.0.1:10080) is held by Gateway a/old (port 80)",
    ]


def test_a_gateway_can_clash_with_itself() -> None:
    bindings = bind({"a/a": Wanted((), (80, 10080))})
    assert [clash.port for clash in bindings.clashes] == [10080]


@pytest.mark.parametrize(
    ("first", "second", "clashes"),
    [
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "0.0.0.0", False),
        ("::", "::1", True),
    ],
)
def test_a_wildcard_address_clashes_with_every_one_of_its_family(first: str, second: str, clashes: bool) -> None:
    bindings = bind({"a/a": Wanted((first,), (8080,)), "b/b": Wanted((second,), (8080,))})
    assert bool(bindings.clashes) is clashes


def test_a_busy_port_is_found_with_who_holds_it() -> None:
    port = free_port()
    bindings = bind({"a/a": Wanted((), (port,))})
    assert busy(bindings) == ()
    with socket.socket() as holder:
        # As Envoy does it: two of them would share the port in silence.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        (clash,) = busy(bindings)
        assert f"held by process {os.getpid()} (" in str(clash)
        assert holder_of(port) is not None
    assert busy(bindings) == ()


def test_an_address_that_this_machine_does_not_have_is_said_to_be_that() -> None:
    (clash,) = busy(bind({"a/a": Wanted(("192.0.2.1",), (8080,))}))
    assert "this machine does not have that address" in str(clash)
    assert busy(Bindings()) == ()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:18000", TcpAddress("127.0.0.1", 18000)),
        ("xds.example:1", TcpAddress("xds.example", 1)),
        ("[::1]:18000", TcpAddress("::1", 18000)),
        ("unix:/run/xds.sock", UnixAddress("/run/xds.sock")),
    ],
)
def test_an_address_reads_and_prints_alike(text: str, address: object) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "a:0", "a:65536", "a:x", "::1:80", "unix:", "unix:rel", "unix:/" + "a" * 120]
)
def test_a_bad_address_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"not|no host"):
        parse_address(text)

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from controlplane.provision.address import TcpAddress, UnixAddress
from controlplane.provision.bootstrap import LOOPBACK_ADMIN, XdsTls, bootstrap, bootstrap_yaml, fill, secret_files
from tests.support.certificates import Authority
from tests.support.envoy import Envoy, validate

UNIX = UnixAddress("/run/dragoman/xds.sock")


@pytest.mark.parametrize("xds", [UNIX, TcpAddress("127.0.0.1", 18000), TcpAddress("xds.example", 18000)], ids=str)
@pytest.mark.parametrize("admin", [None, LOOPBACK_ADMIN, UnixAddress("/tmp/dragoman-admin.sock")], ids=str)
def test_envoy_accepts_the_bootstrap(xds: TcpAddress | UnixAddress, admin: TcpAddress | UnixAddress | None) -> None:
    text = bootstrap_yaml(bootstrap("demo/edge", xds=xds, node_id="edge-1", admin=admin, max_heap_bytes=1 << 30))
    accepted, message = validate(text)
    assert accepted, message
    assert "deprecated" not in message.lower()
    assert "removed guard" not in message


def test_envoy_accepts_mutual_tls_to_the_control_plane(authority: Authority, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text(authority.cert_pem)
    cert, key = authority.leaf("spiffe://example/edge").write(tmp_path)
    tls = XdsTls(str(ca), "xds.example", str(cert), str(key))
    accepted, message = validate(bootstrap("demo/edge", xds=TcpAddress("xds.example", 1), xds_tls=tls))
    assert accepted, message


def test_envoy_accepts_a_token_and_authorities_that_are_followed(authority: Authority, tmp_path: Path) -> None:
    tls = XdsTls("unused", "xds.example", token_file=f"{tmp_path}/token", secrets_folder=str(tmp_path))
    for name, document in secret_files(tls, authority.cert_pem).items():
        (tmp_path / name).write_text(bootstrap_yaml(document))
    accepted, message = validate(bootstrap("demo/edge", xds=TcpAddress("xds.example", 1), xds_tls=tls))
    assert accepted, message
    assert "deprecated" not in message.lower()


@pytest.mark.parametrize("path", ["token", '/a"b', "/a\nb", "/a]]b", ""])
def test_the_path_of_a_token_cannot_become_code(path: str) -> None:
    with pytest.raises(ValueError, match="plain"):
        XdsTls("/ca.crt", "xds.example", token_file=path)


def test_the_node_says_which_gateway_it_belongs_to() -> None:
    document = bootstrap("demo/edge", xds=UNIX, node_id="edge-1", metadata={"zone": "a"})
    assert document["node"]["cluster"] == "demo/edge"
    assert document["node"]["id"] == "edge-1"
    assert document["node"]["metadata"] == {"dragoman.dev/gateway": "demo/edge", "zone": "a"}


def test_a_value_cannot_change_the_structure_of_the_bootstrap() -> None:
    evil = 'x", "admin": {"address": ${xds}}\n  - evil: true'
    document = yaml.safe_load(bootstrap_yaml(bootstrap("demo/edge", xds=UNIX, node_id=evil, admin=None)))
    assert document["node"]["id"] == evil
    assert "admin" not in document


def test_a_template_that_asks_for_an_unknown_value_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        fill({"a": ["${nonsense}"]}, {})


@pytest.mark.parametrize("gateway", ["", "edge", "/edge", "demo/", "a/b/c"])
def test_a_gateway_has_a_namespace_and_a_name(gateway: str) -> None:
    with pytest.raises(ValueError, match="NAMESPACE/NAME"):
        bootstrap(gateway, xds=UNIX)


async def test_an_envoy_without_its_control_plane_lives_but_is_not_ready(tmp_path: Path) -> None:
    envoy = Envoy(bootstrap("demo/edge", xds=UNIX, admin=UnixAddress(str(tmp_path / "a.sock"))))
    try:
        await envoy.start(ready=False)
        response = await envoy.admin("/ready")
        assert (response.status, response.text.strip()) == (503, "PRE_INITIALIZING")
        await envoy.stat_reaches("cluster.dragoman-xds.upstream_cx_connect_fail", 2)
    finally:
        await envoy.stop()

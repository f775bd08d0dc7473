# pyright: standard, reportAttributeAccessIssue=false
"""Which resources are left out of what is kept: those with private keys and credentials, and no others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.basic_auth.v3.basic_auth_pb2 import BasicAuth
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from xds.type.v3.typed_struct_pb2 import TypedStruct

from controlplane.kept.secrets import Secrets
from controlplane.xds.resources import CLUSTER, EXTENSION_CONFIG, LISTENER, ROUTE, SECRET, Resource
from tests.unit.golden.test_golden import CASES, FOLDER, compiled

SECRET_WORDS = (b"PRIVATE KEY", b"BEGIN RSA")


def resource(type_url: str, message: Message) -> Resource:
    return Resource.of(type_url, "x", message.SerializeToString())


def packed(message: Message) -> Any:
    found = Any()
    found.Pack(message)
    return found


def is_left_out(type_url: str, message: Message) -> bool:
    return Secrets().are_in(resource(type_url, message))


def of_case(name: str) -> Mapping[tuple[str, str], Resource]:
    pipeline = compiled((FOLDER / f"{name}.in.yaml").read_text())
    snapshots = [*pipeline.snapshots.current().values(), *pipeline.guards.snapshots.current().values()]
    every = [each for snapshot in snapshots for found in snapshot.resources.values() for each in found.values()]
    return {(each.type_url.rpartition(".")[2], each.name): each for each in every}


@pytest.mark.parametrize("name", CASES)
def test_only_what_holds_a_credential_is_left_out_of_what_we_make(name: str) -> None:
    secrets = Secrets()
    for (kind, _), each in of_case(name).items():
        left_out = secrets.are_in(each)
        if any(word in each.body for word in SECRET_WORDS):
            assert left_out
        elif kind in ("Cluster", "ClusterLoadAssignment", "Listener", "TypedExtensionConfig", "RateLimitConfig"):
            assert not left_out, (kind, each.name)
        elif kind == "RouteConfiguration":
            assert left_out == (b"ApiKeyAuthPerRoute" in each.body)


def test_keys_of_clients_in_routes_and_policies_are_left_out() -> None:
    found = of_case("keys")
    secrets = Secrets()
    kinds = {kind for (kind, _), each in found.items() if secrets.are_in(each)}
    assert "RouteConfiguration" in kinds


def test_a_private_key_is_a_secret_and_an_authority_is_not() -> None:
    key = Secret(name="x", tls_certificate={"private_key": {"inline_bytes": b"k"}, "certificate_chain": {}})
    authority = Secret(name="x", validation_context={"trusted_ca": {"inline_string": "PEM"}})
    assert is_left_out(SECRET, key)
    assert not is_left_out(SECRET, authority)


def test_a_key_that_a_patch_has_put_into_a_listener_is_found() -> None:
    tls = DownstreamTlsContext()
    tls.common_tls_context.tls_certificates.add(private_key={"inline_string": "k"})
    listener = Listener(name="x")
    listener.filter_chains.add().transport_socket.typed_config.CopyFrom(packed(tls))
    assert is_left_out(LISTENER, listener)
    del tls.common_tls_context.tls_certificates[:]
    tls.common_tls_context.tls_certificate_sds_secret_configs.add(name="demo/cert")
    listener.filter_chains[0].transport_socket.typed_config.CopyFrom(packed(tls))
    assert not is_left_out(LISTENER, listener)


def test_credentials_of_a_filter_are_found_however_deep_they_are_packed() -> None:
    users = packed(BasicAuth(users={"inline_string": "ann:hash"}))
    assert is_left_out(EXTENSION_CONFIG, TypedExtensionConfig(name="x", typed_config=users))
    inside = TypedExtensionConfig(name="inner", typed_config=users)
    assert is_left_out(EXTENSION_CONFIG, TypedExtensionConfig(name="x", typed_config=packed(inside)))
    without = packed(BasicAuth(forward_username_header="x-user"))
    assert not is_left_out(EXTENSION_CONFIG, TypedExtensionConfig(name="x", typed_config=without))


def test_the_key_of_a_grpc_service_is_found_in_a_field_of_the_resource_itself() -> None:
    cluster = Cluster(name="x")
    grpc = cluster.eds_cluster_config.eds_config.api_config_source.grpc_services.add().google_grpc
    grpc.target_uri = "example.com"
    assert not is_left_out(CLUSTER, cluster)
    grpc.call_credentials.add(access_token="t")
    assert is_left_out(CLUSTER, cluster)


def test_what_cannot_be_judged_is_left_out() -> None:
    struct = Struct()
    struct["password"] = "p"
    opaque = packed(TypedStruct(type_url="type.googleapis.com/anything", value=struct))
    assert is_left_out(EXTENSION_CONFIG, TypedExtensionConfig(name="x", typed_config=opaque))
    unknown = Any(type_url="type.googleapis.com/envoy.extensions.not.known.Yet", value=b"\x0a\x01x")
    assert is_left_out(EXTENSION_CONFIG, TypedExtensionConfig(name="x", typed_config=unknown))
    assert Secrets().are_in(Resource.of("type.googleapis.com/not.Known", "x", b""))
    assert Secrets().are_in(Resource.of(ROUTE, "x", b"\xff\xff\xff"))


def test_every_mark_of_our_own_names_a_field_that_there_is() -> None:
    import importlib

    from google.protobuf.descriptor_pool import Default

    from controlplane.kept import secrets

    for package in ("access_token", "google_iam", "google_refresh_token", "service_account_jwt_access"):
        stem = f"envoy.extensions.grpc_service.call_credentials.{package}.v3.{package}"
        importlib.import_module(f"{stem}_credentials_pb2")
    importlib.import_module("envoy.config.trace.v3.lightstep_pb2")
    importlib.import_module("envoy.extensions.filters.http.aws_lambda.v3.aws_lambda_pb2")
    importlib.import_module("envoy.config.core.v3.grpc_service_pb2")
    importlib.import_module("envoy.extensions.filters.http.api_key_auth.v3.api_key_auth_pb2")
    importlib.import_module("dragoman.protos.dragoman.authz.v1.policy_pb2")
    for name in secrets._UNMARKED:  # pyright: ignore[reportPrivateUsage]
        assert Default().FindFieldByName(name).full_name == name

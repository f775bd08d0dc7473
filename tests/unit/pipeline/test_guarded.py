# pyright: standard, reportAttributeAccessIssue=false
"""After any sequence of edits, what Envoys are sent guards what policies say is to be guarded."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.api_key_auth.v3.api_key_auth_pb2 import ApiKeyAuthPerRoute
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthzPerRoute
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication, PerRouteConfig
from hypothesis import given, settings

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.api.securitypolicy import SecurityPolicy
from controlplane.compile.targets import of_spec
from controlplane.pipeline import Pipeline
from controlplane.xds import resources as xds
from controlplane.xds.resources import Snapshot
from tests.unit.pipeline.driver import Warm
from tests.unit.pipeline.edits import Edit, Put, batches, beginning

_JWT, _STRIPPED = "dragoman/jwt", "dragoman/identity-headers"
_KEYS, _AUTHZ, _RBAC = (f"envoy.filters.http.{name}" for name in ("api_key_auth", "ext_authz", "rbac"))
_GUARDS = {_JWT, _KEYS, _AUTHZ, _RBAC}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches)
def test_no_route_is_sent_without_what_guards_it(edits: list[list[Edit]]) -> None:
    warm = Warm()
    warm.take([Put(document) for document in beginning()])
    for batch in edits:
        warm.take(batch)
        pipeline = warm.engine.pipeline
        for gateway, snapshot in pipeline.snapshots.current().items():
            for route in _routes(snapshot):
                if _asks_for_a_guard(pipeline, gateway, route):
                    assert _GUARDS & route.typed_per_filter_config.keys() or _denies(route), route
            _agrees_with_itself(snapshot, pipeline)


def _routes(snapshot: Snapshot) -> Iterator[Route]:
    for resource in snapshot.of_type(xds.ROUTE).values():
        for host in RouteConfiguration.FromString(resource.body).virtual_hosts:
            yield from (route for route in host.routes if route.name)


def _denies(route: Route) -> bool:
    return route.direct_response.status in (500, 503) and "cannot decide" in route.direct_response.body.inline_string


def _asks_for_a_guard(pipeline: Pipeline, gateway: ObjectKey, route: Route) -> bool:
    """Reads the manifests anew. Policies that lost a conflict, or may be dropped, are left to other tests."""
    kind, namespace, name, rule = route.name.split("/")
    target = ObjectKey(GATEWAY_GROUP, kind, namespace, name)
    asked = False
    for key, admitted in pipeline.objects.everything():
        if key.kind != "SecurityPolicy":
            continue
        policy = pipeline.objects.get(key)
        if policy is None and admitted.object is None:
            about = admitted.targets
        else:
            about = of_spec((policy or admitted.object).spec, key.namespace)
        assert about is not None
        named = {(each.key, each.section) for each in about.named}
        labels = pipeline.objects.get(target).metadata.labels
        on_route = bool({(target, None), (target, rule)} & named) or any(
            key.namespace == target.namespace and each.kind == kind and each.matches(labels) for each in about.selectors
        )
        on_gateway = any(each.key == gateway for each in about.named) or any(
            each.kind == "Gateway" for each in about.selectors
        )
        if not (on_route or on_gateway):
            continue
        if policy is not None and (
            policy.spec.merge_type or policy.spec.drop_parent_authentication or policy.spec.allow_route_override
        ):
            return False
        whole_gateway = (gateway, None) in named
        if (on_route or whole_gateway) and _guards(policy) and not _lost(pipeline, key):
            asked = True
    return asked


def _guards(policy: SecurityPolicy | None) -> bool:
    if policy is None:
        return True
    spec = policy.spec
    return any((spec.jwt, spec.api_key_auth, spec.consumers, spec.authorization, spec.basic_auth))


def _lost(pipeline: Pipeline, key: ObjectKey) -> bool:
    return any(fault.reason == "Conflicted" for fault in pipeline.statuses.current()[key].faults())


def _agrees_with_itself(snapshot: Snapshot, pipeline: Pipeline) -> None:
    """What routes name is there, and no header that tells an identity gets past the gateway from outside."""
    extensions = snapshot.of_type(xds.EXTENSION_CONFIG)
    tokens, mutations = JwtAuthentication(), HeaderMutation()
    TypedExtensionConfig.FromString(extensions[_JWT].body).typed_config.Unpack(tokens)
    TypedExtensionConfig.FromString(extensions[_STRIPPED].body).typed_config.Unpack(mutations)
    stripped = {each.remove for each in mutations.mutations.request_mutations}
    told = {each.header_name.lower() for one in tokens.providers.values() for each in one.claim_to_headers}
    policies = pipeline.guards.snapshots.current()["dragoman.services/authz"].of_type(xds.AUTHZ_POLICY)
    if not any(True for _ in pipeline.guards.lingering.items()):
        assert told <= stripped
    for route in _routes(snapshot):
        settings_of = route.typed_per_filter_config
        if _JWT in settings_of:
            required = PerRouteConfig()
            settings_of[_JWT].Unpack(required)
            assert required.requirement_name in tokens.requirement_map
        if _KEYS in settings_of:
            keys = ApiKeyAuthPerRoute()
            settings_of[_KEYS].Unpack(keys)
            assert {keys.forwarding.header.lower()} - {""} <= stripped
        if _AUTHZ in settings_of:
            asked = ExtAuthzPerRoute()
            settings_of[_AUTHZ].Unpack(asked)
            assert asked.check_settings.context_extensions["policy"] in policies

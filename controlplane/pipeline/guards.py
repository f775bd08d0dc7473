"""What policies need beside the routes: extensions by ECDS, the clusters of the services, and what these are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

from controlplane import ir
from controlplane.api.meta import POLICY_GROUP, ObjectKey
from controlplane.compile import jwks
from controlplane.compile.policies import Merged
from controlplane.graph import Derived, Graph, Index, Table
from controlplane.pipeline.objects import Objects
from controlplane.translate import services
from controlplane.translate.filters import identity_headers, jwt, rate_limit_quota
from controlplane.xds import resources as xds
from controlplane.xds.identity import AUTHZ_OWNER, RATE_LIMIT_OWNER
from controlplane.xds.resources import Resource, Snapshot

SERVICES: Final = {services.AUTHZ_CLUSTER: AUTHZ_OWNER, services.RATE_LIMIT_CLUSTER: RATE_LIMIT_OWNER}
ServicePolicy = ir.KeyPolicy | ir.GlobalLimit
# Requests of that length make room when they end, also where the limit that they began under has been edited since.
_MAX_LINGER_S: Final = 3600.0
Used = ir.Jwt | ServicePolicy | str
"""A requirement, a policy of a service, or the name of a header that tells an identity."""
Required = ir.Jwt | ir.GlobalLimit
"""What routes name that comes by ECDS: a JWT requirement, limits of which Envoys enforce their shares."""


class Lingering(NamedTuple):
    """A requirement that no route of a Gateway names any more, but routes in force still may."""

    gateway: ObjectKey
    requirement: Required


class Guards:
    """Derived collections about the policies in force; `endpoints`, `tls`, `lingering`, `carried` are set from outside.

    `endpoints` has the addresses of each service (`dragoman-authz`, `dragoman-ratelimit`): `unix:PATH` or `HOST:PORT`;
    `tls` has by what a service is known that is spoken to in TLS.
    `lingering` holds requirements past their last reference, for as long as whoever sets it keeps them; `carried` has
    the JWT extension as Envoys of a Gateway had it before a restart.
    """

    def __init__(
        self,
        graph: Graph,
        objects: Objects,
        policies: Table[ObjectKey, None],
        *,
        gateways: Callable[[], Iterable[ObjectKey]],
        merges: Callable[[ObjectKey], Iterable[tuple[ObjectKey, Merged]]],
    ) -> None:
        """`merges` yields what a policy has a part in, on listeners and on routes, each with its Gateway."""
        self._objects = objects
        self._clusters = (*SERVICES, *((services.QUOTA_CLUSTER,) if objects.quota_mode else ()))
        self._merges = merges
        self.endpoints: Table[str, tuple[str, ...]] = graph.table("service endpoints")
        self.tls: Table[str, services.ServiceTls] = graph.table("service TLS")
        self.lingering: Table[Lingering, None] = graph.table("lingering requirements")
        self.carried: Table[ObjectKey, bytes] = graph.table("carried requirements")
        self._uses: Index[ObjectKey | str, Used] = graph.group("uses", policies, self._used)
        self._left: Index[ObjectKey, Required] = graph.group(
            "left requirements", self.lingering, lambda key: [(key.gateway, key.requirement)]
        )
        self._required: Derived[ObjectKey, frozenset[Required]] = graph.derive("requirements", self._compute_required)
        self.required = graph.root(gateways, self._required)
        self._jwt: Derived[ObjectKey, Resource] = graph.derive("jwt extension", self._compute_jwt)
        self._stripped: Derived[ObjectKey, Resource] = graph.derive("header extension", self._compute_stripped)
        self._cluster: Derived[str, Resource] = graph.derive("service cluster", self._compute_cluster)
        self._assignment: Derived[str, Resource | None] = graph.derive("service endpoints", self._compute_assignment)
        self._quota: Derived[ObjectKey, Resource] = graph.derive("quota extension", self._compute_quota)
        self._policy: Derived[ServicePolicy, Resource] = graph.derive("service policy", _service_policy)
        self._service: Derived[str, Snapshot] = graph.derive("service snapshot", self._compute_service)
        self.snapshots = graph.root(lambda: SERVICES.values(), self._service)

    def extensions(self, gateway: ObjectKey) -> Iterable[Resource]:
        """Returns what a Gateway's Envoys are sent by ECDS."""
        found = (self._stripped.get(gateway), self._jwt.get(gateway))
        return (*found, self._quota.get(gateway)) if self._objects.quota_mode else found

    def clusters(self) -> Iterable[Resource]:
        """Returns the clusters of the services."""
        return (self._cluster.get(name) for name in self._clusters)

    def assignments(self) -> Iterable[Resource | None]:
        """Returns the endpoints of the services; None for one whose addresses Envoy resolves."""
        return (self._assignment.get(name) for name in self._clusters)

    def _used(self, policy: ObjectKey) -> Iterable[tuple[ObjectKey | str, Used]]:
        """Yields what the merges that a policy has a part in need: of their Gateways, and (by owner) of the services.

        By policy, not by route: what thousands of routes inherit is looked at once.
        """
        for gateway, merged in self._merges(policy):
            each = merged.policies
            yield from ((gateway, name) for name in each.identity_headers)
            if each.jwt is not None:
                yield gateway, each.jwt
            if each.keys is not None:
                yield AUTHZ_OWNER, each.keys
            if each.global_limit is not None:
                yield RATE_LIMIT_OWNER, each.global_limit
                if each.global_limit.has_quotas:
                    yield gateway, each.global_limit

    def _compute_required(self, gateway: ObjectKey) -> frozenset[Required]:
        return frozenset(each for each in self._uses.get(gateway) if isinstance(each, Required))

    def _compute_jwt(self, gateway: ObjectKey) -> Resource:
        wanted = sorted((each for each in self._named(gateway) if isinstance(each, ir.Jwt)), key=lambda each: each.id)
        body = jwt.extension_config(wanted, key_set=self._key_set)
        carried = self.carried.get(gateway)
        if carried is not None:
            body = jwt.carried_over(body, carried)
        return Resource.of(xds.EXTENSION_CONFIG, jwt.NAME, body, (str(gateway),))

    def _named(self, gateway: ObjectKey) -> set[Required]:
        """Returns what routes of a Gateway name, or those that it has not forgotten yet."""
        return {*self._required.get(gateway), *self._left.get(gateway)}

    def _key_set(self, source: ir.Jwks) -> str | None:
        if source.uri is None:
            return source.text
        fetched = self._objects.key_set(source.uri)
        return jwks.usable(fetched) if fetched is not None else None

    def _compute_stripped(self, gateway: ObjectKey) -> Resource:
        body = identity_headers.extension_config(each for each in self._uses.get(gateway) if isinstance(each, str))
        return Resource.of(xds.EXTENSION_CONFIG, identity_headers.NAME, body, (str(gateway),))

    def _compute_quota(self, gateway: ObjectKey) -> Resource:
        limits = (each for each in self._named(gateway) if isinstance(each, ir.GlobalLimit))
        body = rate_limit_quota.extension_config(limits)
        return Resource.of(xds.EXTENSION_CONFIG, rate_limit_quota.NAME, body, (str(gateway),))

    def _compute_cluster(self, name: str) -> Resource:
        body = services.cluster(name, self._addresses(name), tls=self.tls.get(name))
        return Resource.of(xds.CLUSTER, name, body)

    def _compute_assignment(self, name: str) -> Resource | None:
        addresses = self._addresses(name)
        if services.has_names(addresses):
            return None
        return Resource.of(xds.ENDPOINT, name, services.endpoints(name, addresses))

    def _addresses(self, name: str) -> tuple[str, ...]:
        addresses = self.endpoints.get(name) or ()
        # All Envoys report to one, so that what it divides is all there is.
        return tuple(sorted(addresses)[:1]) if name == services.QUOTA_CLUSTER else addresses

    def _compute_service(self, owner: str) -> Snapshot:
        type_url = xds.AUTHZ_POLICY if owner == AUTHZ_OWNER else xds.RATE_LIMIT_CONFIG
        served = (each for each in self._uses.get(owner) if isinstance(each, ServicePolicy))
        found = {each.name: each for each in map(self._policy.get, served)}
        typed: Mapping[str, Resource] = MappingProxyType({name: found[name] for name in sorted(found)})
        return Snapshot(MappingProxyType({type_url: typed}))


def _service_policy(source: ServicePolicy) -> Resource:
    if isinstance(source, ir.KeyPolicy):
        origin = f"SecurityPolicy {source.policy}"
        return Resource.of(xds.AUTHZ_POLICY, source.id, services.key_policy(source), (origin,))
    plans = source.plans.plans if source.plans is not None else ()
    origins = (*map(_policy_at, source.homes), *(f"Plan {each.origin}" for each in plans))
    made = Resource.of(xds.RATE_LIMIT_CONFIG, source.domain, services.rate_limit_config(source), origins)
    return replace(made, linger_s=min(services.longest_lease_s(source), _MAX_LINGER_S))


def _policy_at(home: str) -> str:
    *group, namespace, name = home.split("/")
    return str(ObjectKey(group[0] if group else POLICY_GROUP, "BackendTrafficPolicy", namespace, name))

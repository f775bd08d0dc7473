"""What an Ingress expands to: HTTPRoutes, a ListenerSet for each host with TLS, and policies where it asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from controlplane.api.ingress import HTTPIngressPath, Ingress, IngressBackend
from controlplane.api.meta import GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.compile.hints import BACKEND_PROTOCOL, IDLE_TIMEOUT
from controlplane.compile.hosts import ANY, candidates
from controlplane.compile.ingress_annotations import Settings, field_of, settings
from controlplane.compile.ingress_canaries import Backend, CanaryPath, split
from controlplane.compile.ingress_documents import Made, Place, document, name_for, placed, short
from controlplane.compile.ingress_hosts import hosts_of, tls_of
from controlplane.compile.ingress_paths import matched
from controlplane.compile.ingress_policies import policies
from controlplane.conditions import Condition, false

_MAX_RULES: Final = 16
_MAX_MATCHES: Final = 64
_MAX_PARENTS: Final = 32
_HTTPS_PORT: Final = 443

Port = Callable[[str, str], int | None]
"""Returns the number of a Service's port by the names of both; None where there is none."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """The Gateway that carries the Ingresses of a class: the names of its HTTP and of its HTTPS listeners."""

    gateway: ObjectKey
    http: tuple[str, ...] = ()
    https: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What an expansion depends on beside the Ingress; all of its namespace, and of the same Gateway."""

    carrier: Carrier
    port: Port
    owners: Mapping[str, tuple[str, str]]
    """Host (ANY for every one) → the Ingress whose certificate serves it, and its Secret."""
    canaries: Sequence[Ingress] = ()
    mains: frozenset[tuple[str, str]] = frozenset()
    """Host and path of every rule of an Ingress that is no canary."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What is made of an Ingress, and what of it has no effect."""

    made: tuple[Made, ...] = ()
    warnings: tuple[Condition, ...] = ()


def expand(ingress: Ingress, context: Context) -> Expansion:
    """Expands an Ingress; a function of its arguments alone."""
    return _Expander(ingress, context, settings(ingress.metadata.annotations)).expand()


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of an HTTPRoute, and where its parts are written."""

    document: Mapping[str, Any]
    places: tuple[tuple[str, Place], ...]


class _Expander:
    """One expansion as it goes on; warnings gather here."""

    def __init__(self, ingress: Ingress, context: Context, asked: Settings) -> None:
        self._ingress = ingress
        self._key = ingress.key
        self._context = context
        self._asked = asked
        self._canaries = [(each, settings(each.metadata.annotations)) for each in context.canaries]
        self._warnings: list[Condition] = list(asked.warnings)
        self._filters: dict[str, Made] = {}

    def expand(self) -> Expansion:
        if self._asked.canary is not None:
            self._tell_of_strays()
            return Expansion(warnings=tuple(self._warnings))
        made = list(self._listener_sets())
        routes: list[Made] = []
        for host, rules in self._rules().items():
            routes += self._routes(host, rules, short(host))
        default = self._default_backend()
        if default is not None:
            routes += self._routes(ANY, [default], "default")
        made += [
            *routes,
            *self._filters.values(),
            *policies(self._ingress, self._asked, [each for each in routes if not each.redirects]),
        ]
        return Expansion(tuple(made), tuple(dict.fromkeys(self._warnings)))

    # Paths

    def _rules(self) -> dict[str, list[_Rule]]:
        """Returns the rules of each host, every one of a path of the Ingress or of what a canary makes of it."""
        found: dict[str, list[_Rule]] = {}
        for host, field, path in hosts_of(self._ingress):
            rules = found.setdefault(host, self._app_root())
            rules += self._of_path(host, path, field)
        for index, rule in enumerate(self._ingress.spec.rules):
            host = (rule.host or ANY).lower()
            if rule.http is not None:
                continue
            default = self._default_backend(f"spec.rules[{index}]")
            if default is None:
                message = "there are no paths, and no default backend: the rule has no effect"
                self._warn("PartiallyInvalid", "NoBackend", message, f"spec.rules[{index}].http")
            elif host != ANY:
                found.setdefault(host, self._app_root()).append(default)
        return found

    def _app_root(self) -> list[_Rule]:
        if self._asked.app_root is None:
            return []
        path = {"type": "ReplaceFullPath", "replaceFullPath": self._asked.app_root}
        redirect = {"type": "RequestRedirect", "requestRedirect": {"path": path, "statusCode": 302}}
        match = {"path": {"type": "Exact", "value": "/"}}
        return [_Rule({"matches": [match], "filters": [redirect]}, (("", self._place(field_of("app-root"))),))]

    def _default_backend(self, field: str = "spec.defaultBackend") -> _Rule | None:
        backend = self._ingress.spec.default_backend
        if backend is None:
            return None
        rule = self._rule({"path": {"type": "PathPrefix", "value": "/"}}, [], [(backend, "spec.defaultBackend", 1)])
        return replace(rule, places=(("", self._place(field)), *rule.places))

    def _of_path(self, host: str, path: HTTPIngressPath, field: str) -> Iterator[_Rule]:
        found = matched(path, self._asked)
        match = {"path": dict(found.path)}
        filters: list[Mapping[str, Any]] = []
        if found.rewrite is not None:
            filters.append({"type": "URLRewrite", "urlRewrite": found.rewrite})
        if found.expression is not None:
            filters.append(self._rewrite(*found.expression))
        main = (path.backend, f"{field}.backend", 1)
        places = (
            ("", self._place(field)),
            ("matches[0].path", self._place(f"{field}.path")),
            *((f"filters[{index}]", self._place(field_of("rewrite-target"))) for index in range(len(filters))),
        )
        canary = self._canary_of(host, path.path)
        if canary is None:
            rule = self._rule(match, filters, [main])
            yield replace(rule, places=(*places, *rule.places))
            return
        for headers, backends in split(canary, main):
            rule = self._rule({**match, **({"headers": [headers]} if headers else {})}, filters, backends)
            by_header = Place(canary.ingress.key, field_of("canary-by-header"))
            yield replace(rule, places=(*places, ("matches[0].headers", by_header), *rule.places))

    def _rule(
        self, match: Mapping[str, Any], filters: Sequence[Mapping[str, Any]], backends: Sequence[Backend]
    ) -> _Rule:
        """Returns a rule that forwards, unless the annotations have it do something else."""
        asked = self._asked
        if asked.blocked:
            return _Rule({"matches": [match]}, ())
        if asked.redirect is not None:
            redirect = {"type": "RequestRedirect", "requestRedirect": asked.redirect}
            return _Rule({"matches": [match], "filters": [redirect]}, ())
        if asked.cors is not None:
            filters = [*filters, {"type": "CORS", "cors": asked.cors}]
        refs: list[Mapping[str, Any]] = []
        places: list[tuple[str, Place]] = []
        for backend, field, weight, *owner in backends:
            key = owner[0] if owner else self._key
            ref = self._ref(backend, Place(key, field))
            if ref is not None:
                places.append((f"backendRefs[{len(refs)}].port", Place(key, f"{field}.service.port")))
                places.append((f"backendRefs[{len(refs)}]", Place(key, f"{field}.service")))
                refs.append({**ref, "weight": weight} if len(backends) > 1 else ref)
        if asked.cors is not None:
            places.append(
                (f"filters[{len(filters) - 1}].cors.allowOrigins", self._place(field_of("cors-allow-origin")))
            )
            places.append((f"filters[{len(filters) - 1}]", self._place(field_of("enable-cors"))))
        made = {"matches": [match], "filters": [*filters], "backendRefs": refs, "timeouts": {"request": "0s"}}
        return _Rule(made, tuple(places))

    def _ref(self, backend: IngressBackend, place: Place) -> Mapping[str, Any] | None:
        """Returns a backend reference; None, told, where there can be none: the rule then answers with 500."""
        service = backend.service
        if service is None:
            message = "backends that are no Services are not supported: requests are answered with 500"
            self._warn("NotSupported", "UnsupportedField", message, f"{place.field}.resource", place.ingress)
            return None
        number = service.port.number or self._context.port(service.name, service.port.name)
        if number is None:
            where = f"{self._key.namespace}/{service.name}"
            message = f"Service {where} has no port {service.port.name}, or does not exist"
            field = f"{place.field}.service.port.name"
            self._warn("ResolvedRefs", "BackendNotFound", message, field, place.ingress)
            return None
        return {"name": service.name, "port": number}

    def _rewrite(self, pattern: str, substitution: str) -> Mapping[str, Any]:
        part = f"rewrite-{short(f'{pattern} {substitution}')}"
        changed = {"type": "ReplaceRegexMatch", "replaceRegexMatch": {"pattern": pattern, "substitution": substitution}}
        spec = {"urlRewrite": {"path": changed}}
        made = document(self._ingress, POLICY_GROUP, "HTTPRouteFilter", part, spec)
        self._filters[part] = placed(made, [("", self._place(field_of("rewrite-target")))])
        ref = {"group": POLICY_GROUP, "kind": "HTTPRouteFilter", "name": name_for(self._ingress, part)}
        return {"type": "ExtensionRef", "extensionRef": ref}

    # Canaries

    def _canary_of(self, host: str, path: str) -> CanaryPath | None:
        for ingress, asked in self._canaries:
            for its_host, field, its_path in hosts_of(ingress):
                if (its_host, its_path.path) == (host, path) and asked.canary is not None:
                    return CanaryPath(ingress, asked, its_path.backend, f"{field}.backend")
        return None

    def _tell_of_strays(self) -> None:
        for host, field, path in hosts_of(self._ingress):
            if (host, path.path) not in self._context.mains:
                message = (
                    f"no Ingress of this namespace has the path {path.path or '/'} on this host, to be a canary of"
                )
                self._warn("PartiallyInvalid", "NoMainIngress", message, f"{field}.path")

    # Routes

    def _routes(self, host: str, rules: Sequence[_Rule], part: str) -> Iterator[Made]:
        """Yields the routes of a host: what forwards, and what redirects to HTTPS where plain HTTP is not wanted."""
        plain, secure = self._parents(host)
        wanted = self._redirected(host, secure)
        if wanted and not secure and not self._context.carrier.https:
            message = f"requests for {host} are sent to HTTPS, which nothing serves: no certificate is named for it"
            self._warn("PartiallyInvalid", "NoCertificate", message, field_of("force-ssl-redirect"))
        forward = [*secure, *(self._sections(self._context.carrier.https) if wanted else plain)]
        hostnames = {} if host == ANY else {"hostnames": [host]}
        for index in range(0, len(rules) if forward else 0, _MAX_RULES):
            some = rules[index : index + _MAX_RULES]
            spec = {"parentRefs": forward[:_MAX_PARENTS], **hostnames, "rules": [each.document for each in some]}
            yield self._route(spec, host, some, f"{part}-{index // _MAX_RULES}")
        if len(forward) > _MAX_PARENTS:
            message = f"more than {_MAX_PARENTS} hosts with TLS share the rules that name no host: some are left out"
            self._warn("PartiallyInvalid", "TooManyHosts", message, "spec.tls")
        yield from self._redirects(wanted, rules, part)

    def _redirects(self, hosts: Sequence[str], rules: Sequence[_Rule], part: str) -> Iterator[Made]:
        parents = self._sections(self._context.carrier.http)
        if not hosts or not parents:
            return
        to_https = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 308}}
        matches = list({str(match): match for rule in rules for match in rule.document["matches"]}.values())
        names = [each for each in hosts if each != ANY]
        for index in range(0, len(matches), _MAX_MATCHES):
            rule = {"matches": matches[index : index + _MAX_MATCHES], "filters": [to_https]}
            for first in range(0, max(len(names), 1), 16):
                some = {"hostnames": names[first : first + 16]} if names else {}
                spec = {"parentRefs": parents[:_MAX_PARENTS], **some, "rules": [rule]}
                made = self._route(spec, hosts[0], rules[:1], f"{part}-redirect-{index // _MAX_MATCHES}-{first // 16}")
                yield replace(made, redirects=True)

    def _route(self, spec: Mapping[str, Any], host: str, rules: Sequence[_Rule], part: str) -> Made:
        asked = self._asked
        annotations = {IDLE_TIMEOUT: _seconds(asked.idle_s)}
        if asked.protocol != "HTTP":
            annotations[BACKEND_PROTOCOL] = asked.protocol
        made = document(self._ingress, GATEWAY_GROUP, "HTTPRoute", part, spec, annotations)
        places = [("spec.parentRefs", self._place("spec.ingressClassName")), ("", self._place("spec"))]
        for index, rule in enumerate(self._ingress.spec.rules):
            if (rule.host or ANY).lower() == host:
                places[1:1] = [("spec.hostnames", self._place(f"spec.rules[{index}].host"))]
                break
        for index, rule in enumerate(rules):
            places += [(f"spec.rules[{index}]" + (f".{at}" if at else ""), place) for at, place in rule.places]
        return placed(made, places)

    def _parents(self, host: str) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]]]:
        """Returns where a host is served: on every listener of the Gateway, and on those of its certificates."""
        gateway = self._context.carrier.gateway
        plain: list[Mapping[str, str]] = [{"name": gateway.name, "namespace": gateway.namespace}]
        owners = self._context.owners
        if host == ANY:
            wanted = [each for each in self._tls_hosts() if each in owners]
            wanted += [ANY] if ANY in owners and ANY not in wanted else []
        else:
            wanted = [next(each for each in candidates(host) if each in owners)] if self._is_owned(host) else []
        return plain, [
            {"kind": "ListenerSet", "name": name_for(owners[each][0], f"tls-{short(each)}")} for each in wanted
        ]

    def _is_owned(self, host: str) -> bool:
        return any(each in self._context.owners for each in candidates(host))

    def _redirected(self, host: str, secure: Sequence[Mapping[str, str]]) -> list[str]:
        """Returns the hosts whose plain requests are sent to HTTPS: of rules for every host, those that have TLS."""
        asked = self._asked
        if asked.force_ssl_redirect:
            return [host]
        if not asked.ssl_redirect:
            return []
        if host != ANY:
            bare = bool(self._context.carrier.https) and any(each in self._tls_hosts() for each in candidates(host))
            return [host] if secure or bare else []
        if ANY in self._context.owners:
            return [ANY]
        return []

    def _sections(self, names: Sequence[str]) -> list[Mapping[str, str]]:
        gateway = self._context.carrier.gateway
        return [{"name": gateway.name, "namespace": gateway.namespace, "sectionName": name} for name in names]

    # TLS

    def _tls_hosts(self) -> list[str]:
        return list(dict.fromkeys(host for host, _, _, _ in tls_of(self._ingress)))

    def _listener_sets(self) -> Iterator[Made]:
        """Yields a ListenerSet for each host whose certificate is this Ingress's to give."""
        gateway = self._context.carrier.gateway
        done: set[str] = set()
        for host, field, secret_name, host_field in tls_of(self._ingress):
            owner = self._context.owners.get(host)
            if not secret_name:
                self._tell_of_missing_secret(field, host)
            elif owner is not None and owner != (self._key.name, secret_name):
                message = (
                    f"Ingress {owner[0]} has this host and comes first: its certificate of Secret {owner[1]} serves"
                )
                self._warn("Conflicted", "HostnameConflict", message, host_field)
            elif owner is not None and host not in done:
                done.add(host)
                listener = {
                    "name": "https",
                    "port": _HTTPS_PORT,
                    "protocol": "HTTPS",
                    **({} if host == ANY else {"hostname": host}),
                    "tls": {"certificateRefs": [{"name": secret_name}]},
                }
                ref = {"name": gateway.name, "namespace": gateway.namespace}
                spec = {"parentRef": ref, "listeners": [listener]}
                made = document(self._ingress, GATEWAY_GROUP, "ListenerSet", f"tls-{short(host)}", spec)
                places = [
                    ("", self._place(field)),
                    ("spec.parentRef", self._place("spec.ingressClassName")),
                    ("spec.listeners[0].hostname", self._place(host_field)),
                    ("spec.listeners[0].tls", self._place(f"{field}.secretName")),
                ]
                yield placed(made, places)

    def _tell_of_missing_secret(self, field: str, host: str) -> None:
        if not self._context.carrier.https and host not in self._context.owners:
            message = f"no Secret is named, and {self._context.carrier.gateway} has no HTTPS listener of its own"
            self._warn("PartiallyInvalid", "NoCertificate", message, f"{field}.secretName")

    # Words

    def _place(self, field: str) -> Place:
        return Place(self._key, field)

    def _warn(self, type_: str, reason: str, message: str, field: str, about: ObjectKey | None = None) -> None:
        if about not in (None, self._key):
            message, field = f"{about} {field}: {message}", ""
        bad = Condition(type_, "True", reason, message, field)
        self._warnings.append(false(type_, reason, message, field) if type_ == "ResolvedRefs" else bad)


def _seconds(number: int) -> str:
    return f"{number // 3600}h{number % 3600 // 60}m{number % 60}s" if number > 99_999 else f"{number}s"

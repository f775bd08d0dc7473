from __future__ import annotations

from typing import Any

import pytest

from controlplane.api import KINDS
from controlplane.api.fields import unsupported_fields
from tests.unit.api.manifests import accept, fault, policy, read

TARGET = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}


@pytest.mark.parametrize("group", ["dragoman.dev", "gateway.envoyproxy.io"])
def test_a_security_policy_reads_the_same_in_both_groups(group: str) -> None:
    spec = accept(
        policy(
            "SecurityPolicy",
            """
jwt:
  optional: true
  providers:
  - name: idp
    issuer: https://idp.example
    audiences: [api]
    remoteJWKS: {uri: "https://idp.example/jwks.json", cacheDuration: 5m}
    claimToHeaders: [{claim: org.name, header: x-org}]
    recomputeRoute: true
    extractFrom: {headers: [{name: Authorization, valuePrefix: "Bearer "}], cookies: [t], params: [t]}
  - name: local
    localJWKS: {inline: '{"keys": []}'}
apiKeyAuth:
  credentialRefs: [{name: keys}]
  extractFrom: [{headers: [x-api-key]}, {params: [key]}]
  forwardClientIDHeader: x-client
  sanitize: true
cors: {allowOrigins: ["https://*.example.com"], allowMethods: [GET], maxAge: 10m, allowCredentials: true}
authorization:
  defaultAction: Deny
  rules:
  - name: office
    action: Allow
    operation: {methods: [GET]}
    principal:
      clientCIDRs: [10.0.0.0/8, "2001:db8::/32"]
      jwt: {provider: idp, scopes: [read], claims: [{name: roles, valueType: StringArray, values: [admin]}]}
      headers: [{name: x-team, values: [a]}]
""",
            group,
        )
    ).spec
    assert spec.jwt.providers[0].remote_jwks.cache_duration == "5m"
    assert spec.jwt.providers[1].local_jwks.type == "Inline"
    assert spec.api_key_auth.forward_client_id_header == "x-client"
    assert spec.authorization.rules[0].principal.client_cidrs == ("10.0.0.0/8", "2001:db8::/32")
    assert spec.targets[0].name == "open"


def test_keys_that_are_made_at_run_time_have_defaults_that_are_safe() -> None:
    consumers = accept(
        policy("SecurityPolicy", "consumers: {requiredScopes: [a], metadataToHeaders: [{key: plan, header: x-plan}]}")
    ).spec.consumers
    assert consumers.extract_from[0].headers == ("x-api-key",)
    assert consumers.sanitize
    assert consumers.required_scopes == ("a",)


def test_limits_are_read_with_our_additions() -> None:
    limit = accept(
        policy(
            "BackendTrafficPolicy",
            """
rateLimit:
  type: Global
  global:
    failureMode: Closed
    rules:
    - clientSelectors:
      - headers: [{name: x-user, type: Distinct}, {name: x-plan, value: free, invert: true}]
        methods: [{value: POST}]
        path: {type: Exact, value: /pay}
        sourceCIDR: {type: Distinct, value: 0.0.0.0/0}
        queryParams: [{name: q, type: RegularExpression, value: a+}]
      limit: {requests: 5, unit: Minute}
      cost: {request: {from: Number, number: 2}}
      shared: true
      algorithm: TokenBucket
      burst: 10
  local: {rules: [{limit: {requests: 100, unit: Second}}]}
""",
        )
    ).spec.rate_limit
    rule = limit.global_.rules[0]
    assert limit.global_.failure_mode == "Closed"
    assert (rule.algorithm, rule.burst, rule.shared, rule.cost.request.number) == ("TokenBucket", 10, True, 2)
    assert [header.type for header in rule.client_selectors[0].headers] == ["Distinct", "Exact"]
    assert limit.local.rules[0].limit.unit == "Second"


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/255.0.0.0", "10.0.0.0/0.0.0.255", "fe80::1%eth0/64", "::/129"])
def test_a_range_of_addresses_has_a_length(text: str) -> None:
    rule = f"{{limit: {{requests: 1, unit: Day}}, clientSelectors: [{{sourceCIDR: {{value: '{text}'}}}}]}}"
    path, message = fault(policy("BackendTrafficPolicy", f"rateLimit: {{global: {{rules: [{rule}]}}}}"))
    assert path == "spec.rateLimit.global.rules[0].clientSelectors[0].sourceCIDR.value"
    assert "expected a range of addresses" in message


def test_claims_costs_and_limits_from_metadata_are_read() -> None:
    limit = accept(
        policy(
            "BackendTrafficPolicy",
            """
rateLimit:
  global:
    rules:
    - clientSelectors:
      - claims: [{name: sub, type: Distinct}, {name: groups, valueType: StringArray, values: [a], invert: true}]
        sourceCIDR: {value: 10.0.0.0/8, invert: true}
      limit: {requests: 5, unit: Minute, fromMetadata: {namespace: ext.proc, key: limit}}
      cost:
        request: {from: Number, number: 0}
        response: {from: Metadata, metadata: {namespace: ext.proc, key: "usage:total"}}
      shadowMode: true
      xRateLimitHeaders: "Off"
""",
        )
    ).spec.rate_limit
    (rule,) = limit.global_.rules
    assert [each.type for each in rule.client_selectors[0].claims] == ["Distinct", "Exact"]
    assert rule.client_selectors[0].source_cidr.invert
    assert rule.limit.from_metadata.key == "limit"
    assert (rule.cost.request.number, rule.cost.response.metadata.key) == (0, "usage:total")
    assert (rule.shadow_mode, rule.x_rate_limit_headers) == (True, "Off")


@pytest.mark.parametrize(
    ("kind", "spec", "path", "message"),
    [
        ("SecurityPolicy", "jwt: {providers: []}", "jwt.providers", "expected at least 1 entry"),
        ("SecurityPolicy", "jwt: {providers: [{name: a}]}", "jwt.providers[0]", "either remoteJWKS or localJWKS"),
        (
            "SecurityPolicy",
            "jwt: {providers: [{name: a, remoteJWKS: {uri: idp.example}}]}",
            "jwt.providers[0].remoteJWKS.uri",
            "expected an http or https URL",
        ),
        (
            "SecurityPolicy",
            "jwt: {providers: [{name: a, localJWKS: {type: ValueRef, inline: x}}]}",
            "jwt.providers[0].localJWKS.inline",
            "type ValueRef must not have inline",
        ),
        (
            "SecurityPolicy",
            "jwt: {providers: [{name: a, localJWKS: {inline: x}}, {name: a, localJWKS: {inline: x}}]}",
            "jwt.providers[1]",
            "duplicate provider 'a'",
        ),
        (
            "SecurityPolicy",
            "apiKeyAuth: {credentialRefs: [{name: a}], extractFrom: [{headers: [a], params: [b]}]}",
            "apiKeyAuth.extractFrom[0]",
            "set exactly one of headers, params and cookies",
        ),
        (
            "SecurityPolicy",
            "authorization: {rules: [{action: Allow, principal: {clientCIDRs: [10.0.0.1]}}]}",
            "authorization.rules[0].principal.clientCIDRs[0]",
            "expected a range of addresses",
        ),
        (
            "SecurityPolicy",
            "authorization: {rules: [{action: Allow, principal: {}}]}",
            "authorization.rules[0].principal",
            "set at least one of clientCIDRs, jwt and headers",
        ),
        ("SecurityPolicy", "cors: {allowOrigins: [a.example]}", "cors.allowOrigins[0]", "expected an origin"),
        ("SecurityPolicy", "jwts: {}", "jwts", "unknown field; did you mean `jwt`?"),
        (
            "BackendTrafficPolicy",
            "rateLimit: {global: {rules: [{limit: {requests: 5, unit: Fortnight}}]}}",
            "rateLimit.global.rules[0].limit.unit",
            "expected one of Second, Minute, Hour, Day, Week, Month, Year; got 'Fortnight'",
        ),
        (
            "BackendTrafficPolicy",
            "rateLimit: {global: {rules: [{limit: {requests: -5, unit: Day}}]}}",
            "rateLimit.global.rules[0].limit.requests",
            "expected at least 0",
        ),
        (
            "BackendTrafficPolicy",
            "rateLimit: {global: {rules: [{burst: 5, limit: {requests: 5, unit: Day}}]}}",
            "rateLimit.global.rules[0].burst",
            "burst needs algorithm TokenBucket",
        ),
        *(
            (
                "BackendTrafficPolicy",
                f"rateLimit: {{global: {{plans: {plans}}}}}",
                f"rateLimit.global.plans.{path}",
                message,
            )
            for plans, path, message in (
                ("{}", "default", "required"),
                ("{default: a, identity: {provider: p}}", "identity.provider", "provider goes with from Token"),
                ("{default: a, identity: {consumer: c}}", "identity.consumer", "the consumer of a key is known"),
                (
                    "{default: a, identity: {from: Headers, plan: x-p}}",
                    "identity.consumer",
                    "from Headers needs consumer",
                ),
                (
                    "{default: a, identity: {from: Headers, plan: 'x p', consumer: x-c}}",
                    "identity.plan",
                    "expected a header name",
                ),
                ("{default: a, refs: [{name: b}]}", "default", "'a' is none of refs"),
                ("{default: a, refs: [{name: a}, {name: a, namespace: b}]}", "refs[1].name", "called 'a', too"),
            )
        ),
        *(
            (
                "BackendTrafficPolicy",
                f"rateLimit: {{global: {{rules: [{{{fields}, limit: {{requests: 5, unit: Day}}}}]}}}}",
                f"rateLimit.global.rules[0].{path}",
                message,
            )
            for fields, path, message in (
                ("delay: 1s", "delay", "delay needs algorithm LeakyBucket"),
                ("algorithm: LeakyBucket, delay: 11s", "delay", "expected at most 10s"),
                ("leaseTime: 5s", "leaseTime", "leaseTime needs algorithm Concurrency"),
                ("algorithm: Concurrency, leaseTime: 25h", "leaseTime", "expected 1s to 24h"),
                ("precision: Lease", "leaseSize", "precision Lease needs leaseSize"),
                ("leaseSize: 5", "leaseSize", "precision Exact must not have leaseSize"),
                ("algorithm: Concurrency, precision: Lease, leaseSize: 5", "precision", "it has no leases"),
                ("algorithm: LeakyBucket, mode: Quota", "mode", "it has no quotas"),
                ("onStoreError: Wait", "onStoreError", "expected one of Allow, Deny, Local"),
            )
        ),
        (
            "BackendTrafficPolicy",
            "rateLimit: {local: {rules: [{algorithm: TokenBucket, limit: {requests: 5, unit: Day}}]}}",
            "rateLimit.local.rules[0].algorithm",
            "unknown field",
        ),
        (
            "BackendTrafficPolicy",
            "rateLimit: {type: Local, global: {rules: []}}",
            "rateLimit.global.rules",
            "set rules, plans or both",
        ),
        ("BackendTrafficPolicy", "rateLimit: {}", "rateLimit", "set global, local or both"),
        (
            "BackendTrafficPolicy",
            "rateLimit: {global: {rules: [{clientSelectors: [{headers: [{name: a, type: Distinct, value: b}]}], "
            "limit: {requests: 5, unit: Day}}]}}",
            "rateLimit.global.rules[0].clientSelectors[0].headers[0].value",
            "must not be set for type Distinct",
        ),
        ("BackendTrafficPolicy", "retry: 5", "retry", "expected a mapping"),
        ("BackendTrafficPolicy", "retries: {}", "retries", "unknown field; did you mean `retry`?"),
        ("BackendTrafficPolicy", "mergeType: Deep", "mergeType", "expected one of StrategicMerge, JSONMerge"),
    ],
)
def test_a_policy_that_cannot_be_is_a_fault_that_names_the_field(kind: str, spec: str, path: str, message: str) -> None:
    found_path, found_message = fault(policy(kind, spec))
    assert found_path == f"spec.{path}"
    assert message in found_message


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({}, "spec.targetRefs", "needs targetRefs or targetSelectors"),
        ({"targetRef": TARGET, "targetRefs": [TARGET]}, "spec.targetRef", "not both"),
        ({"targetRefs": [{**TARGET, "group": ""}]}, "spec.targetRefs[0].group", "expected 'gateway.networking.k8s.io'"),
        ({"targetRefs": [{**TARGET, "kind": "Service"}]}, "spec.targetRefs[0].kind", "applies to Gateway, ListenerSet"),
        ({"targetRefs": [TARGET, TARGET]}, "spec.targetRefs[1]", "duplicate reference to Gateway 'edge'"),
        ({"targetRefs": [{**TARGET, "namespace": "other"}]}, "spec.targetRefs[0].namespace", "unknown field"),
        ({"targetRefs": [TARGET], "mergeType": "JSONMerge"}, "spec.mergeType", "has no parent to merge into"),
    ],
)
def test_a_policy_must_say_what_it_applies_to(spec: dict[str, Any], path: str, message: str) -> None:
    found_path, found_message = fault({**policy("SecurityPolicy", "{}"), "spec": spec})
    assert found_path == path
    assert message in found_message


def test_targets_can_be_given_by_label() -> None:
    selector = {"kind": "HTTPRoute", "matchLabels": {"team": "a"}}
    loaded = accept({**policy("SecurityPolicy", "{}"), "spec": {"targetSelectors": [selector]}})
    assert loaded.spec.targets == ()
    assert loaded.spec.target_selectors[0].matches({"team": "a", "b": "c"})


def test_what_has_no_effect_yet_is_found_by_name() -> None:
    loaded = accept(
        policy(
            "SecurityPolicy",
            """
basicAuth: {users: {name: s}}
oidc: {provider: {issuer: https://a}, clientID: a, clientSecret: {name: b}}
extAuth: {grpc: {backendRefs: [{name: a, port: 1}]}}
jwt: {providers: [{name: a, remoteJWKS: {uri: "https://a", backendSettings: {retry: {}}}}]}
""",
        )
    )
    assert [path for path, _ in unsupported_fields(loaded)] == [
        "spec.jwt.providers[0].remoteJWKS.backendSettings",
        "spec.basicAuth",
        "spec.oidc",
        "spec.extAuth",
    ]


def test_the_other_kinds_of_envoy_gateway_are_read() -> None:
    proxy = accept(
        read("""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: a}
spec: {provider: {type: Kubernetes}, concurrency: 2, telemetry: {metrics: {}}, mergeGateways: true}
""")
    )
    assert (proxy.key.group, proxy.key.kind) == ("gateway.envoyproxy.io", "EnvoyProxy")
    assert [path for path, _ in unsupported_fields(proxy)] == ["spec.telemetry", "spec.mergeGateways"]
    patch = accept(
        {
            **policy("EnvoyPatchPolicy", "{}", "gateway.envoyproxy.io"),
            "spec": {
                "type": "JSONPatch",
                "targetRef": TARGET,
                "jsonPatches": [
                    {
                        "type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                        "name": "demo/edge/80",
                        "operation": {"op": "add", "path": "/a", "value": {"any": ["thing"]}},
                    }
                ],
            },
        }
    )
    assert patch.spec.json_patches[0].operation.value == {"any": ["thing"]}
    extension = accept(policy("EnvoyExtensionPolicy", "wasm: [{name: a}]", "gateway.envoyproxy.io"))
    assert not extension.supported
    client = accept({**policy("ClientTrafficPolicy", "{}"), "spec": {"targetRef": TARGET, "http3": {}}})
    assert [path for path, _ in unsupported_fields(client)] == ["spec.http3"]


def test_both_groups_have_the_same_models() -> None:
    ours = {kind: model for (group, kind), model in KINDS.items() if group == "dragoman.dev"}
    theirs = {kind: model for (group, kind), model in KINDS.items() if group == "gateway.envoyproxy.io"}
    renamed = {
        "EnvoyExtensionPolicy": "ExtensionPolicy",
        "EnvoyPatchPolicy": "PatchPolicy",
        "EnvoyProxy": "ProxyConfig",
    }
    assert {renamed.get(kind, kind): model for kind, model in theirs.items()} == {
        kind: model for kind, model in ours.items() if kind != "Plan"
    }


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ("endpoints: [{}]", "endpoints[0]", "set exactly one of fqdn, ip and unix"),
        ("endpoints: [{ip: {address: 1.2.3.400, port: 1}}]", "endpoints[0].ip.address", "expected an IP address"),
        (
            "endpoints: [{ip: {address: 1.2.3.4, port: 1}}, {fqdn: {hostname: a, port: 1}}]",
            "endpoints[1]",
            "fqdn endpoints cannot be mixed with others",
        ),
        ("endpoints: []", "endpoints", "type Endpoints needs endpoints"),
        ("{endpoints: [{unix: {path: " + "a" * 108 + "}}]}", "endpoints[0].unix.path", "at most 107 characters"),
        (
            "{endpoints: [{unix: {path: /a}}], tls: {insecureSkipVerify: true, wellKnownCACertificates: System}}",
            "tls.insecureSkipVerify",
            "leaves nothing to trust",
        ),
    ],
)
def test_a_backend_must_have_endpoints_of_one_sort(spec: str, path: str, message: str) -> None:
    document = read("{apiVersion: dragoman.dev/v1alpha1, kind: Backend, metadata: {name: a}}")
    found_path, found_message = fault({**document, "spec": read(spec)})
    assert found_path == f"spec.{path}"
    assert message in found_message


def test_a_backend_can_be_a_name_an_address_or_a_socket() -> None:
    for endpoint in ("fqdn: {hostname: a.example, port: 1}", "ip: {address: '::1', port: 1}", "unix: {path: /run/a}"):
        accept(
            read(
                f"{{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: Backend, metadata: {{name: a}}, "
                f"spec: {{endpoints: [{{{endpoint}}}]}}}}"
            )
        )


def test_a_route_filter_answers_or_rewrites() -> None:
    loaded = accept(
        read("""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: HTTPRouteFilter
metadata: {name: a}
spec:
  directResponse: {statusCode: 503, contentType: text/plain, body: {type: Inline, inline: closed}}
  urlRewrite:
    path: {type: ReplaceRegexMatch, replaceRegexMatch: {pattern: "^/a", substitution: /b}}
    hostname: {type: Header, header: x-host}
""")
    )
    assert loaded.spec.direct_response.body.inline == "closed"

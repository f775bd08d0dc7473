"""The configuration file: what it may say, and that a fault is told with its file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

from dragoman.protos.dragoman.authz.v1.policy_pb2 import Policy
from ext_authz.config_file import read_config
from tests.support.tokens import SigningKey, jwks

WHOLE = """\
policies:
- id: shop/orders
  jwt:
    providers:
    - name: issuer
      issuer: https://issuer.example
      audiences: [shop]
      jwks: {file: keys.json}
      extractFrom: {headers: [{name: X-Token, valuePrefix: "JWT "}], params: [token], cookies: [session]}
      claimToHeaders: [{claim: sub, header: X-Sub}]
      claimToMetadata: [{claim: plan, key: plan}]
      requiredScopes: [read]
      requiredRoles: [admin]
      scopeClaim: scope
      rolesClaim: realm_access.roles
      clockSkewSeconds: 0
      algorithms: [ES256]
      allowNoExpiration: true
      sanitize: true
    - name: second
      jwks: {uri: "https://second.example/jwks", refreshSeconds: 60}
  apiKeys:
    store: true
    keys: [{id: k1, sha256: %s, client: acme}]
    extractFrom: {headers: [{name: x-key}]}
    consumers: [acme]
    tenant: t1
    requiredScopes: [read]
    metadataToHeaders: [{key: plan, header: x-plan}]
    forwardClientIdHeader: x-client
    sanitize: true
  combine: All
  allowAnonymous: true
  removeHeaders: [x-internal]
  authorization:
    defaultAction: Deny
    rules:
    - {name: ops, action: Allow, provider: issuer, claims: [{name: team, values: [ops]}], scopes: [read], clients: [a]}
""" % ("ab" * 32)

FAULTY = """\
policies:
- id: sound
  apiKeys: {store: true}
- id: unknown-field
  apiKeys: {store: true, colour: red}
- id: wrong-type
  apiKeys:
    store: perhaps
- jwt: {}
- id: semantic
  apiKeys:
    store: true
    forwardClientIdHeader: host
- id: sound
  apiKeys: {store: true}
- id: no-file
  jwt: {providers: [{name: a, jwks: {file: missing.json}}]}
- id: two-jwks
  jwt: {providers: [{name: a, jwks: {inline: "{}", uri: "https://a"}}]}
- 7
extra: 1
"""


def test_every_field_reaches_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "authz.yaml"
    path.write_text(WHOLE)
    (tmp_path / "keys.json").write_text(json.dumps(jwks(SigningKey.make())))
    config = read_config(path)
    assert not config.faults
    assert [*config.files] == [tmp_path / "keys.json"]
    policy = Policy.FromString(config.policies["shop/orders"])
    first, second = policy.jwt_providers
    unset = [
        field.name
        for part in (policy, first, policy.api_keys, policy.authorization, policy.authorization.rules[0])
        for field in part.DESCRIPTOR.fields
        if field.name not in {each.name for each, _ in part.ListFields()}
    ]
    # Those that are their default here, or the other one of a pair.
    assert unset == ["remote_jwks", "default_action"]
    assert first.HasField("clock_skew_seconds")
    assert (second.remote_jwks.uri, second.remote_jwks.refresh_seconds) == ("https://second.example/jwks", 60)
    assert second.clock_skew_seconds == 60
    assert policy.authorization.rules[0].action == 1


def test_each_fault_has_its_line_and_field_and_harms_no_other_policy(tmp_path: Path) -> None:
    path = tmp_path / "authz.yaml"
    path.write_text(FAULTY)
    config = read_config(path)
    assert config.readable
    assert set(config.policies) == {"sound"}
    assert config.unsound == {"unknown-field", "wrong-type", "semantic", "sound", "no-file", "two-jwks"}
    told = sorted(str(fault).removeprefix(f"{path}:") for fault in config.faults)
    expected = [
        "10: policies[4]: api_keys.forward_client_id_header: the header 'host' may not be set",
        "14: policies[5].id: 'sound' is there twice",
        "16: policies[6]: a JWKS file cannot be read: [Errno 2]",
        "19: policies[7].jwt.providers[0].jwks: give exactly one of inline, file and uri",
        "20: policies[8]: Input should be a valid dictionary",
        "21: extra: there is no such field; known is policies",
        "5: policies[1].apiKeys.colour: there is no such field",
        "8: policies[2].apiKeys.store: Input should be a valid boolean",
        "9: policies[3].id: Field required",
        "9: policies[3].jwt.providers: Field required",
    ]
    assert [line[: len(each)] for line, each in zip(told, expected, strict=True)] == expected


def test_what_is_no_configuration_at_all_is_told(tmp_path: Path) -> None:
    path = tmp_path / "authz.yaml"
    for text, says in (
        ("policies: [", "not YAML"),
        ("- 1", "mapping"),
        ("policies: 1", "must be a list"),
        ("", "list"),
    ):
        path.write_text(text)
        config = read_config(path)
        assert not config.readable
        assert says in str(config.faults[0])
    assert not read_config(tmp_path / "missing.yaml").readable

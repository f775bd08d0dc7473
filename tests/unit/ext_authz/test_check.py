"""The service around the credentials: unknown policies, updates, bounds, and what waits for an issuer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ext_authz.check import MAX_WAITING, Checker
from ext_authz.identity import Reason, Refusal
from ext_authz.policies import Policies
from ext_authz.stats import MAX_POLICIES, Stats
from ext_authz.verdicts import Pass, VerdictCache
from tests.support.authz import POLICY, Answer, RecordedCall, check_request, jwt_provider, message, service
from tests.support.tokens import SigningKey, bearer


async def test_a_policy_that_is_not_known_fails_closed_and_says_nothing_of_why(signing_key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(signing_key)]))
    for policy in ("shop/other/h", "", None):
        answer = await asked.check(bearer(signing_key.token()), policy=policy)
        assert answer.status == 503
        assert answer.body == {
            "error": "unavailable",
            "message": "The service cannot decide on this request now",
            "request_id": "req-1",
        }
    assert asked.stats.verdicts == {("(other)", "policy_unknown"): 3}


async def test_what_is_no_check_request_fails_the_call() -> None:
    call = RecordedCall()
    service().checker(b"\xff\xff\xff", call)
    assert [code.name for code, _ in call.failures] == ["INVALID_ARGUMENT"]


async def test_a_removed_policy_stays_in_force_for_a_while(signing_key: SigningKey) -> None:
    now = [0.0]
    policies = Policies(clock=lambda: now[0])
    body = message(jwt_providers=[jwt_provider(signing_key)]).SerializeToString()
    await policies.take({POLICY: body}, ())
    await policies.take({}, {POLICY, "never/was/there"})
    now[0] = 59.0
    assert not policies.sweep()
    await policies.take({POLICY: body}, ())
    now[0] = 61.0
    assert not policies.sweep(), "it was named again"
    await policies.take({}, {POLICY})
    now[0] = 122.0
    assert policies.sweep()
    assert not policies.by_id


async def test_an_unsound_policy_leaves_the_others_and_its_own_last_content_in_force(signing_key: SigningKey) -> None:
    policies = Policies()
    sound = message(jwt_providers=[jwt_provider(signing_key)])
    await policies.take({POLICY: sound.SerializeToString()}, ())
    before = policies.by_id[POLICY]
    unsound: list[tuple[str, Any]] = [
        ("id: ", {"id": ""}),
        ("names neither", {}),
        ("inline_jwks: the JWKS is not JSON", {"jwt_providers": [jwt_provider(inline_jwks="x")]}),
        ("algorithms: 'HS256'", {"jwt_providers": [jwt_provider(signing_key, algorithms=["HS256"])]}),
        ("clock_skew", {"jwt_providers": [jwt_provider(signing_key, clock_skew_seconds=86400)]}),
        ("same name", {"jwt_providers": [jwt_provider(signing_key)] * 2}),
        ("may not be set", {"api_keys": {"use_store": True, "forward_client_id_header": "Host"}}),
        ("no header name", {"api_keys": {"use_store": True, "forward_client_id_header": "a b"}}),
        ("no header name", {"api_keys": {"use_store": True}, "remove_headers": [":path"]}),
        ("neither inline_keys", {"api_keys": {}}),
        ("32 bytes", {"api_keys": {"inline_keys": [{"sha256": "AAAA"}]}}),
        ("empty parameter", {"api_keys": {"use_store": True, "extract_from": {"params": [""]}}}),
        ("no provider is called", {"api_keys": {"use_store": True}, "authorization": {"rules": [{"provider": "x"}]}}),
        ("https:// or http://", {"jwt_providers": [{"name": "a", "remote_jwks": {"uri": "file:///etc/passwd"}}]}),
        ("neither inline_jwks", {"jwt_providers": [{"name": "a"}]}),
    ]
    for says, fields in unsound:
        bad = message(**{"id": POLICY, **fields}) if "id" not in fields else message(fields["id"])
        invalid = await policies.take({bad.id: bad.SerializeToString(), "b": b"\xff"}, ())
        assert any(says in fault for policy in invalid for fault in policy.faults), (says, invalid)
        assert policies.by_id == {POLICY: before}


async def test_a_resource_must_be_called_as_its_policy_is(signing_key: SigningKey) -> None:
    body = message(jwt_providers=[jwt_provider(signing_key)]).SerializeToString()
    (invalid,) = await Policies().take({"other/name/h": body}, ())
    assert "is not the resource's name" in invalid.faults[0]


def test_verdicts_are_bounded_and_bad_credentials_push_out_no_good_one() -> None:
    cache = VerdictCache(max_passes=3, max_refusals=3)
    for number in range(5):
        cache.put(b"%d" % number, Pass(b"", 100.0, ("k",)))
        if number == 2:
            assert cache.get(b"0", 1.0), "used last, so the others go first"
    assert set(cache.passes) == {b"0", b"3", b"4"}
    for number in range(100):
        cache.put_refusal(b"r%d" % number, Refusal(Reason.EXPIRED, ""), 1.0)
    assert len(cache.passes) == 3
    assert cache.refusal(b"r1", 1.0) is None
    assert cache.refusal(b"r99", 2.0) is not None
    assert cache.refusal(b"r99", 4.0) is None, "a refusal is remembered for a moment"
    assert cache.get(b"3", 100.0) is None
    cache.forget_keys(["k"])
    assert not cache.passes


def test_metrics_name_a_bounded_number_of_policies() -> None:
    stats = Stats()
    for number in range(MAX_POLICIES * 2):
        stats.count(f"shop/{number}", "ok", 0.0)
    assert len(stats.verdicts) <= MAX_POLICIES + 1
    assert sum(stats.verdicts.values()) == MAX_POLICIES * 2


async def test_an_unknown_key_id_waits_for_one_fetch_of_the_issuers_keys(signing_key: SigningKey) -> None:
    uri = "https://issuer.example/jwks"
    documents: dict[str, str] = {}
    policies = Policies(jwks_of=documents.get)
    provider = jwt_provider(remote_jwks={"uri": uri})
    del provider["inline_jwks"]
    policy = message(jwt_providers=[provider])
    assert not await policies.take({policy.id: policy.SerializeToString()}, ())
    assert policies.uris() == {uri: 300.0}
    fetched = asyncio.Event()
    fetches = 0

    async def fetch() -> bool:
        await fetched.wait()
        return True

    def refetch(_: object) -> Any:
        nonlocal fetches
        fetches += 1
        return asyncio.ensure_future(fetch())

    checker = Checker(policies.by_id, verdicts=VerdictCache(), stats=Stats(), refetch=refetch)
    calls = [RecordedCall() for _ in range(MAX_WAITING + 5)]
    for call in calls:
        checker(check_request(bearer(signing_key.token())), call)
    assert sum(bool(call.bodies) for call in calls) == 5, "those beyond the bound are refused at once"
    await asyncio.sleep(0)
    documents[uri] = jwt_provider(signing_key)["inline_jwks"]
    await policies.refetched(uri)
    fetched.set()
    await checker.drain()
    statuses = [Answer.read(call.bodies[0]).status for call in calls]
    assert (statuses.count(200), statuses.count(401)) == (MAX_WAITING, 5)


async def test_a_token_that_is_not_valid_yet_is_not_remembered_as_bad(signing_key: SigningKey) -> None:
    asked = service(message(jwt_providers=[jwt_provider(signing_key)]))
    headers = bearer(signing_key.token({"nbf": int(time.time()) + 61}))
    assert (await asked.check(headers)).status == 401
    asked.offset_s[0] = 1.5
    assert (await asked.check(headers)).status == 200

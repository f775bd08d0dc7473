# pyright: standard, reportAttributeAccessIssue=false
"""Policies are changed while requests are checked: checks go on, and what did not change is not disturbed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb
from dragoman.steadiness import steady_loop
from ext_authz import jwt_keys
from ext_authz import let_go as let_go_module
from ext_authz.file_source import FileSource
from ext_authz.let_go import let_go
from ext_authz.policies import Policies
from ext_authz.settings import AuthzSettings
from ext_authz.worker import worker
from tests.support.authz import Answer, RecordedCall, check_request, jwt_provider, message, service
from tests.support.tokens import SigningKey, jwks
from tests.support.turns import Turns, full_collections, turns
from tests.support.waiting import until

MANY_POLICIES = 1_500
MANY_KEYS = 20_000
ROUNDS = 5
"""Whatever else the machine does lengthens what is measured."""
URI = "https://issuer.example/jwks"


def digest(number: int) -> bytes:
    return hashlib.sha256(f"key-{number}".encode()).digest()


def policies_of(client: str) -> dict[str, bytes]:
    """Many policies that accept the same key, and say that it is this client's."""
    found: dict[str, bytes] = {}
    for number in range(MANY_POLICIES):
        policy = pb.Policy(id=f"p{number}")
        policy.api_keys.forward_client_id_header = "x-client"
        policy.api_keys.inline_keys.add(id="k", sha256=digest(0), client=client)
        found[policy.id] = policy.SerializeToString()
    return found


def keys_of(client: str) -> dict[str, bytes]:
    """A policy with many keys, all of them this client's."""
    policy = pb.Policy(id="p0")
    policy.api_keys.forward_client_id_header = "x-client"
    for number in range(MANY_KEYS):
        policy.api_keys.inline_keys.add(id=str(number), sha256=digest(number), client=client)
    return {"p0": policy.SerializeToString()}


def file_of(client: str) -> str:
    """Many keys in a file."""
    keys = (f"    - {{id: k{n}, sha256: {digest(n).hex()}, client: {client}}}" for n in range(MANY_KEYS))
    return "\n".join(["policies:", "- id: p0", "  apiKeys:", "    forwardClientIdHeader: x-client", "    keys:", *keys])


class Asked:
    """A service whose policies a test changes, asked by several keys or of several policies."""

    def __init__(self, *asked: tuple[str, str]) -> None:
        self.service = service()
        self.policies = self.service.policies
        self._asked = [check_request({"x-api-key": key}, policy=policy) for policy, key in asked]

    def clients(self) -> list[str]:
        """Returns who each of them is."""
        return [self._client(body) for body in self._asked]

    def _client(self, body: bytes) -> str:
        call = RecordedCall()
        self.service.checker(body, call)
        return Answer.read(call.bodies[0]).headers["x-client"]


def over_policies() -> Asked:
    return Asked(*((f"p{number}", "key-0") for number in (0, MANY_POLICIES // 2, MANY_POLICIES - 1)))


def over_keys() -> Asked:
    return Asked(*(("p0", f"key-{number}") for number in (0, MANY_KEYS // 2, MANY_KEYS - 1)))


def held_up_nobody(found: Turns) -> bool:
    # Read on the loop, they would take one turn; what a turn takes is for the machine to say.
    return found.count >= 10 and found.longest_s < found.whole_s / 2


@pytest.mark.parametrize(("make", "bodies"), [(over_policies, policies_of), (over_keys, keys_of)])
async def test_checks_go_on_while_thousands_of_policies_or_keys_change_over_xds(
    make: Callable[[], Asked], bodies: Callable[[str], dict[str, bytes]]
) -> None:
    asked = make()
    await asked.policies.take(bodies("old"), ())
    found = Turns()
    for number in range(ROUNDS):
        changed = bodies(f"new {number}")
        with steady_loop(), full_collections() as collections:
            taking = asyncio.create_task(asked.policies.take(changed, ()))
            found = await turns(asked.clients, f"new {number}")
            assert not await taking
        assert not collections
        if held_up_nobody(found):
            return
    pytest.fail(str(found))


async def test_checks_go_on_while_thousands_of_keys_change_in_a_file(tmp_path: Path) -> None:
    asked = over_keys()
    file = tmp_path / "authz.yaml"
    file.write_text(file_of("old"))
    source = FileSource(file, asked.policies, last_good=tmp_path / "kept")
    await source.load()
    found = Turns()
    with steady_loop(), full_collections() as collections:
        following = asyncio.create_task(source.run())
        try:
            for number in range(ROUNDS):
                (tmp_path / "new").write_text(file_of(f"new {number}"))
                (tmp_path / "new").rename(file)
                found = await turns(asked.clients, f"new {number}")
                if held_up_nobody(found):
                    break
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    assert held_up_nobody(found), found
    assert not collections


async def test_what_is_given_up_leaves_everything_as_it_was() -> None:
    asked = over_policies()
    await asked.policies.take(policies_of("old"), ())
    taking = asyncio.create_task(asked.policies.take(policies_of("new"), ()))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert set(asked.clients()) == {"old"}
    await asked.policies.take(policies_of("newer"), ())
    assert set(asked.clients()) == {"newer"}


async def test_a_fault_in_a_large_file_is_told_with_its_line_and_the_last_good_content_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = over_keys()
    file = tmp_path / "authz.yaml"
    file.write_text(file_of("old"))
    source = FileSource(file, asked.policies)
    await source.load()
    file.write_text(file_of("new").replace(digest(MANY_KEYS - 1).hex(), "no hash"))
    with caplog.at_level(logging.ERROR):
        await source.load()
    assert set(asked.clients()) == {"old"}
    (told,) = source.faults
    assert told.startswith(f"{file}:{MANY_KEYS + 5}: policies[0].apiKeys.keys[{MANY_KEYS - 1}].sha256: must be 64")
    assert caplog.messages == [f"configuration fault: {told}"]


async def test_a_change_that_is_followed_by_another_while_it_is_read_never_comes_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(("p0", "key-0"))
    file = tmp_path / "authz.yaml"
    line = "policies: [{id: p0, apiKeys: {forwardClientIdHeader: x-client, keys: [{id: k, sha256: %s, client: %s}]}}]"

    def write(client: str) -> None:
        (tmp_path / "new").write_text(line % (digest(0).hex(), client))
        (tmp_path / "new").rename(file)

    write("old")
    source = FileSource(file, asked.policies)
    await source.load()
    seen: list[str] = []
    read_into = asked.policies.read_into

    def reading(change: Any, policy: pb.Policy, body: bytes) -> tuple[str, ...]:
        client = policy.api_keys.inline_keys[0].client
        if client == "passed over":
            write("new")
        seen.append(client)
        return read_into(change, policy, body)

    monkeypatch.setattr(asked.policies, "read_into", reading)
    following = asyncio.create_task(source.run())
    try:
        write("passed over")
        found = await turns(asked.clients, "new")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert (found.count > 0, seen) == (True, ["passed over", "new"])


async def test_a_policy_that_leaves_while_it_is_named_again_is_there_afterwards() -> None:
    now = [0.0]
    policies = Policies(kept_s=60, clock=lambda: now[0])
    body = keys_of("acme")["p0"]
    await policies.take({"p0": body}, ())
    await policies.take({}, {"p0"})
    change = policies.prepared({"p0": body})
    now[0] = 61.0
    assert policies.sweep()
    await policies.put(change, ())
    rules = policies.by_id["p0"].api_keys
    assert rules is not None
    assert rules.inline[digest(0)].client == "acme"


def fetching(policy_id: str, *, issuer: str = "https://issuer.example") -> pb.Policy:
    provider = jwt_provider(remote_jwks={"uri": URI}, issuer=issuer)
    del provider["inline_jwks"]
    return message(policy_id, jwt_providers=[provider])


def names(policies: Policies, policy_id: str) -> list[str]:
    return [key.kid for key in policies.by_id[policy_id].providers[0].keys.keys]


async def test_signing_keys_that_come_while_a_change_is_made_ready_are_those_in_force() -> None:
    old, new = (json.dumps(jwks(SigningKey.make(kid))) for kid in ("old", "new"))
    documents = {URI: old}
    policies = Policies(jwks_of=documents.get)
    first, second = fetching("a"), fetching("b")
    await policies.take({"a": first.SerializeToString()}, ())
    change = policies.prepared(
        {"a": fetching("a", issuer="https://other").SerializeToString(), "b": second.SerializeToString()}
    )
    documents[URI] = new
    # They do not wait for the change.
    await policies.refetched(URI)
    assert names(policies, "a") == ["new"]
    assert policies.by_id["a"].providers[0].issuer == "https://issuer.example"
    await policies.put(change, ())
    assert (names(policies, "a"), names(policies, "b")) == (["new"], ["new"])
    assert policies.by_id["a"].providers[0].issuer == "https://other"


async def test_a_change_that_comes_while_signing_keys_are_read_is_not_undone() -> None:
    documents = {URI: json.dumps(jwks(SigningKey.make("old")))}
    policies = Policies(jwks_of=documents.get)
    await policies.take({"a": fetching("a").SerializeToString()}, ())
    change = policies.prepared({"a": fetching("a", issuer="https://other").SerializeToString()})
    documents[URI] = json.dumps(jwks(SigningKey.make("new")))
    rereading = asyncio.create_task(policies.refetched(URI))
    await asyncio.sleep(0)
    await policies.put(change, ())
    await rereading
    assert policies.by_id["a"].providers[0].issuer == "https://other"
    assert names(policies, "a") == ["new"]


async def test_a_document_of_keys_is_parsed_once_for_all_policies_that_have_it(
    signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = jwt_keys.parse_keys
    monkeypatch.setattr(jwt_keys, "parse_keys", lambda document: parsed.append(document) or parse(document))
    policies = Policies()
    made = [message(f"p{number}", jwt_providers=[jwt_provider(signing_key)]) for number in range(10)]
    assert not await policies.take({each.id: each.SerializeToString() for each in made}, ())
    assert len(parsed) == 1
    assert names(policies, "p0") == names(policies, "p9") == [signing_key.kid]


async def test_keys_that_are_no_longer_in_force_are_let_go_once_nobody_goes_by_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(let_go_module, "_look_again", lambda: looks.append(0) or time.sleep(0.001))
    policies = Policies()
    (policy,) = policies.prepared(keys_of("acme")).policies.values()
    held: Any = policy.api_keys
    let_go([policy])
    del policy
    await until(lambda: len(looks) > 10, what="the keys to be waited for")
    # Somebody may still be checked by them.
    assert len(held.inline) == MANY_KEYS
    assert held.inline[digest(MANY_KEYS - 1)].client == "acme"
    del held
    await until(lambda: "let go" not in {thread.name for thread in threading.enumerate()}, what="the keys to be gone")


async def test_a_file_is_followed_anew_where_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text("policies: []")
    run, failed = FileSource.run, list[FileSource]()

    async def fails_first(source: FileSource) -> None:
        if not failed:
            failed.append(source)
            raise ZeroDivisionError
        await run(source)

    monkeypatch.setattr(FileSource, "run", fails_first)
    async with worker(AuthzSettings(listen="127.0.0.1:0", config=file, state=tmp_path / "state")):
        await until(lambda: failed, what="the failure")
        file.write_text("nothing: here")
        await until(lambda: failed[0].faults, what="the change to be seen")


async def test_a_key_file_that_is_mended_is_read_though_nothing_else_changed(tmp_path: Path) -> None:
    file, keys = tmp_path / "authz.yaml", tmp_path / "keys.json"
    file.write_text("policies: [{id: a, jwt: {providers: [{name: i, jwks: {file: keys.json}}]}}]")
    policies = Policies()
    source = FileSource(file, policies)
    await source.load()
    assert "cannot be read" in source.faults[0]
    following = asyncio.create_task(source.run())
    try:
        keys.write_text(json.dumps(jwks(SigningKey.make("k"))))
        await until(lambda: policies.by_id and names(policies, "a") == ["k"], what="the keys")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

# pyright: standard
"""Whatever is given as a configuration, the parsers end soon, in little memory, with a domain or with faults."""

from __future__ import annotations

import resource
import time
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.config_file import parse
from ratelimit_service.config_xds import name_of, parse_resource
from ratelimit_service.model import Fault

# Generous, for a busy machine; without bounds each of the bombs takes minutes, or all memory.
MOST_S = 30.0
MOST_KIB = 1 << 20
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

KNOWN = (
    *("domain", "descriptors", "key", "value", "rate_limit", "shadow_mode", "quota_mode", "detailed_metric"),
    *("value_to_metric", "share_threshold", "unit", "requests_per_unit", "unlimited", "name", "replaces"),
    *("unit_multiplier", "algorithm", "burst", "delay", "lease_time", "precision", "mode", "on_store_error", "<<"),
)
WORDS = (
    *("a", "b*", "*", "", "day", "SECOND", "true", "off", "7", "-1", "0x10", "1e3", "null", "~", "token_bucket"),
    *("lease(5)", "1h30m", "4294967296", "9" * 400, "1:30", "010", "0b11", "2020-01-01", "=", "!!binary x", "\ud800"),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS[:-1]) | st.text(max_size=8)
keys = st.sampled_from(KNOWN) | st.text(max_size=4) | st.integers()
documents = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(keys, below, max_size=6),
    max_leaves=25,
)
VALID = """
domain: d
descriptors:
  - &first
    key: a
    value: b*
    share_threshold: true
    rate_limit: {unit: day, requests_per_unit: 5, name: n, replaces: [{name: m}], algorithm: token_bucket, burst: 3}
    descriptors: [{key: c, shadow_mode: true, rate_limit: {<<: {unit: hour}, requests_per_unit: 0x10}}]
  - {<<: *first, key: z}
"""


def checked(content: bytes) -> list[Fault]:
    domains, faults = parse(content, source="f.yaml")
    assert domains or faults
    lines = content.count(b"\n") + content.count(b"\r") + content.decode("utf-8", "replace").count("\u2028") + 2
    for fault in faults:
        assert fault.source == "f.yaml"
        assert fault.message
        assert (
            0 <= fault.line <= lines + content.decode("utf-8", "replace").count("\u2029") + content.count(b"\xc2\x85")
        )
        str(fault).encode()
    for domain, _ in domains:
        for rule in domain.root.rules():
            rule.path.encode()
    return faults


@FUZZ
@given(st.binary(max_size=400))
@example(b"\xff\xfe\x00")
@example(b"\x00")
@example(b"%YAML 9.9\n---\na")
def test_bytes_of_any_kind_are_a_domain_or_faults(content: bytes) -> None:
    checked(content)


@FUZZ
@given(st.text(alphabet="domain: d\n-[]{}&*!|>'\"%@`,?#~<\tescriptorky0.\u2028\x85", max_size=300))
@example('domain: "\\ud800"')
@example("domain: &a [*a]")
@example("domain: d\ndescriptors: &a [{key: k, <<: *a}]")
@example("&a {<<: *a}")
@example("? [a]\n: b")
def test_text_that_looks_like_yaml_is_a_domain_or_faults(text: str) -> None:
    checked(text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(st.dictionaries(st.sampled_from(KNOWN[:2]) | keys, documents, max_size=5))
def test_any_structure_is_a_domain_or_faults(document: dict[Any, Any]) -> None:
    checked(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 6), st.binary(max_size=3)), max_size=6))
def test_a_damaged_file_is_a_domain_or_faults(edits: list[tuple[int, int, bytes]]) -> None:
    content = VALID.encode()
    for at, cut, new in edits:
        content = content[:at] + new + content[at + cut :]
    checked(content)


def test_the_file_that_is_damaged_is_sound() -> None:
    assert checked(VALID.encode()) == []


def bomb(levels: int, line: str, last: str) -> str:
    """Each level names the one before several times."""
    return "\n".join([last, *(line.format(n=n, m=n - 1) for n in range(1, levels))])


BOMBS = {
    "brackets": "[" * 200_000,
    "braces": "{a: " * 200_000,
    "dashes": "- " * 200_000,
    "questions": "? " * 200_000,
    "laughs": "domain: d\ndescriptors:\n"
    + bomb(30, "- &l{n} {{key: k{n}, descriptors: [*l{m}, *l{m}, *l{m}]}}", "- &l0 {key: k0}"),
    "merges": "domain: d\ndescriptors:\n" + bomb(60, "- &l{n} {{<<: [*l{m}, *l{m}], key: k{n}}}", "- &l0 {key: k0}"),
    "wide merges": "domain: d\ndescriptors:\n- &a {"
    + ", ".join(f"k{n}: 1" for n in range(20_000))
    + "}\n- {<<: ["
    + ", ".join(["*a"] * 20_000)
    + "]}",
    "replaces": "domain: d\ndescriptors:\n- {key: k, rate_limit: {unit: day, replaces: &r ["
    + ", ".join(f"{{name: n{n}}}" for n in range(5_000))
    + "]}}\n"
    + "\n".join(f"- {{key: k{n}, rate_limit: {{unit: day, replaces: *r}}}}" for n in range(5_000)),
    "faults": "domain: d\ndescriptors:\n" + "- {key: k, colour: red, unit: x}\n" * 20_000,
    "documents": "domain: d\n---\n" * 50_000 + "no mapping\n",
    "aliases": "domain: d\ndescriptors: [&a {key: k}" + ", *a" * 200_000 + "]",
    "anchors": "[" + ",".join(f"&a{n} x" for n in range(100_000)) + "]",
    "digits": "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: " + "9" * 2_000_000 + "}}]",
    "durations": "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, delay: " + "1m" * 1_000_000 + "}}]",
    "quotes": "'" * 2_000_000,
    "spaces": " " * 5_000_000,
    "a long key": "{" + "a" * 3_000_000 + ": 1}",
    "many keys": "{" + ",".join(f"k{n}: 1" for n in range(100_000)) + "}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon_and_in_little_memory(name: str) -> None:
    content = BOMBS[name].encode()
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = checked(content)
    assert faults
    assert all(len(str(fault)) < 2000 for fault in faults)
    assert time.process_time() - begun < MOST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KIB


policies = st.builds(
    rls_conf_pb2.RateLimitPolicy,
    unit=st.integers(-3, 12),
    requests_per_unit=st.integers(0, 2**32 - 1),
    unlimited=st.booleans(),
    name=st.sampled_from(["", "a", "b"]),
    replaces=st.lists(st.builds(rls_conf_pb2.RateLimitReplace, name=st.sampled_from(["", "a", "b"])), max_size=2),
    dragoman=st.none()
    | st.builds(
        rls_conf_pb2.PolicyExtension,
        algorithm=st.integers(-1, 9),
        burst=st.integers(0, 2**32 - 1),
        on_store_error=st.integers(-1, 9),
        delay_ms=st.integers(0, 2**32 - 1),
        unit_multiplier=st.integers(0, 2**32 - 1),
        lease_time_ms=st.integers(0, 2**32 - 1),
        lease=st.integers(0, 2**32 - 1),
        mode=st.integers(-1, 9),
    ),
)
descriptors = st.recursive(
    st.builds(
        rls_conf_pb2.RateLimitDescriptor,
        key=st.sampled_from(["", "a", "b*"]) | st.text(max_size=3),
        value=st.sampled_from(["", "*", "b*"]) | st.text(max_size=3),
        rate_limit=st.none() | policies,
        shadow_mode=st.booleans(),
    ),
    lambda below: st.builds(
        rls_conf_pb2.RateLimitDescriptor, key=st.sampled_from("abc"), descriptors=st.lists(below, max_size=3)
    ),
    max_leaves=8,
)
messages = st.builds(
    rls_conf_pb2.RateLimitConfig,
    name=st.text(max_size=3),
    domain=st.text(max_size=3),
    descriptors=st.lists(descriptors, max_size=4),
)


def checked_resource(content: bytes) -> None:
    domain, faults = parse_resource(content, source="r")
    assert domain is not None or faults
    assert all(fault.source == "r" and fault.message for fault in faults)
    for fault in faults:
        str(fault).encode()
    try:
        name_of(content).encode()
    except ValueError:
        assert faults


@FUZZ
@given(st.binary(max_size=300))
def test_a_resource_of_any_bytes_is_a_domain_or_faults(content: bytes) -> None:
    checked_resource(content)


@FUZZ
@given(messages)
def test_any_message_is_a_domain_or_faults(message: rls_conf_pb2.RateLimitConfig) -> None:
    checked_resource(message.SerializeToString())


@FUZZ
@given(messages, st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_damaged_message_is_a_domain_or_faults(message: rls_conf_pb2.RateLimitConfig, at: int, new: bytes) -> None:
    content = message.SerializeToString()
    checked_resource(content[:at] + new + content[at + 1 :])


@pytest.mark.parametrize("levels", [33, 90, 200, 20_000])
def test_a_resource_of_many_levels_is_refused(levels: int) -> None:
    content = b""
    for _ in range(levels):
        content = b"\x0a\x01k\x22" + _varint(len(content)) + content
    checked_resource(b"\x12\x01d\x1a" + _varint(len(content)) + content)
    assert parse_resource(b"\x12\x01d\x1a" + _varint(len(content)) + content, source="r")[1]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])

"""The configuration file: envoyproxy/ratelimit's format is understood, and what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.config_file import parse, read_path
from ratelimit_service.model import Algorithm, Config, OnStoreError, Rule, Unit
from tests.support.ratelimit import loaded


def faults_of(yaml: str) -> list[str]:
    return [str(fault) for fault in parse(yaml.encode(), source="f.yaml")[1]]


def only_rule(yaml: str) -> Rule:
    (rule,) = loaded(yaml).rules()
    return rule


def test_every_field_of_envoyproxy_ratelimit_is_read() -> None:
    config = loaded("""
domain: mongo_cps
descriptors:
  - key: database
    value: users
    shadow_mode: true
    detailed_metric: true
    rate_limit:
      name: per_user
      unit: MINUTE
      requests_per_unit: 500
      replaces:
        - name: everything
    descriptors:
      - key: collection
        rate_limit: {unlimited: true}
      - key: path
        value: /v1/*
        rate_limit: {unit: week, requests_per_unit: 7}
""")
    first, second, third = config.rules()
    assert first == Rule(
        domain="mongo_cps",
        path="database_users",
        unit=Unit.MINUTE,
        requests_per_unit=500,
        name="per_user",
        replaces=("everything",),
        shadow_mode=True,
        detailed_metric=True,
    )
    assert (second.path, second.unlimited) == ("database_users.collection", True)
    assert (third.path, third.unit) == ("database_users.path_/v1/*", Unit.WEEK)


@pytest.mark.parametrize("unit", list(Unit))
def test_every_unit_is_known(unit: Unit) -> None:
    yaml = f"{{domain: d, descriptors: [{{key: k, rate_limit: {{unit: {unit.name.lower()}, requests_per_unit: 1}}}}]}}"
    assert only_rule(yaml).unit is unit


def test_a_token_bucket_has_a_burst_and_a_fail_mode() -> None:
    rule = only_rule("""
domain: d
on_store_error: deny
descriptors:
  - key: k
    rate_limit: {unit: second, requests_per_unit: 10, algorithm: token_bucket, burst: 25}
""")
    assert (rule.algorithm, rule.burst, rule.bucket_size) == (Algorithm.TOKEN_BUCKET, 25, 25)
    assert rule.on_store_error is OnStoreError.DENY


def test_a_limit_may_say_otherwise_than_its_domain_about_a_lost_store() -> None:
    rule = only_rule(
        "{domain: d, on_store_error: deny, descriptors: "
        "[{key: k, rate_limit: {unit: day, requests_per_unit: 1, on_store_error: allow}}]}"
    )
    assert rule.on_store_error is OnStoreError.ALLOW


@pytest.mark.parametrize(
    ("yaml", "fault"),
    [
        ("domain: [", "f.yaml:2: is not YAML: "),
        ("", "f.yaml: holds no domain"),
        ("---\n---\n# nothing\n", "f.yaml: holds no domain"),
        ("- a", "f.yaml:1: must be a mapping"),
        ("descriptors: []", "f.yaml:1: domain: must not be empty"),
        ("domain: d\ncolour: red", "f.yaml:2: colour: unknown field; known are descriptors, domain, on_store_error"),
        ("domain: d\ndescriptor: []", "f.yaml:2: descriptor: unknown field; did you mean descriptors?"),
        ("domain: d\ndomain: e", "f.yaml:2: domain: is there twice"),
        ("domain: {a: b}", "f.yaml:1: domain: must be a string"),
        ("domain: d\ndescriptors: 5", "f.yaml:2: descriptors: must be a list"),
        ("domain: d\ndescriptors: [x]", "f.yaml:2: descriptors[0]: must be a mapping"),
        ("domain: d\ndescriptors:\n- value: x", "f.yaml:3: descriptors[0].key: must not be empty"),
        ("domain: d\ndescriptors:\n- key: x\n- key: x", "f.yaml:4: descriptors[1].key: descriptor 'x' is there twice"),
        (
            "domain: d\ndescriptors:\n- key: x\n  value: a*\n- key: x\n  value: a*",
            "f.yaml:5: descriptors[1].key: descriptor 'x_a*' is there twice",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  share_threshold: true\n  value: y",
            "f.yaml:4: descriptors[0].share_threshold: applies to a value that ends with * alone",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit: {unit: day}\n  unit: day",
            "f.yaml:5: descriptors[0].unit: belongs in rate_limit",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: day\n    shadow_mode: true",
            "f.yaml:6: descriptors[0].rate_limit.shadow_mode: belongs beside rate_limit, not in it",
        ),
        (
            "domain: d\ndescriptors:\n- key: a_b\n- key: a\n  value: b",
            "f.yaml:4: descriptors[1].key: descriptor 'a_b' is there twice",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  shadow_mode: 3",
            "f.yaml:4: descriptors[0].shadow_mode: must be true or",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit: 5",
            "f.yaml:4: descriptors[0].rate_limit: must be a mapping",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    requests_per_unit: 5",
            "f.yaml:5: descriptors[0].rate_limit.unit: is missing; it is one of second, minute",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: eon",
            "f.yaml:5: descriptors[0].rate_limit.unit: 'eon' is none of second, minute",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unlimited: true\n    unit: day",
            "f.yaml:6: descriptors[0].rate_limit.unit: makes no sense with unlimited",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: day\n    requests_per_unit: -1",
            "f.yaml:6: descriptors[0].rate_limit.requests_per_unit: must be a whole number from 0 to 4294967295",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: day\n    requests_per_unit: 4294967296",
            "f.yaml:6: descriptors[0].rate_limit.requests_per_unit: must be a whole number from 0 to 4294967295",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: day\n    algorithm: leaky",
            "f.yaml:6: descriptors[0].rate_limit.algorithm: 'leaky' is none of fixed_window, "
            "sliding_window, token_bucket, leaky_bucket, concurrency",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: day\n    requests_per_unit: 1\n    burst: 3",
            "f.yaml:7: descriptors[0].rate_limit.burst: applies to algorithm token_bucket alone",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit: {unit: hour, requests_per_unit: 100001, "
            "algorithm: concurrency}",
            "f.yaml:4: descriptors[0].rate_limit.requests_per_unit: is 100000 at the most with algorithm concurrency",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit: {unit: hour, requests_per_unit: 1, "
            "algorithm: leaky_bucket, delay: 61s}",
            "f.yaml:4: descriptors[0].rate_limit.delay: is 60s at the most",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit: {unit: hour, requests_per_unit: 0, "
            "algorithm: token_bucket, burst: 3}",
            "f.yaml:4: descriptors[0].rate_limit.burst: tokens never come back with requests_per_unit: 0",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit:\n    unit: day\n    replaces: [{name: ''}]",
            "f.yaml:6: descriptors[0].rate_limit.replaces[0].name: must not be empty",
        ),
        (
            "domain: d\ndescriptors:\n- key: x\n  rate_limit: {unit: day, name: a, replaces: [{name: a}]}",
            "f.yaml:4: descriptors[0].rate_limit.replaces: 'a' is the limit itself",
        ),
        ("domain: d\ndescriptors: &a\n- key: x\n  descriptors: *a", "f.yaml: has more than 32 levels"),
        ("domain: d\x00", "f.yaml:1: is not YAML: unacceptable character"),
    ],
)
def test_a_fault_is_told_with_its_line_and_field(yaml: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in faults_of(yaml)), faults_of(yaml)


def test_all_faults_of_a_file_are_told_at_once() -> None:
    yaml = "domain: d\ndescriptors:\n- key: ''\n- key: a\n  rate_limit: {unit: eon, requests_per_unit: x, burst: 0}\n"
    assert len(faults_of(yaml)) == 4


def test_a_file_that_unfolds_without_end_is_refused() -> None:
    lines = ["domain: d", "descriptors:", "- &l0 {key: k0}"]
    for n in range(1, 16):
        twice = ", ".join(f"{{key: {side}, descriptors: [*l{n - 1}]}}" for side in "ab")
        lines.append(f"- &l{n} {{key: k{n}, descriptors: [{twice}]}}")
    assert any("more than 32 levels or 100000 descriptors" in fault for fault in faults_of("\n".join(lines)))


def test_a_folder_is_read_file_by_file_and_a_domain_may_be_in_one_alone(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: a\n---\ndomain: b\n")
    (tmp_path / "b.yml").write_text("domain: c\n")
    (tmp_path / "notes.txt").write_text("not read")
    config, faults = read_path(tmp_path)
    assert (sorted(config.domains), faults) == (["a", "b", "c"], [])
    (tmp_path / "b.yml").write_text("# one\ndomain: a\n")
    _, faults = read_path(tmp_path)
    assert [str(fault) for fault in faults] == [f"{tmp_path}/b.yml:2: domain: 'a' is in {tmp_path}/a.yaml:1 too"]


@pytest.mark.parametrize(
    "yaml", ["domain: a\n---\n", "domain: a\n---\n# no more\n", "# header\n---\n---\ndomain: a\n...\n"]
)
def test_documents_of_nothing_are_passed_over(yaml: str) -> None:
    assert list(loaded(yaml).domains) == ["a"]


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    config, faults = read_path(tmp_path / "none.yaml")
    assert config == Config()
    assert [str(fault) for fault in faults] == [f"{tmp_path}/none.yaml: No such file or directory"]

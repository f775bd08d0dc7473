# pyright: standard, reportAttributeAccessIssue=false
"""A configuration over xDS means what the same one means in a file."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.config_file import parse
from ratelimit_service.config_xds import name_of, parse_resource
from ratelimit_service.model import Domain, Fault


def resource(message: dict[str, Any]) -> bytes:
    return ParseDict(message, rls_conf_pb2.RateLimitConfig()).SerializeToString()


def in_file(text: str) -> Domain:
    ((domain, _),), faults = parse(text.encode(), source="f")
    assert faults == []
    return domain


FILE = """
domain: d
on_store_error: deny
descriptors:
- key: a
  value: b*
  shadow_mode: true
  quota_mode: true
  detailed_metric: true
  share_threshold: true
  rate_limit:
    unit: week
    requests_per_unit: 7
    name: n
    replaces: [{name: m}]
  descriptors:
  - key: c
    value_to_metric: true
    rate_limit: {unit: hour, requests_per_unit: 5, algorithm: token_bucket, burst: 9, on_store_error: local}
- key: free
  rate_limit: {unlimited: true}
- key: leased
  rate_limit: {unit: day, requests_per_unit: 9000, precision: lease(50), mode: request, on_store_error: allow}
- key: assigned
  rate_limit: {unit: second, requests_per_unit: 9, mode: quota}
"""
MESSAGE = {
    "name": "r",
    "domain": "d",
    "dragoman": {"on_store_error": "DENY"},
    "descriptors": [
        {
            "key": "a",
            "value": "b*",
            "shadow_mode": True,
            "quota_mode": True,
            "detailed_metric": True,
            "dragoman": {"share_threshold": True},
            "rate_limit": {"unit": "WEEK", "requests_per_unit": 7, "name": "n", "replaces": [{"name": "m"}]},
            "descriptors": [
                {
                    "key": "c",
                    "dragoman": {"value_to_metric": True},
                    "rate_limit": {
                        "unit": "HOUR",
                        "requests_per_unit": 5,
                        "dragoman": {"algorithm": "TOKEN_BUCKET", "burst": 9, "on_store_error": "LOCAL"},
                    },
                }
            ],
        },
        {"key": "free", "rate_limit": {"unlimited": True}},
        {
            "key": "leased",
            "rate_limit": {
                "unit": "DAY",
                "requests_per_unit": 9000,
                "dragoman": {"lease": 50, "mode": "REQUEST", "on_store_error": "ALLOW"},
            },
        },
        {"key": "assigned", "rate_limit": {"unit": "SECOND", "requests_per_unit": 9, "dragoman": {"mode": "QUOTA"}}},
    ],
}


def test_a_resource_is_the_same_domain_as_its_file() -> None:
    domain, faults = parse_resource(resource(MESSAGE), source="r")
    assert faults == []
    assert domain == in_file(FILE)


def test_a_resource_is_called_by_its_name_or_its_domain() -> None:
    assert name_of(resource({"name": "r", "domain": "d"})) == "r"
    assert name_of(resource({"domain": "d"})) == "d"
    with pytest.raises(ValueError, match="parsing"):
        name_of(b"\xff")


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({}, "r: domain: must not be empty"),
        ({"descriptors": [{}]}, "r: descriptors[0].key: must not be empty"),
        ({"descriptors": [{"key": "a"}, {"key": "a"}]}, "r: descriptors[1].key: descriptor 'a' is there twice"),
        ({"descriptors": [{"key": "a", "rate_limit": {}}]}, "r: descriptors[0].rate_limit.unit: 0 is no unit"),
        ({"descriptors": [{"key": "a", "rate_limit": {"unit": 9}}]}, "r: descriptors[0].rate_limit.unit: 9 is no unit"),
        (
            {"descriptors": [{"key": "a", "rate_limit": {"unit": 1, "unlimited": True}}]},
            "r: descriptors[0].rate_limit.unit: makes no sense with unlimited",
        ),
        (
            {"descriptors": [{"key": "a", "rate_limit": {"unit": 1, "replaces": [{}]}}]},
            "r: descriptors[0].rate_limit.replaces[0].name: must not be empty",
        ),
        (
            {"descriptors": [{"key": "a", "rate_limit": {"unit": 1, "dragoman": {"algorithm": 77}}}]},
            "r: descriptors[0].rate_limit.dragoman.algorithm: 77 is no algorithm known here",
        ),
        (
            {"descriptors": [{"key": "a", "rate_limit": {"unit": 1, "dragoman": {"on_store_error": 9}}}]},
            "r: descriptors[0].rate_limit.dragoman.on_store_error: 9 is no choice known here",
        ),
        ({"dragoman": {"on_store_error": 9}}, "r: dragoman.on_store_error: 9 is no choice known here"),
        (
            {"descriptors": [{"key": "a", "dragoman": {"share_threshold": True}}]},
            "r: descriptors[0].share_threshold: applies to a value that ends with * alone",
        ),
    ],
)
def test_a_fault_is_told_with_its_field(message: dict[str, Any], fault: str) -> None:
    named = {"domain": "d", **message} if message else message
    faults: list[Fault] = parse_resource(resource(named), source="r")[1]
    assert [str(each) for each in faults] == [fault]

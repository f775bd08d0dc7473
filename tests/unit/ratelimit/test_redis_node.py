"""What an error of Redis is called, whatever its version wraps around it."""

from __future__ import annotations

import pytest

from ratelimit_service.stores.redis_node import error_kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: ee2a, on @user_script:25.", "OOM"),
        (
            "ERR Error running script (call to f_ee2a): @user_script:25: @user_script: 25: -READONLY You can't write.",
            "READONLY",
        ),
        ("ERR Error running script (call to f_ee2a): @user_script:25: attempt to compare nil", "ERR"),
        ("ERR value is not an integer or out of range", "ERR"),
        ("what -OOM is this", "ERR"),
        ("A" * 40, "ERR"),
        ("", "ERR"),
    ],
)
def test_an_error_is_told_by_its_code(message: str, kind: str) -> None:
    assert error_kind(message) == kind

"""What gets into the logs, and what must not."""

import io
import json
import logging
from typing import Any

import pytest

from dragoman import logs

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture
def output(untouched_process: None) -> io.StringIO:
    # The handlers of the test run itself are kept out of it.
    logging.getLogger().handlers[:] = []
    return io.StringIO()


def record(output: io.StringIO) -> dict[str, Any]:
    (line,) = output.getvalue().splitlines()
    return json.loads(line)


def test_a_record_is_one_json_object_with_its_own_fields(output: io.StringIO) -> None:
    logs.configure(stream=output, fields={"service": "ext_authz", "worker": 1})
    logging.getLogger("x.y").warning("two\nlines of %s", "text", extra={"request_id": "r-1", "took_ms": 3})
    entry = record(output)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "x.y",
        "message": "two\nlines of text",
        "service": "ext_authz",
        "worker": 1,
        "request_id": "r-1",
        "took_ms": 3,
    }


def test_an_exception_is_part_of_its_record(output: io.StringIO) -> None:
    logs.configure(stream=output)
    try:
        raise ZeroDivisionError("password=hunter2")
    except ZeroDivisionError:
        logging.getLogger().exception("failed")
    trace = record(output)["exception"]
    assert "ZeroDivisionError" in trace
    assert "hunter2" not in trace


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        (f"got {JWT} from the client", JWT),
        ("redis://default:hunter2@redis:6379/0 is out of reach", "hunter2"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----", "MHcCAQEE"),
        ("-----BEGIN PRIVATE KEY-----\nMHcCAQEE", "MHcCAQEE"),
        ('{"client_secret": "hunter2", "a": 1}', "hunter2"),
        ("GET /?api_key=hunter2&x=1", "hunter2"),
        ("cookie: session=abc", "session=abc"),
        ("unknown key dgm_0123456789ab_" + "s" * 40, "s" * 40),
    ],
)
@pytest.mark.parametrize("format", ["json", "human"])
def test_secrets_are_taken_out_of_messages(output: io.StringIO, format: logs.Format, text: str, secret: str) -> None:
    logs.configure(stream=output, format=format)
    logging.getLogger().info(text)
    logging.getLogger().info("it said %s", text)
    assert secret not in output.getvalue()
    assert logs.REDACTED in output.getvalue()


def test_secrets_are_taken_out_of_fields(output: io.StringIO) -> None:
    logs.configure(stream=output)
    headers = {"Authorization": "hunter2", "x-api-key": "hunter2", "accept": "text/html"}
    logging.getLogger().info("request", extra={"headers": headers, "token": "hunter2", "tokens": ["x"], "note": JWT})
    assert "hunter2" not in output.getvalue()
    assert record(output)["headers"] == {
        "Authorization": logs.REDACTED,
        "x-api-key": logs.REDACTED,
        "accept": "text/html",
    }


def test_ordinary_words_are_left_alone(output: io.StringIO) -> None:
    logs.configure(stream=output)
    text = "the token expired; 3 keys are in force at https://issuer.example/jwks (basic setup)"
    logging.getLogger().info(text)
    assert record(output)["message"] == text


def test_a_line_break_in_a_message_cannot_forge_a_record_for_people(output: io.StringIO) -> None:
    logs.configure(stream=output, format="human")
    logging.getLogger("x").info("path /a\n12:00:00.000 ERROR x: forged")
    assert [line.startswith(" ") for line in output.getvalue().splitlines()] == [False, True]


def test_the_level_is_heeded_and_must_exist(output: io.StringIO) -> None:
    logs.configure(stream=output, level="warning")
    logging.getLogger().info("quiet")
    assert output.getvalue() == ""
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure(level="LOUD")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(98, "cannot listen on 127.0.0.1:1: Address already in use"), None),
        (FileNotFoundError(2, "No such file or directory", "/absent"), "/absent: No such file or directory"),
        (OSError("cannot listen"), "cannot listen"),
        (ValueError("no"), "no"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_is_told_without_its_number(error: Exception, words: str | None) -> None:
    assert logs.in_words(error) == (words or error.args[1])

"""What the API server refuses, and what it cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

_MAX_MESSAGE: Final = 2000


class KubeconfigError(Exception):
    """How to reach the API server cannot be told: no kubeconfig, or one that does not say."""


class CertificatesError(Exception):
    """There is no certificate to serve with, and why."""


class ApiError(Exception):
    """An answer other than success; status 0 where there was no answer.

    `reason` is the API's own (`NotFound`, `AlreadyExists`, `Conflict`, `Expired`, `Invalid`, …), or `Unreachable`,
    `Timeout` and `Malformed` with status 0.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        """How long the API server asks to be left alone, where it does."""

    def __str__(self) -> str:
        return self.message if self.status == 0 else f"{self.message} ({self.status} {self.reason})"

    @property
    def unreachable(self) -> bool:
        """Whether there was no answer: what was asked for may have been done all the same."""
        return self.status == 0

    @property
    def not_found(self) -> bool:
        """Whether the object, its kind or its namespace does not exist."""
        return self.status == 404

    @property
    def exists(self) -> bool:
        """Whether an object of that name is there already."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Whether the object has changed since it was read, or a field belongs to somebody else."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def gone(self) -> bool:
        """Whether the history that was asked for is compacted away: list again."""
        return self.status == 410

    @property
    def forbidden(self) -> bool:
        """Whether permission is missing; the message names verb and resource."""
        return self.status == 403

    @property
    def invalid(self) -> bool:
        """Whether the document can never be accepted as it is."""
        return self.status in (400, 413, 415, 422)

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a while later."""
        return self.status in (0, 408, 429) or self.status >= 500


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """Returns the error that an answer tells of: a `Status` object, or the text of something in between."""
    wait = headers.get("Retry-After", "")
    retry_after_s = min(float(wait), 300.0) if wait.isdecimal() and len(wait) < 9 else None
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        return error_of_status(cast("dict[str, Any]", parsed), status, retry_after_s)
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    return ApiError(status, "Unknown", text or f"answered {status}", retry_after_s=retry_after_s)


def error_of_status(document: Mapping[str, Any], status: int = 500, retry_after_s: float | None = None) -> ApiError:
    """Returns the error that a `Status` object tells of (as ERROR events of a watch carry it)."""
    code, reason = document.get("code"), document.get("reason")
    message = str(document.get("message") or reason or f"answered {status}")[:_MAX_MESSAGE]
    details: object = document.get("details")
    asked: object = cast("dict[str, object]", details).get("retryAfterSeconds") if isinstance(details, dict) else None
    if retry_after_s is None and isinstance(asked, int) and asked > 0:
        retry_after_s = min(float(asked), 300.0)
    return ApiError(
        code if isinstance(code, int) and code >= 400 else status,
        reason if isinstance(reason, str) and reason else "Unknown",
        message,
        retry_after_s=retry_after_s,
    )

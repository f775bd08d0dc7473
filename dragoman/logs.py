"""Logs on standard error: one JSON object a line, or plain text for people; secrets are taken out of either.

A record's own fields are given as `log.info("...", extra={"request_id": id, "gateway": name})`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TextIO, cast

from pydantic import AfterValidator

Format = Literal["json", "human"]


def _known(level: str) -> str:
    if level.upper() not in logging.getLevelNamesMapping():
        raise ValueError(f"there is no log level {level[:64]!r}: use DEBUG, INFO, WARNING or ERROR")
    return level


Level = Annotated[str, AfterValidator(_known)]
"""The type of a setting that `configure` takes for its level."""

REDACTED: Final = "[redacted]"
MAX_CHARS: Final = 16 * 1024

_SECRET_NAME = re.compile(
    r"(?:authorization|cookie|credential|passw(?:or)?d|secret|token|api[-_]?key|private[-_]?key|signature)", re.I
)
_NO_SECRET_NAME = re.compile(r"(?:_count|_total|_name|_id|_path|_file|_s|_ms)$", re.I)

_PATTERNS: Final = (
    # A PEM block, whole or cut off.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.S), REDACTED),
    # Credentials of a header or a command line.
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/._~=-]{8,}"), rf"\1 {REDACTED}"),
    # A JSON Web Token, or the first two parts of one.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), REDACTED),
    # A Dragoman API key: its id is no secret.
    (re.compile(r"\b(dgm_[0-9A-Za-z]{4,32})_[0-9A-Za-z]{16,}"), rf"\1_{REDACTED}"),
    # The password in a URL: redis://user:password@host.
    (re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@"), rf"\1:{REDACTED}@"),
    # name=value and "name": "value" where the name says that it is secret.
    (
        re.compile(
            r"(?i)([\"']?[a-z0-9_-]*(?:authorization|cookie|passw(?:or)?d|secret|token|api[-_]?key)[\"']?\s*[=:]\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|(?!\[redacted\])(?:bearer |basic )?[^\s,;&}\]]+)"
        ),
        rf"\1{REDACTED}",
    ),
)

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(
    *,
    level: str = "INFO",
    format: Format = "json",
    fields: Mapping[str, object] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Sends every logger's records to `stream` (standard error); `fields` go into each JSON record.

    Raises ValueError for a level that does not exist.
    """
    number = logging.getLevelNamesMapping()[_known(level).upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(fields or {}) if format == "json" else HumanFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(number)


def in_words(error: Exception) -> str:
    """Returns what an error says, without the number that Python begins one of the system with."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def redact(text: str) -> str:
    """Returns `text` without what looks like a secret."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, the fields, the record's own, and the exception."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_shortened(record.getMessage())),
            **self._fields,
            **_own_fields(record),
        }
        trace = _trace(self, record)
        if trace:
            entry["exception"] = trace
        return json.dumps(entry, ensure_ascii=False, default=_text)


class HumanFormatter(logging.Formatter):
    """A record as a line of text, its traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        own = "".join(f" {name}={value}" for name, value in _own_fields(record).items())
        # A line break from a request must not look like a record of its own.
        message = redact(_shortened(record.getMessage())).replace("\n", "\n    ")
        line = f"{_time(record)[11:23]} {record.levelname:<7} {record.name}: {message}{own}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


def _own_fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, secrets taken out by name and by look."""
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
    return {name: _clean(name, value) for name, value in own.items() if not name.startswith("_")}


def _clean(name: str, value: Any, depth: int = 0) -> Any:
    if _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name):
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < 4 and isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value)
        return {str(key): _clean(str(key), item, depth + 1) for key, item in items.items()}
    if depth < 4 and isinstance(value, list | tuple | set | frozenset):
        parts = list(cast("Iterable[Any]", value))
        return [_clean("", part, depth + 1) for part in parts]
    return redact(_shortened(_text(value)))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… ({len(text)} characters)"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts: list[str] = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return redact("\n".join(parts))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

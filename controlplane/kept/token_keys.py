"""The API server's public keys, kept: Envoys can show who they are to a control plane that starts without it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Final, cast

from controlplane.xds.token_keys import TokenKeys, read_keys
from dragoman.jwks import JwksError

_log = logging.getLogger(__name__)

FILE: Final = "token-keys.json"
_MAX_BYTES: Final = 1024 * 1024


def load_token_keys(path: Path) -> TokenKeys | None:
    """Returns the keys that were kept; None where there are none, or none that can be read."""
    try:
        with path.open("rb") as file:
            document = cast("dict[str, Any]", json.loads(file.read(_MAX_BYTES)))
        return read_keys(document["keys"], issuer=document["issuer"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, JwksError) as fault:
        _log.warning("%s cannot be read, and is not used: %s", path, fault)
        return None


def save_token_keys(path: Path, keys: TokenKeys) -> None:
    """Keeps the keys, whole or not at all; where that cannot be, it is logged, for nothing depends on it."""
    text = json.dumps({"issuer": keys.issuer, "keys": json.loads(keys.text)})
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as fault:
        _log.warning("%s cannot be written: %s", path, fault)

"""TLS towards Redis: made from PEM files, and made again when these are replaced."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Paths of PEM files; without `ca` the system's authorities count. `verify` and `check_hostname` are for tests."""

    ca: str = ""
    certificate: str = ""
    private_key: str = ""
    verify: bool = True
    check_hostname: bool = True

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are given."""
        return tuple(path for path in (self.ca, self.certificate, self.private_key) if path)


class RedisTls:
    """The context for connections from now on. Files that do not fit together leave the one before in use."""

    def __init__(self, options: TlsOptions) -> None:
        """Raises ValueError when the files cannot be used."""
        self._options = options
        self._seen = _state(options)
        try:
            self._context = _context(options)
        except OSError as error:
            raise ValueError(f"the TLS files of the Redis URL cannot be used: {error}") from None

    def context(self) -> ssl.SSLContext:
        """Returns the context, after a look at the files."""
        state = _state(self._options)
        if state is not None and state != self._seen:
            self._seen = state
            try:
                self._context = _context(self._options)
            except OSError as error:
                _log.error("the new TLS files of Redis (%s) are not used: %s", ", ".join(self._options.files), error)
            else:
                _log.info("took the new TLS files of Redis (%s)", ", ".join(self._options.files))
        return self._context


def _state(options: TlsOptions) -> tuple[tuple[int, int, int], ...] | None:
    try:
        found = [os.stat(path) for path in options.files]
    except OSError:
        return None  # Between two versions, perhaps.
    return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def _context(options: TlsOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.certificate:
        # With no password at all, OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(options.certificate, options.private_key or None, password="")
    context.check_hostname = options.verify and options.check_hostname
    if not options.verify:
        context.verify_mode = ssl.CERT_NONE
    return context

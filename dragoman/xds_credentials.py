"""How a service knows the control plane (TLS) and shows it who it is (a token, or a certificate of its own): files,
read anew for each stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import grpc
import grpc.aio
from pydantic import BaseModel, Field, field_validator, model_validator

from dragoman.grpc_worker import Address

_MAX_TOKEN: Final = 16 * 1024
_HEADER: Final = re.compile(r"(?!grpc-)(?![^:]*-bin:)[0-9A-Za-z_.-]{1,128}:[ -~]{0,8192}", re.IGNORECASE)
_MAX_CA: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class XdsCredentials:
    """`ca` has the authorities of the control plane's certificate, which is for `server_name` (the address' host).

    `certificate` and `key` are the client's own, for a control plane that knows clients by theirs.
    """

    ca: Path | None = None
    server_name: str = ""
    token: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What a stream shows besides: names in lower case, and values."""

    def channel(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
        """Returns a new channel; raises OSError or ValueError where the authorities cannot be read."""
        if self.ca is None:
            return grpc.aio.insecure_channel(address, options=options)
        trusted = _read(self.ca, _MAX_CA)
        if b"-----BEGIN CERTIFICATE-----" not in trusted:
            # gRPC would fall back to the authorities that it comes with.
            raise ValueError(f"{self.ca} holds no certificate")
        named = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        own: tuple[bytes | None, bytes | None] = (None, None)
        if self.certificate is not None and self.key is not None:
            own = _read(self.key, _MAX_CA), _read(self.certificate, _MAX_CA)
        credentials = grpc.ssl_channel_credentials(trusted, *own)
        return grpc.aio.secure_channel(address, credentials, options=[*options, *named])

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what a stream shows; raises OSError or ValueError where the token cannot be read."""
        if self.token is None:
            return self.headers
        text = _read(self.token, _MAX_TOKEN).decode("ascii").strip()
        if not text or not text.isprintable():
            raise ValueError(f"{self.token} holds no token")
        return (("authorization", f"Bearer {text}"), *self.headers)


class XdsSettings(BaseModel):
    """The settings of whoever is a client of the control plane."""

    xds: str | None = None
    """The control plane's address: HOST:PORT or unix:PATH."""
    xds_ca: Path | None = None
    """A PEM file with the authorities of the control plane's certificate; it makes the connection TLS."""
    xds_server_name: str = ""
    """The name that the certificate must be for; the host of `xds` when empty."""
    xds_token: Path | None = None
    """A file with the service-account token to show (audience dragoman); it may be replaced at any time."""
    xds_client_certificate: Path | None = None
    xds_client_key: Path | None = None
    """PEM files with the client's own certificate and its key, for a control plane that asks for one."""
    xds_headers: tuple[str, ...] = Field(default=(), repr=False)
    """What the control plane is shown with each stream: name:value. A token is better in a file (`xds_token`)."""
    xds_insecure: bool = False
    """Whether the connection may be in plain text on other addresses than loopback."""

    @property
    def xds_credentials(self) -> XdsCredentials:
        """How the control plane is known, and shown who this is."""
        own = self.xds_client_certificate, self.xds_client_key
        named = (each.partition(":") for each in self.xds_headers)
        headers = tuple((name.lower(), value.strip()) for name, _, value in named)
        return XdsCredentials(self.xds_ca, self.xds_server_name, self.xds_token, *own, headers)

    @field_validator("xds_headers")
    @classmethod
    def _are_headers(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HEADER.fullmatch(text) for text in texts):
            # Without the values, which may be secret.
            raise ValueError("expected name:value, in printable ASCII; names that end with -bin are not supported")
        return texts

    @model_validator(mode="after")
    def _xds_fits_together(self) -> Self:
        if (self.xds_client_certificate is None) != (self.xds_client_key is None):
            raise ValueError("xds_client_certificate and xds_client_key go together")
        if self.xds_client_certificate is not None and self.xds_ca is None:
            raise ValueError("xds_client_certificate needs xds_ca")
        if self.xds_token is not None and any(each.lower().startswith("authorization:") for each in self.xds_headers):
            raise ValueError("xds_token and an authorization in xds_headers exclude one another")
        if self.xds is None:
            if self.xds_ca is not None or self.xds_token is not None:
                raise ValueError("xds_ca and xds_token need xds")
            return self
        local = Address.parse(self.xds).is_loopback
        if self.xds_ca is None and not local and not self.xds_insecure:
            raise ValueError(
                f"xds {self.xds} is not on this machine: give xds_ca for TLS (or xds_insecure, for plain text)"
            )
        if self.xds_ca is None and self.xds_server_name:
            raise ValueError("xds_server_name needs xds_ca")
        return self


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} is longer than {most} bytes")
    return content

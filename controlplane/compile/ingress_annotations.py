"""What the annotations of ingress-nginx on an Ingress ask for; those that are not supported, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from controlplane.conditions import Condition

PREFIX: Final = "nginx.ingress.kubernetes.io/"
BackendProtocol = Literal["HTTP", "HTTPS", "GRPC", "GRPCS"]

# What ingress-nginx does unless told.
_IDLE_S: Final = 60
_MAX_IDLE_S: Final = 86_400 * 365
_CORS_METHODS: Final = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
_CORS_HEADERS: Final = (
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)
_CORS_MAX_AGE_S: Final = 1_728_000
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_REQUEST_URI: Final = "$request_uri"

_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})

# Ignoring these would let in whom the Ingress keeps out.
_GUARDS: Final[Mapping[str, str]] = {
    "auth-type": "use a SecurityPolicy with jwt or apiKeyAuth",
    "auth-url": "use a SecurityPolicy with jwt or apiKeyAuth",
    "auth-tls-secret": "use tls.frontend of the Gateway",
}
_HINTS: Final[Mapping[str, str]] = {
    "proxy-connect-timeout": "Envoy gives up connecting after 5 seconds, and tries another endpoint",
    "proxy-send-timeout": "proxy-read-timeout limits how long a request may stand still, whichever way",
    "proxy-body-size": "bodies of every size are let through",
    "limit-connections": "use limit-rps",
    "limit-burst-multiplier": "what limit-rps allows is all that it lets through in a second",
    "limit-whitelist": "use a BackendTrafficPolicy with clientSelectors",
    "canary-by-cookie": "use canary-by-header or canary-weight",
    "proxy-ssl-secret": "use a BackendTLSPolicy for the Service",
    "proxy-ssl-verify": "use a BackendTLSPolicy for the Service",
    "configuration-snippet": "nginx's own configuration means nothing to Envoy",
    "server-snippet": "nginx's own configuration means nothing to Envoy",
}
# Values with which an annotation asks for what is so anyway.
_IDLE_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "proxy-body-size": ("0", "0m"),
    "proxy-buffering": ("off",),
    "proxy-request-buffering": ("off",),
    "proxy-http-version": ("1.1",),
    "proxy-ssl-verify": ("off",),
    "enable-global-auth": ("false",),
    "enable-modsecurity": ("false",),
    "enable-access-log": ("true",),
    "preserve-trailing-slash": ("true",),
}


@dataclass(frozen=True, slots=True)
class Canary:
    """Which share of requests a canary has: all with a value of a header, none with another, and a weight."""

    weight: int = 0
    total: int = 100
    header: str | None = None
    value: str | None = None
    """Value of the header that means the canary; `always` and `never` where absent."""
    pattern: bool = False
    """The value is a regular expression."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the annotations of one Ingress ask for; documents are as manifests have them."""

    regex: bool = False
    rewrite: str | None = None
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    protocol: BackendProtocol = "HTTP"
    idle_s: int = _IDLE_S
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    cors: Mapping[str, Any] | None = None
    limits: tuple[tuple[str, int], ...] = ()
    """Unit and requests of that unit, for each client."""
    canary: Canary | None = None
    redirect: Mapping[str, Any] | None = None
    """A RequestRedirect filter that answers every request."""
    app_root: str | None = None
    blocked: bool = False
    """Requests are answered with 500: what should guard them cannot."""
    warnings: tuple[Condition, ...] = ()


def field_of(name: str) -> str:
    """Returns the path of an annotation of ingress-nginx."""
    return f"metadata.annotations['{PREFIX}{name}']"


def settings(annotations: Mapping[str, str]) -> Settings:
    """Reads all annotations; a value that cannot be read counts as not set, and is told."""
    found = {name.removeprefix(PREFIX): value for name, value in annotations.items() if name.startswith(PREFIX)}
    if not found:
        return Settings()
    reader = _Reader(found)
    allow, deny = reader.sources()
    made = Settings(
        regex=reader.flag("use-regex", False),
        rewrite=reader.path("rewrite-target"),
        ssl_redirect=reader.flag("ssl-redirect", True),
        force_ssl_redirect=reader.flag("force-ssl-redirect", False),
        protocol=reader.protocol(),
        idle_s=reader.number("proxy-read-timeout", _IDLE_S, most=_MAX_IDLE_S, suffix="s"),
        allow=allow,
        deny=deny,
        cors=reader.cors(),
        limits=reader.limits(),
        canary=reader.canary(),
        redirect=reader.redirect(),
        app_root=reader.path("app-root"),
    )
    reader.tell_of_others()
    return replace(made, blocked=reader.blocked, warnings=tuple(reader.warnings))


class _Reader:
    """Reads annotations by name, and remembers which were read and what is wrong with them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._read: set[str] = set()
        self.blocked = False
        self.warnings: list[Condition] = []

    def text(self, name: str) -> str | None:
        self._read.add(name)
        value = self._values.get(name, "").strip()
        return value or None

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name)
        if value is None or value in _TRUE | _FALSE:
            return default if value is None else value in _TRUE
        self._wrong(name, f"expected true or false; got {value!r}")
        return default

    def number(self, name: str, default: int, *, most: int, suffix: str = "") -> int:
        value = self.text(name)
        digits = (value or "").removesuffix(suffix) if suffix else (value or "")
        if value is None:
            return default
        if digits.isascii() and digits.isdecimal() and len(digits) < 10 and int(digits) <= most:
            return int(digits)
        self._wrong(name, f"expected a number from 0 to {most}; got {value!r}")
        return default

    def path(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not value.startswith("/"):
            if name == "rewrite-target":
                return f"/{value}"
            self._wrong(name, f"expected a path that starts with '/'; got {value!r}")
            return None
        return value

    def protocol(self) -> BackendProtocol:
        value = (self.text("backend-protocol") or "HTTP").upper()
        for known in ("HTTP", "HTTPS", "GRPC", "GRPCS"):
            if value == known:
                return known
        if value == "AUTO_HTTP":
            return "HTTP"
        self._wrong("backend-protocol", f"expected HTTP, HTTPS, GRPC or GRPCS; got {value!r}")
        return "HTTP"

    def sources(self) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        allow: list[str] = []
        restricted = False
        for name in ("whitelist-source-range", "allowlist-source-range"):
            found = self._ranges(name)
            restricted = restricted or found is not None
            allow += found or ()
        return tuple(dict.fromkeys(allow)) if restricted else None, tuple(self._ranges("denylist-source-range") or ())

    def _ranges(self, name: str) -> list[str] | None:
        value = self.text(name)
        if value is None:
            return None
        found: list[str] = []
        for each in _words(value):
            try:
                found.append(str(ip_network(each, strict=False)))
            except ValueError:
                self.blocked = True
                self._wrong(name, f"expected ranges of addresses; got {each!r}: requests are answered with 500")
        return found

    def cors(self) -> Mapping[str, Any] | None:
        enabled = self.flag("enable-cors", False)
        origins = [each.rstrip("/") for each in _words(self.text("cors-allow-origin") or "*")]
        methods = [each.upper() for each in _words(self.text("cors-allow-methods") or _CORS_METHODS)]
        headers = _words(self.text("cors-allow-headers") or _CORS_HEADERS)
        expose = _words(self.text("cors-expose-headers") or "")
        asked = self.text("cors-allow-credentials")
        credentials = self.flag("cors-allow-credentials", True)
        max_age = self.number("cors-max-age", _CORS_MAX_AGE_S, most=2**31 - 1)
        if not enabled:
            return None
        if "*" in origins:
            origins = ["*"]
            if credentials and asked is not None:
                self._wrong("cors-allow-credentials", "no effect: every origin is allowed, and none may have them then")
            credentials = False
        if unknown := [each for each in methods if each not in _METHODS and each != "*"]:
            self._wrong("cors-allow-methods", f"unknown methods: {', '.join(unknown)}")
        return {
            "allowOrigins": list(dict.fromkeys(origins)),
            "allowMethods": _star([each for each in methods if each not in unknown]),
            "allowHeaders": _star(headers),
            "exposeHeaders": expose,
            "allowCredentials": credentials,
            **({"maxAge": max_age} if max_age else {}),
        }

    def limits(self) -> tuple[tuple[str, int], ...]:
        found = [
            ("Second", self.number("limit-rps", 0, most=10**9)),
            ("Minute", self.number("limit-rpm", 0, most=10**9)),
        ]
        return tuple((unit, requests) for unit, requests in found if requests)

    def canary(self) -> Canary | None:
        enabled = self.flag("canary", False)
        total = self.number("canary-weight-total", 100, most=1_000_000) or 100
        weight = self.number("canary-weight", 0, most=total)
        header, value = self.text("canary-by-header"), self.text("canary-by-header-value")
        pattern = self.text("canary-by-header-pattern")
        if not enabled:
            return None
        if header is None and (value or pattern):
            self._wrong(
                "canary-by-header-value" if value else "canary-by-header-pattern", "canary-by-header is not set"
            )
            value = pattern = None
        return Canary(weight, total, header, value or pattern, pattern is not None and value is None)

    def redirect(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = None
        for name, code_name, default in (
            ("permanent-redirect", "permanent-redirect-code", 301),
            ("temporal-redirect", "temporal-redirect-code", 302),
        ):
            target = self.text(name)
            code = self.number(code_name, default, most=399)
            if code not in _REDIRECTS:
                self._wrong(code_name, f"expected one of {', '.join(map(str, _REDIRECTS))}; got {code}")
                code = default
            if target is not None:
                # Of the two, ingress-nginx lets the temporary one win.
                found = self._target(name, target, code) or found
        return found

    def _target(self, name: str, target: str, code: int) -> Mapping[str, Any] | None:
        url = target.removesuffix(_REQUEST_URI)
        keeps_path = url != target
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return self._unfit(name, target)
        absolute = parts.scheme in ("http", "https") and parts.hostname is not None
        if "$" in url or parts.fragment or not (absolute or (url.startswith("/") and not parts.netloc)):
            return self._unfit(name, target)
        if keeps_path and parts.path not in ("", "/"):
            return self._unfit(name, target)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        replaced = {"path": {"type": "ReplaceFullPath", "replaceFullPath": path or "/"}}
        return {
            **({"scheme": parts.scheme, "hostname": parts.hostname} if absolute else {}),
            **({"port": port} if port else {}),
            **({} if keeps_path else replaced),
            "statusCode": code,
        }

    def _unfit(self, name: str, target: str) -> None:
        self.blocked = True
        message = f"expected a URL, of nginx's variables with {_REQUEST_URI} at its end alone; got {target!r}"
        self._wrong(name, f"{message}: requests are answered with 500")

    def tell_of_others(self) -> None:
        """Tells of annotations that nobody has read."""
        for name in sorted(self._values.keys() - self._read):
            value = self._values[name].strip()
            if name in _GUARDS and value:
                self.blocked = True
                why = "not supported, and without it anybody might come in: requests are answered with 500"
                message = f"{why}; {_GUARDS[name]}"
            elif value.lower() in _IDLE_VALUES.get(name, ()):
                continue
            else:
                hint = _HINTS.get(name)
                message = "not supported; it has no effect" + (f": {hint}" if hint else "")
            self.warnings.append(Condition("NotSupported", "True", "UnsupportedField", message, field_of(name)))

    def _wrong(self, name: str, message: str) -> None:
        self.warnings.append(Condition("PartiallyInvalid", "True", "InvalidAnnotation", message, field_of(name)))


def _words(text: str) -> list[str]:
    return [word for each in text.split(",") if (word := each.strip())]


def _star(values: Iterable[str]) -> list[str]:
    found = list(dict.fromkeys(values))
    return ["*"] if "*" in found else found

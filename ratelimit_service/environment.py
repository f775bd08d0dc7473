"""Translates the environment variables of envoyproxy/ratelimit into those of this service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, urlencode

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})
_LEVELS: Final = {"trace": "DEBUG", "debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING"}
_LEVELS_ABOVE: Final = {"error": "ERROR", "fatal": "CRITICAL", "panic": "CRITICAL"}

# By our name: theirs, and what it is where it is not set.
_PLAIN: Final = {
    "key_prefix": ("CACHE_KEY_PREFIX", ""),
    "near_ratio": ("NEAR_LIMIT_RATIO", ""),
    "limit_header": ("LIMIT_LIMIT_HEADER", "RateLimit-Limit"),
    "remaining_header": ("LIMIT_REMAINING_HEADER", "RateLimit-Remaining"),
    "reset_header": ("LIMIT_RESET_HEADER", "RateLimit-Reset"),
}
_FLAGS: Final = {
    "merge_domains": "MERGE_DOMAIN_CONFIG",
    "shadow_mode": "SHADOW_MODE",
    "quota_mode": "QUOTA_MODE",
    "response_metadata": "RESPONSE_DYNAMIC_METADATA",
}
_NO_COUNTERPART: Final = {
    "USE_STATSD": "metrics are at /metrics, for Prometheus",
    "USE_DOG_STATSD": "metrics are at /metrics, for Prometheus",
    "TRACING_ENABLED": "there are no traces",
    "CONFIG_GRPC_XDS_NODE_METADATA": "the node has an id and a cluster alone",
    "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": "a token goes into a file, xds_token",
    "PROMETHEUS_ADDR": "metrics are at HOST:PORT",
}
_NOT_SUPPORTED: Final = {
    "GRPC_CLIENT_TLS_SAN": "every certificate of GRPC_CLIENT_TLS_CACERT would be let in",
    "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": "limits of one request count apart",
}


@dataclass(slots=True)
class Translation:
    """`settings` are ours, as texts; `faults` is what cannot be done, `notes` what has no counterpart."""

    settings: dict[str, str] = field(default_factory=dict[str, str])
    faults: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def translate(environ: Mapping[str, str]) -> Translation:
    """Returns the settings that envoyproxy/ratelimit would have in this environment; no value is in faults or notes."""
    out = Translation()
    given = _Given(environ, out)
    _serving(given)
    if given.text("CONFIG_TYPE", "FILE") == "GRPC_XDS_SOTW":
        _xds(given)
    else:
        parts = given.text("RUNTIME_SUBDIRECTORY"), given.text("RUNTIME_APPDIRECTORY", "config")
        root = given.text("RUNTIME_ROOT", "/srv/runtime_data/current")
        out.settings["config"] = str(PurePosixPath(root).joinpath(*parts))
    _stores(given)
    for name, (theirs, default) in _PLAIN.items():
        given.put(name, given.text(theirs, default))
    for name, theirs in _FLAGS.items():
        out.settings[name] = "true" if given.flag(theirs) else "false"
    out.settings["response_headers"] = "plain" if given.flag("LIMIT_RESPONSE_HEADERS_ENABLED") else "none"
    for name, why in _NO_COUNTERPART.items():
        if given.text(name) and given.text(name) not in _FALSE:
            out.notes.append(f"{name} has no effect: {why}")
    if given.flag("USE_PROMETHEUS") and not given.text("PROMETHEUS_ADDR"):
        out.notes.append("USE_PROMETHEUS: metrics are at HOST:PORT, and not on port 9090")
    for name, why in _NOT_SUPPORTED.items():
        if given.text(name) and given.text(name) not in _FALSE:
            out.faults.append(f"{name} is not supported: {why}")
    return out


@dataclass(frozen=True, slots=True)
class _Given:
    environ: Mapping[str, str]
    out: Translation

    def text(self, name: str, default: str = "") -> str:
        return self.environ.get(name) or default

    def flag(self, name: str) -> bool:
        value = self.environ.get(name, "")
        if value not in _TRUE and value not in _FALSE:
            self.out.faults.append(f"{name} is neither true nor false")
        return value in _TRUE

    def put(self, name: str, value: str) -> None:
        """Sets what is not empty."""
        if value:
            self.out.settings[name] = value


def _serving(given: _Given) -> None:
    settings = given.out.settings
    path = given.text("GRPC_UDS")
    settings["listen"] = f"unix:{path}" if path else _address(given, "GRPC_", "8081")
    settings["http"] = _address(given, "", "8080")
    if given.flag("GRPC_SERVER_USE_TLS"):
        given.put("tls_certificate", given.text("GRPC_SERVER_TLS_CERT"))
        given.put("tls_private_key", given.text("GRPC_SERVER_TLS_KEY"))
        given.put("tls_client_ca", given.text("GRPC_CLIENT_TLS_CACERT"))
    level = given.text("LOG_LEVEL", "warn").lower()
    settings["log_level"] = (_LEVELS | _LEVELS_ABOVE).get(level, "INFO")
    settings["log_format"] = "json" if given.text("LOG_FORMAT").lower() == "json" else "human"


def _address(given: _Given, prefix: str, port: str) -> str:
    host = given.text(f"{prefix}HOST", "0.0.0.0")
    return f"{f'[{host}]' if ':' in host else host}:{given.text(f'{prefix}PORT', port)}"


def _xds(given: _Given) -> None:
    settings = given.out.settings
    settings["xds"] = given.text("CONFIG_GRPC_XDS_SERVER_URL", "localhost:18000")
    settings["xds_protocol"] = "sotw"
    settings["node_id"] = given.text("CONFIG_GRPC_XDS_NODE_ID", "default")
    if not given.flag("CONFIG_GRPC_XDS_SERVER_USE_TLS"):
        return
    if not given.text("CONFIG_GRPC_XDS_SERVER_TLS_CACERT"):
        given.out.faults.append("CONFIG_GRPC_XDS_SERVER_TLS_CACERT is missing: the system's authorities are not used")
    given.put("xds_ca", given.text("CONFIG_GRPC_XDS_SERVER_TLS_CACERT"))
    given.put("xds_server_name", given.text("CONFIG_GRPC_XDS_SERVER_TLS_SAN"))
    given.put("xds_client_certificate", given.text("CONFIG_GRPC_XDS_CLIENT_TLS_CERT"))
    given.put("xds_client_key", given.text("CONFIG_GRPC_XDS_CLIENT_TLS_KEY"))


def _stores(given: _Given) -> None:
    if given.text("BACKEND_TYPE", "redis") != "redis":
        given.out.faults.append("BACKEND_TYPE is not supported unless it is redis")
        return
    given.put("redis", _url(given, "REDIS", "/var/run/nutcracker/ratelimit.sock"))
    if given.flag("REDIS_PERSECOND"):
        path = "/var/run/nutcracker/ratelimitpersecond.sock"
        given.put("redis_per_second", _url(given, "REDIS_PERSECOND", path))


def _url(given: _Given, prefix: str, default: str) -> str:
    """Returns the URL of a store from the variables that begin with `prefix`, empty with a fault."""
    kind = given.text(f"{prefix}_TYPE", "SINGLE").lower()
    url = given.text(f"{prefix}_URL", default)
    scheme = "rediss" if given.flag(f"{prefix}_TLS") else "redis"
    who = _credentials(given.text(f"{prefix}_AUTH"))
    options = _tls_options(given) if scheme == "rediss" else {}
    if "://" in url or kind not in ("single", "sentinel", "cluster"):
        given.out.faults.append(f"{prefix}_URL and {prefix}_TYPE are not understood; give the store's URL as redis")
        return ""
    if kind == "single" and given.text(f"{prefix}_SOCKET_TYPE", "unix") == "unix":
        if scheme == "rediss":
            given.out.faults.append(f"{prefix}_TLS is not supported on a Unix socket")
        return f"unix://{who}{quote(url)}"
    if kind == "sentinel":
        service, _, url = url.partition(",")
        url = f"{url}/{quote(service, safe='')}"
        user, colon, password = given.text(f"{prefix}_SENTINEL_AUTH").rpartition(":")
        options |= {"sentinel_username": user} if colon and user else {}
        options |= {"sentinel_password": password} if password else {}
    plus = "" if kind == "single" else f"+{kind}"
    return f"{scheme}{plus}://{who}{url}" + (f"?{urlencode(options)}" if options else "")


def _credentials(auth: str) -> str:
    if not auth:
        return ""
    user, colon, password = auth.partition(":")
    return f"{quote(user, safe='')}:{quote(password, safe='')}@" if colon else f":{quote(auth, safe='')}@"


def _tls_options(given: _Given) -> dict[str, str]:
    files = {
        "ssl_ca_certs": given.text("REDIS_TLS_CACERT"),
        "ssl_certfile": given.text("REDIS_TLS_CLIENT_CERT"),
        "ssl_keyfile": given.text("REDIS_TLS_CLIENT_KEY"),
    }
    options = {name: path for name, path in files.items() if path}
    return options | ({"ssl_check_hostname": "false"} if given.flag("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION") else {})

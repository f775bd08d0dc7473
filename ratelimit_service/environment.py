"""Translates the environment variables of envoyproxy/ratelimit into those of this service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, urlencode

from ratelimit_service.environment_given import FALSE, Given, Translation
from ratelimit_service.environment_statsd import statsd

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
    "look_first": "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
    "shadow_mode": "SHADOW_MODE",
    "quota_mode": "QUOTA_MODE",
    "response_metadata": "RESPONSE_DYNAMIC_METADATA",
}
# Why a setting has no effect, by what it is about: told where it is asked for.
_NO_EFFECT: Final = {
    "there are no traces": ("TRACING_ENABLED",),
    "the control plane is connected to again after 0.1 to 2 s": (
        "CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL",
        "XDS_CLIENT_BACKOFF_INITIAL_INTERVAL",
        "XDS_CLIENT_BACKOFF_MAX_INTERVAL",
        "XDS_CLIENT_BACKOFF_RANDOM_FACTOR",
        "XDS_CLIENT_BACKOFF_JITTER",
    ),
    "messages of 64 MiB are taken": ("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES",),
    "what is there of it is at HOST and PORT": ("DEBUG_HOST", "DEBUG_PORT"),
    "metrics are at HOST and PORT": ("PROMETHEUS_ADDR",),
    "metrics are at /metrics": ("PROMETHEUS_PATH",),
    "metrics have names of their own": ("PROMETHEUS_MAPPER_YAML",),
    "store_timeout_s says how long a store is waited for": ("REDIS_TIMEOUT", "REDIS_PERSECOND_TIMEOUT"),
    "one connection takes all that is asked at a time": (
        "REDIS_POOL_SIZE",
        "REDIS_POOL_ON_EMPTY_BEHAVIOR",
        "REDIS_PIPELINE_WINDOW",
        "REDIS_PIPELINE_LIMIT",
        "REDIS_PERSECOND_POOL_SIZE",
        "REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR",
        "REDIS_PERSECOND_PIPELINE_WINDOW",
        "REDIS_PERSECOND_PIPELINE_LIMIT",
    ),
    "a lost store is told at /health/ready, and makes nobody unready": ("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION",),
    "counters end with their windows": ("EXPIRATION_JITTER_MAX_SECONDS",),
}
_AS_IT_IS: Final = {"PROMETHEUS_PATH": "/metrics"}
_LONGEST_AGE_S: Final = 2_000_000.0


def translate(environ: Mapping[str, str]) -> Translation:
    """Returns the settings that envoyproxy/ratelimit would have in this environment; no value is in faults or notes."""
    out = Translation()
    given = Given(environ, out)
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
    statsd(given)
    _without_effect(given)
    return out


def _without_effect(given: Given) -> None:
    notes = given.out.notes
    for why, names in _NO_EFFECT.items():
        asked = [each for each in names if given.text(each) not in FALSE | {_AS_IT_IS.get(each, "")}]
        if asked:
            notes.append(f"{', '.join(asked)} {'have' if len(asked) > 1 else 'has'} no effect: {why}")
    if given.flag("USE_PROMETHEUS") and not given.text("PROMETHEUS_ADDR"):
        notes.append("USE_PROMETHEUS: metrics are at HOST and PORT, and not on port 9090")


def _serving(given: Given) -> None:
    settings = given.out.settings
    path = given.text("GRPC_UDS")
    settings["listen"] = f"unix:{path}" if path else _address(given, "GRPC_", "8081")
    settings["http"] = _address(given, "", "8080")
    for name, theirs, default_s in (
        ("max_connection_age_s", "GRPC_MAX_CONNECTION_AGE", 86_400.0),
        ("max_connection_age_grace_s", "GRPC_MAX_CONNECTION_AGE_GRACE", 3600.0),
    ):
        settings[name] = f"{min(given.seconds(theirs, default_s), _LONGEST_AGE_S):g}"
    if given.flag("GRPC_SERVER_USE_TLS"):
        given.put("tls_certificate", given.text("GRPC_SERVER_TLS_CERT"))
        given.put("tls_private_key", given.text("GRPC_SERVER_TLS_KEY"))
        given.put("tls_client_ca", given.text("GRPC_CLIENT_TLS_CACERT"))
        given.put("tls_client_san", given.text("GRPC_CLIENT_TLS_SAN"))
    level = given.text("LOG_LEVEL", "warn").lower()
    settings["log_level"] = (_LEVELS | _LEVELS_ABOVE).get(level, "INFO")
    settings["log_format"] = "json" if given.text("LOG_FORMAT").lower() == "json" else "human"


def _address(given: Given, prefix: str, port: str) -> str:
    host = given.text(f"{prefix}HOST", "0.0.0.0")
    return f"{f'[{host}]' if ':' in host else host}:{given.text(f'{prefix}PORT', port)}"


def _xds(given: Given) -> None:
    settings = given.out.settings
    settings["xds"] = given.text("CONFIG_GRPC_XDS_SERVER_URL", "localhost:18000")
    settings["xds_protocol"] = "sotw"
    # Its domains keep their names, so one that is not known has no limits.
    settings["unknown_domain"] = "allow"
    settings["node_id"] = given.text("CONFIG_GRPC_XDS_NODE_ID", "default")
    told = [each for each in given.text("CONFIG_GRPC_XDS_NODE_METADATA").split(",") if each.partition("=")[1]]
    given.put("xds_node_metadata", ",".join(told))
    headers = given.pairs("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS")
    given.put("xds_headers", ",".join(f"{name}:{value}" for name, value in headers.items()))
    if not given.flag("CONFIG_GRPC_XDS_SERVER_USE_TLS"):
        return
    if not given.text("CONFIG_GRPC_XDS_SERVER_TLS_CACERT"):
        given.out.faults.append("CONFIG_GRPC_XDS_SERVER_TLS_CACERT is missing: the system's authorities are not used")
    given.put("xds_ca", given.text("CONFIG_GRPC_XDS_SERVER_TLS_CACERT"))
    given.put("xds_server_name", given.text("CONFIG_GRPC_XDS_SERVER_TLS_SAN"))
    given.put("xds_client_certificate", given.text("CONFIG_GRPC_XDS_CLIENT_TLS_CERT"))
    given.put("xds_client_key", given.text("CONFIG_GRPC_XDS_CLIENT_TLS_KEY"))


def _stores(given: Given) -> None:
    if given.text("BACKEND_TYPE", "redis") != "redis":
        given.out.faults.append("BACKEND_TYPE is not supported unless it is redis")
        return
    given.put("redis", _url(given, "REDIS", "/var/run/nutcracker/ratelimit.sock"))
    if given.flag("REDIS_PERSECOND"):
        path = "/var/run/nutcracker/ratelimitpersecond.sock"
        given.put("redis_per_second", _url(given, "REDIS_PERSECOND", path))


def _url(given: Given, prefix: str, default: str) -> str:
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


def _tls_options(given: Given) -> dict[str, str]:
    files = {
        "ssl_ca_certs": given.text("REDIS_TLS_CACERT"),
        "ssl_certfile": given.text("REDIS_TLS_CLIENT_CERT"),
        "ssl_keyfile": given.text("REDIS_TLS_CLIENT_KEY"),
    }
    options = {name: path for name, path in files.items() if path}
    return options | ({"ssl_check_hostname": "false"} if given.flag("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION") else {})

"""Every variable of envoyproxy/ratelimit has its place: it has an effect, or is told, or there is nothing to say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.environment import translate

PAGE = Path(__file__).resolve().parents[3] / "docs" / "ratelimit" / "migrating.md"

# All that its src/settings/settings.go reads (v1.4.1), and gostats' beside it, with a value that is not the default.
VARIABLES = {
    "HOST": "127.0.0.1",
    "PORT": "9000",
    "DEBUG_HOST": "127.0.0.1",
    "DEBUG_PORT": "6071",
    "GRPC_UDS": "/run/rl.sock",
    "GRPC_HOST": "127.0.0.1",
    "GRPC_PORT": "9001",
    "GRPC_MAX_CONNECTION_AGE": "1h",
    "GRPC_MAX_CONNECTION_AGE_GRACE": "5m",
    "GRPC_SERVER_USE_TLS": "false",
    "GRPC_SERVER_TLS_CERT": "/other.crt",
    "GRPC_SERVER_TLS_KEY": "/other.key",
    "GRPC_CLIENT_TLS_CACERT": "/ca.crt",
    "GRPC_CLIENT_TLS_SAN": "envoy",
    "LOG_LEVEL": "debug",
    "LOG_FORMAT": "json",
    "CONFIG_TYPE": "GRPC_XDS_SOTW",
    "CONFIG_GRPC_XDS_NODE_ID": "limiter",
    "CONFIG_GRPC_XDS_NODE_METADATA": "a=b",
    "CONFIG_GRPC_XDS_SERVER_URL": "control:18000",
    "CONFIG_GRPC_XDS_SERVER_CONNECT_RETRY_INTERVAL": "9s",
    "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS": "a:b",
    "CONFIG_GRPC_XDS_SERVER_USE_TLS": "false",
    "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": "/x.crt",
    "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": "/x.key",
    "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/other-ca.crt",
    "CONFIG_GRPC_XDS_SERVER_TLS_SAN": "control",
    "XDS_CLIENT_BACKOFF_INITIAL_INTERVAL": "1s",
    "XDS_CLIENT_BACKOFF_MAX_INTERVAL": "2s",
    "XDS_CLIENT_BACKOFF_RANDOM_FACTOR": "0.2",
    "XDS_CLIENT_BACKOFF_JITTER": "true",
    "XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES": "1000",
    "USE_DOG_STATSD": "true",
    "USE_DOG_STATSD_MOGRIFIERS": "NAME,OTHER",
    "DOG_STATSD_MOGRIFIER_NAME_PATTERN": "b",
    "DOG_STATSD_MOGRIFIER_NAME_NAME": "b",
    "DOG_STATSD_MOGRIFIER_NAME_TAGS": "b:c",
    "USE_STATSD": "false",
    "STATSD_HOST": "collector",
    "STATSD_PORT": "9125",
    "STATSD_PROTOCOL": "udp",
    "EXTRA_TAGS": "a:b",
    "STATS_FLUSH_INTERVAL": "1s",
    "DISABLE_STATS": "true",
    "USE_PROMETHEUS": "true",
    "PROMETHEUS_ADDR": ":9091",
    "PROMETHEUS_PATH": "/stats",
    "PROMETHEUS_MAPPER_YAML": "/mapper.yaml",
    "RUNTIME_ROOT": "/srv",
    "RUNTIME_SUBDIRECTORY": "ratelimit",
    "RUNTIME_APPDIRECTORY": "limits",
    "EXPIRATION_JITTER_MAX_SECONDS": "20",
    "NEAR_LIMIT_RATIO": "0.5",
    "CACHE_KEY_PREFIX": "p",
    "BACKEND_TYPE": "memcache",
    "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": "true",
    "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
    "LIMIT_LIMIT_HEADER": "X-L",
    "LIMIT_REMAINING_HEADER": "X-R",
    "LIMIT_RESET_HEADER": "X-S",
    "REDIS_SOCKET_TYPE": "unix",
    "REDIS_TYPE": "CLUSTER",
    "REDIS_URL": "other:1",
    "REDIS_POOL_SIZE": "20",
    "REDIS_AUTH": "p",
    "REDIS_TLS": "true",
    "REDIS_TLS_CLIENT_CERT": "/x.crt",
    "REDIS_TLS_CLIENT_KEY": "/x.key",
    "REDIS_TLS_CACERT": "/ca.crt",
    "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "true",
    "REDIS_PIPELINE_WINDOW": "150us",
    "REDIS_PIPELINE_LIMIT": "8",
    "REDIS_PERSECOND": "false",
    "REDIS_PERSECOND_SOCKET_TYPE": "unix",
    "REDIS_PERSECOND_TYPE": "CLUSTER",
    "REDIS_PERSECOND_URL": "other:2",
    "REDIS_PERSECOND_POOL_SIZE": "20",
    "REDIS_PERSECOND_AUTH": "p",
    "REDIS_PERSECOND_TLS": "true",
    "REDIS_SENTINEL_AUTH": "p",
    "REDIS_PERSECOND_SENTINEL_AUTH": "p",
    "REDIS_PERSECOND_PIPELINE_WINDOW": "150us",
    "REDIS_PERSECOND_PIPELINE_LIMIT": "8",
    "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION": "true",
    "REDIS_TIMEOUT": "5s",
    "REDIS_PERSECOND_TIMEOUT": "5s",
    "REDIS_POOL_ON_EMPTY_BEHAVIOR": "WAIT",
    "REDIS_PERSECOND_POOL_ON_EMPTY_BEHAVIOR": "WAIT",
    "SHADOW_MODE": "true",
    "QUOTA_MODE": "true",
    "RESPONSE_DYNAMIC_METADATA": "true",
    "MERGE_DOMAIN_CONFIG": "true",
    "TRACING_ENABLED": "true",
}
# What they ask for is so in any case, or depends on another one that is told.
NOTHING_TO_SAY = {
    "FORCE_START_WITHOUT_INITIAL_CONFIG",
    "HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED",
    "LOCAL_CACHE_SIZE_IN_BYTES",
    "RUNTIME_WATCH_ROOT",
    "RUNTIME_IGNOREDOTFILES",
    "GOSTATS_FLUSH_INTERVAL_SECONDS",
    "GOSTATS_LOGGING_SINK_DISABLED",
    "MEMCACHE_HOST_PORT",
    "MEMCACHE_MAX_IDLE_CONNS",
    "MEMCACHE_SRV",
    "MEMCACHE_SRV_REFRESH",
    "MEMCACHE_TLS",
    "MEMCACHE_TLS_CLIENT_CERT",
    "MEMCACHE_TLS_CLIENT_KEY",
    "MEMCACHE_TLS_CACERT",
    "MEMCACHE_TLS_SKIP_HOSTNAME_VERIFICATION",
    "TRACING_SERVICE_NAME",
    "TRACING_SERVICE_NAMESPACE",
    "TRACING_SERVICE_INSTANCE_ID",
    "TRACING_EXPORTER_PROTOCOL",
    "TRACING_SAMPLING_RATE",
}
TCP = {"REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": "r:1", "REDIS_PERSECOND": "true"}
SECOND = {"REDIS_PERSECOND_SOCKET_TYPE": "tcp", "REDIS_PERSECOND_URL": "s:2"}
SERVED = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "/tls.crt", "GRPC_SERVER_TLS_KEY": "/tls.key"}
XDS = {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true"}
DATADOG = {
    "USE_DOG_STATSD": "true",
    "USE_DOG_STATSD_MOGRIFIERS": "NAME",
    "DOG_STATSD_MOGRIFIER_NAME_PATTERN": "a",
    "DOG_STATSD_MOGRIFIER_NAME_NAME": "a",
}
# Deployments, in one of which each of them is not without effect.
DEPLOYMENTS: tuple[dict[str, str], ...] = (
    {},
    TCP | SECOND | SERVED,
    TCP | SECOND | {"REDIS_TLS": "true"},
    TCP | {"REDIS_TYPE": "SENTINEL", "REDIS_URL": "main,s:1"},
    TCP | SECOND | {"REDIS_PERSECOND_TYPE": "SENTINEL", "REDIS_PERSECOND_URL": "main,s:1"},
    XDS | {"CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/ca.crt"},
    DATADOG,
)


def outcome(environ: dict[str, str]) -> tuple[Any, ...]:
    found = translate(environ)
    return found.settings, found.notes, found.faults


@pytest.mark.parametrize("name", VARIABLES)
def test_no_variable_is_passed_over_in_silence(name: str) -> None:
    value = {name: VARIABLES[name]}
    assert any(outcome(each) != outcome(each | value) for each in DEPLOYMENTS)


@pytest.mark.parametrize("name", sorted(NOTHING_TO_SAY))
def test_what_is_so_in_any_case_is_not_told(name: str) -> None:
    assert all(outcome(each) == outcome(each | {name: "true"}) for each in DEPLOYMENTS)


def test_the_page_names_every_variable_and_no_other() -> None:
    text = PAGE.read_text("utf-8")
    table = text[text.index("## Settings") : text.index("## Differences")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]*[A-Z0-9])`", row)]
    assert sorted(named) == sorted(VARIABLES.keys() | NOTHING_TO_SAY)


def test_the_page_says_what_is_told_and_what_is_refused() -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    for line in (line for line in lines if line.startswith("| `") and "| told, without effect" in line):
        for name in re.findall(r"`([A-Z][A-Z0-9_]*[A-Z0-9])`", line.split("|")[1]):
            notes = [note for each in DEPLOYMENTS for note in translate(each | {name: VARIABLES[name]}).notes]
            assert any(name in note for note in notes), name
    assert translate({"BACKEND_TYPE": "memcache"}).faults

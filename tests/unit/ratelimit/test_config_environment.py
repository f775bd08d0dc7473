"""A deployment of envoyproxy/ratelimit becomes one of this service by its image: its variables are understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragoman import settings as layers
from ratelimit_service.environment import translate
from ratelimit_service.headers import ResponseHeaders
from ratelimit_service.model import OnStoreError
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.redis_url import Kind, RedisUrl

# As Envoy Gateway sets them for the limiter that it runs.
ENVOY_GATEWAY = {
    "RUNTIME_ROOT": "/data",
    "RUNTIME_SUBDIRECTORY": "ratelimit",
    "RUNTIME_IGNOREDOTFILES": "true",
    "RUNTIME_WATCH_ROOT": "false",
    "LOG_LEVEL": "info",
    "USE_STATSD": "false",
    "CONFIG_TYPE": "GRPC_XDS_SOTW",
    "CONFIG_GRPC_XDS_SERVER_URL": "envoy-gateway:18001",
    "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
    "GRPC_SERVER_USE_TLS": "true",
    "GRPC_SERVER_TLS_CERT": "/certs/tls.crt",
    "GRPC_SERVER_TLS_KEY": "/certs/tls.key",
    "GRPC_SERVER_TLS_CA_CERT": "/certs/ca.crt",
    "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true",
    "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": "/certs/tls.crt",
    "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": "/certs/tls.key",
    "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/certs/ca.crt",
    "FORCE_START_WITHOUT_INITIAL_CONFIG": "true",
    "REDIS_SOCKET_TYPE": "tcp",
    "REDIS_URL": "redis.redis-system.svc:6379",
    "USE_PROMETHEUS": "true",
    "PROMETHEUS_ADDR": ":19001",
}


def settings_of(**environ: str) -> RateLimitSettings:
    translated = translate(environ)
    assert translated.faults == []
    ours = {f"DRAGOMAN_{name.upper()}": value for name, value in translated.settings.items()}
    return layers.load(RateLimitSettings, environ=ours)


def test_the_limiter_that_envoy_gateway_runs_is_understood() -> None:
    given = settings_of(**ENVOY_GATEWAY)
    assert (given.listen, given.http) == ("0.0.0.0:8081", "0.0.0.0:8080")
    assert (given.xds, given.node_id, given.xds_protocol) == ("envoy-gateway:18001", "envoy-ratelimit", "sotw")
    assert given.unknown_domain is OnStoreError.ALLOW
    assert (given.xds_ca, given.xds_client_key) == (Path("/certs/ca.crt"), Path("/certs/tls.key"))
    assert given.tls_certificate == Path("/certs/tls.crt")
    assert given.redis == "redis://redis.redis-system.svc:6379"
    assert given.response_headers is ResponseHeaders.NONE
    assert translate(ENVOY_GATEWAY).notes == ["PROMETHEUS_ADDR has no effect: metrics are at HOST and PORT"]


def test_the_control_plane_is_told_what_it_was_told() -> None:
    given = settings_of(
        CONFIG_TYPE="GRPC_XDS_SOTW",
        CONFIG_GRPC_XDS_NODE_METADATA="zone=eu,odd,team=edge",
        CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS="authorization:Bearer abc,x-a:b",
    )
    assert given.node_metadata == {"zone": "eu", "team": "edge"}
    assert given.xds_credentials.metadata() == (("authorization", "Bearer abc"), ("x-a", "b"))


def test_clients_are_known_by_their_certificates() -> None:
    files = {"GRPC_SERVER_TLS_CERT": "/c", "GRPC_SERVER_TLS_KEY": "/k", "GRPC_CLIENT_TLS_CACERT": "/ca"}
    given = settings_of(GRPC_SERVER_USE_TLS="true", GRPC_CLIENT_TLS_SAN="envoy.example", **files)
    assert given.tls is not None
    assert (given.tls.client_ca, given.tls.client_san) == (Path("/ca"), "envoy.example")
    # Without an authority nobody shows a certificate, and it would be for nothing.
    translated = translate({"GRPC_SERVER_USE_TLS": "true", "GRPC_CLIENT_TLS_SAN": "envoy"} | files)
    ours = {f"DRAGOMAN_{name.upper()}": value for name, value in translated.settings.items()}
    del ours["DRAGOMAN_TLS_CLIENT_CA"]
    with pytest.raises(layers.SettingsError, match="tls_client_san needs tls_client_ca"):
        layers.load(RateLimitSettings, environ=ours)


def test_where_metrics_are_is_told_to_who_looks_for_them_elsewhere() -> None:
    assert translate({"USE_PROMETHEUS": "true"}).notes == [
        "USE_PROMETHEUS: metrics are at HOST and PORT, and not on port 9090"
    ]


def test_addresses_of_ipv6_are_understood() -> None:
    given = settings_of(GRPC_HOST="::", HOST="::1", PORT="9000")
    assert (given.listen, given.http) == ("[::]:8081", "[::1]:9000")


def test_files_redis_and_what_answers_carry_are_understood() -> None:
    given = settings_of(
        RUNTIME_ROOT="/srv/runtime/current",
        RUNTIME_SUBDIRECTORY="ratelimit",
        REDIS_SOCKET_TYPE="tcp",
        REDIS_URL="redis:6379",
        REDIS_AUTH="limiter:p:s/w@rd",
        REDIS_PERSECOND="true",
        REDIS_PERSECOND_URL="/run/second.sock",
        GRPC_UDS="/run/rl.sock",
        PORT="9000",
        LIMIT_RESPONSE_HEADERS_ENABLED="true",
        LIMIT_LIMIT_HEADER="X-Limit",
        NEAR_LIMIT_RATIO="0.5",
        CACHE_KEY_PREFIX="p:",
        SHADOW_MODE="TRUE",
        MERGE_DOMAIN_CONFIG="1",
        STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT="true",
        RESPONSE_DYNAMIC_METADATA="t",
        LOG_LEVEL="error",
        GRPC_MAX_CONNECTION_AGE="1h30m",
        GRPC_MAX_CONNECTION_AGE_GRACE="1m",
    )
    assert given.config == Path("/srv/runtime/current/ratelimit/config")
    assert (given.listen, given.http) == ("unix:/run/rl.sock", "0.0.0.0:9000")
    assert given.redis is not None
    server = RedisUrl.parse(given.redis).server
    assert (server.host, server.username, server.password) == ("redis", "limiter", "p:s/w@rd")
    assert given.redis_per_second == "unix:///run/second.sock"
    assert (given.response_headers, given.limit_header, given.reset_header) == (
        ResponseHeaders.PLAIN,
        "X-Limit",
        "RateLimit-Reset",
    )
    assert (given.near_ratio, given.key_prefix, given.log_level) == (0.5, "p:", "ERROR")
    assert given.look_first is True
    assert (given.max_connection_age_s, given.max_connection_age_grace_s) == (5400, 60)
    assert (given.shadow_mode, given.quota_mode, given.merge_domains, given.response_metadata) == (
        True,
        False,
        True,
        True,
    )


def test_sentinels_and_clusters_are_understood() -> None:
    sentinel = settings_of(
        REDIS_TYPE="SENTINEL", REDIS_URL="main,s1:26379,s2:26379", REDIS_AUTH="secret", REDIS_SENTINEL_AUTH="u:p&q"
    )
    assert sentinel.redis is not None
    found = RedisUrl.parse(sentinel.redis)
    assert (found.kind, found.service, found.server.password) == (Kind.SENTINEL, "main", "secret")
    assert [(each.host, each.username, each.password) for each in found.seeds] == [
        ("s1", "u", "p&q"),
        ("s2", "u", "p&q"),
    ]
    cluster = settings_of(REDIS_TYPE="cluster", REDIS_URL="c1:1,c2:2", REDIS_TLS="true")
    assert cluster.redis == "rediss+cluster://c1:1,c2:2"
    assert [each.port for each in RedisUrl.parse(cluster.redis).seeds] == [1, 2]


def test_tls_to_redis_takes_its_files() -> None:
    url = translate(
        {
            "REDIS_SOCKET_TYPE": "tcp",
            "REDIS_URL": "r:1",
            "REDIS_TLS": "true",
            "REDIS_TLS_CACERT": "/c a.crt",
            "REDIS_TLS_CLIENT_CERT": "/c.crt",
            "REDIS_TLS_CLIENT_KEY": "/c.key",
            "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION": "true",
        }
    ).settings["redis"]
    assert url == (
        "rediss://r:1?ssl_ca_certs=%2Fc+a.crt&ssl_certfile=%2Fc.crt&ssl_keyfile=%2Fc.key&ssl_check_hostname=false"
    )


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"BACKEND_TYPE": "memcache"}, "BACKEND_TYPE is not supported unless it is redis"),
        ({"SHADOW_MODE": "maybe"}, "SHADOW_MODE is neither true nor false"),
        ({"REDIS_URL": "redis://:secret@r:1"}, "REDIS_URL and REDIS_TYPE are not understood"),
        ({"REDIS_TLS": "true"}, "REDIS_TLS is not supported on a Unix socket"),
        (
            {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true"},
            "CONFIG_GRPC_XDS_SERVER_TLS_CACERT is missing",
        ),
    ],
)
def test_what_cannot_be_done_is_told_by_name_and_without_its_value(environ: dict[str, str], fault: str) -> None:
    (said,) = translate(environ).faults
    assert fault in said
    assert "secret" not in said

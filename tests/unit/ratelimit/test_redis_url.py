"""The URL of a store: what it may say, what it may not, and that nothing of a password is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.redis_url import Kind, RedisTarget, RedisUrl
from tests.support.certificates import Authority

SECRET = "s3cret-p%2Fw"


def test_a_single_server_is_named_as_redis_py_names_it() -> None:
    found = RedisUrl.parse(f"redis://me:{SECRET}@redis.example:7000/3")
    assert found == RedisUrl(
        Kind.SINGLE, RedisTarget(host="redis.example", port=7000, db=3, username="me", password="s3cret-p/w")
    )
    assert RedisUrl.parse("unix:///run/redis.sock?db=2").server == RedisTarget(path="/run/redis.sock", db=2)
    assert RedisUrl.parse("redis://[::1]:7000").server == RedisTarget(host="::1", port=7000)


def test_sentinels_are_listed_before_the_service_and_have_credentials_of_their_own() -> None:
    options = "sentinel_username=watch&sentinel_password=s3cret-watch"
    found = RedisUrl.parse(f"redis+sentinel://:{SECRET}@one,two:7001,[::1]:7002/my%20service/4?{options}")
    assert (found.kind, found.service) == (Kind.SENTINEL, "my service")
    assert (found.server.password, found.server.db) == ("s3cret-p/w", 4)
    assert [(each.host, each.port) for each in found.seeds] == [("one", 26379), ("two", 7001), ("::1", 7002)]
    assert {(each.username, each.password, each.db) for each in found.seeds} == {("watch", "s3cret-watch", 0)}


def test_the_nodes_of_a_cluster_share_credentials() -> None:
    found = RedisUrl.parse(f"redis+cluster://me:{SECRET}@one,two:7001")
    assert found.kind is Kind.CLUSTER
    assert [(each.host, each.port, each.username, each.password) for each in found.seeds] == [
        ("one", 6379, "me", "s3cret-p/w"),
        ("two", 7001, "me", "s3cret-p/w"),
    ]


def test_tls_is_an_s_in_the_scheme_and_sentinels_may_do_without(tmp_path: Path) -> None:
    authority = Authority()
    ca = tmp_path / "ca.crt"
    ca.write_text(authority.cert_pem)
    found = RedisUrl.parse(f"rediss+sentinel://one/service?ssl_ca_certs={ca}")
    assert found.server.tls is not None
    assert found.server.tls.context().check_hostname
    assert found.seeds[0].tls is not None
    assert RedisUrl.parse(f"rediss+sentinel://one/service?ssl_ca_certs={ca}&sentinel_ssl=false").seeds[0].tls is None
    lenient = RedisUrl.parse(f"rediss+cluster://one?ssl_ca_certs={ca}&ssl_check_hostname=false").seeds[0].tls
    assert lenient is not None
    assert not lenient.context().check_hostname


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memcached://host", "a Redis URL begins with one of redis://, rediss://, unix://, redis+sentinel://"),
        ("redis+sentinel://one,two", "names no service after the Sentinels"),
        ("redis+sentinel://one/service/x", "what follows the service in the Redis URL is not the number of a database"),
        ("redis+sentinel://one/service?sentinel_ssl=maybe", "sentinel_ssl in the Redis URL is neither true nor false"),
        ("redis+cluster://one/1", "a Redis Cluster has no database but 0"),
        ("redis+cluster://one,,two", "an address without a host"),
        ("redis://host?sentinel_password=s3cret", "unknown options in the Redis URL: sentinel_password"),
        ("redis://host?colour=red", "unknown options in the Redis URL: colour"),
        ("redis://:s3cret@host?password_file=/x", "the Redis URL has a password and a password_file"),
        ("redis://me:s3cret/part@host:1/0", "special characters of a password are to be percent-encoded"),
        ("redis+cluster://me:s3cret/part@host:1", "a Redis Cluster has no database but 0"),
        ("rediss://host?ssl_ca_certs=/nowhere", "the TLS files of the Redis URL cannot be used"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_repeating_it(url: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        RedisUrl.parse(url)
    assert reason in str(refused.value)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        RateLimitSettings(listen="127.0.0.1:0", config=Path("x"), redis=url)
    assert reason in str(invalid.value.errors()[0]["msg"])


def test_credentials_are_not_shown() -> None:
    found = RedisUrl.parse(f"redis+sentinel://me:{SECRET}@one/service?sentinel_password=s3cret-watch")
    settings = RateLimitSettings(
        listen="127.0.0.1:0", config=Path("x"), redis=f"redis://:{SECRET}@h", redis_per_second=f"redis://:{SECRET}@g"
    )
    for shown in (repr(found), str(found.server), str(found.seeds[0]), repr(settings)):
        assert "s3cret" not in shown


def test_a_password_file_is_read_each_time_and_ends_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    target = RedisUrl.parse(f"redis://me@host?password_file={file}").server
    with pytest.raises(OSError):
        target.secret()
    for password in ("one", "two"):
        file.write_text(f"{password}\n")
        assert target.secret() == password


def test_a_second_store_needs_a_first() -> None:
    with pytest.raises(ValidationError, match="redis_per_second is beside redis"):
        RateLimitSettings(listen="127.0.0.1:0", config=Path("x"), redis_per_second="redis://host")

"""What the chart makes of the values of the rate limit service: stores, settings, quota mode."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, urlencode

import pytest

from dragoman.settings import load
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.redis_url import Kind, RedisUrl
from tests.unit.chart.helm import VARIANTS, Document, arguments, find, pods, render

STORES = "limits in stores of their own"


def environment(documents: list[Document], component: str) -> dict[str, Document]:
    found = dict(pods(documents))[f"dragoman-{component}"]["containers"][0]["env"]
    return {each["name"]: each for each in found}


def store(documents: list[Document], variable: str) -> tuple[RedisUrl, dict[str, str]]:
    """The URL that the rate limit service is told by a Secret of the chart's own, and its options for TLS."""
    reference = environment(documents, "ratelimit")[variable]["valueFrom"]["secretKeyRef"]
    secret = find(documents, "Secret", reference["name"])
    url, _, options = base64.b64decode(secret["data"][reference["key"]]).decode().partition("?")
    given = dict(parse_qsl(options))
    # The program reads these files when it reads the URL.
    of_tls = {name: given.pop(name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in given}
    return RedisUrl.parse(f"{url}?{urlencode(given)}"), of_tls


def settings(documents: list[Document]) -> RateLimitSettings:
    """What the rate limit service makes of its environment, but for the stores."""
    found = environment(documents, "ratelimit").items()
    environ = {name: each["value"] for name, each in found if name.startswith("DRAGOMAN_") and "value" in each}
    return load(RateLimitSettings, environ=environ, flags={"listen": "0.0.0.0:9001", "xds": "127.0.0.1:18000"})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "1"),
        ({"redis": {"url": "redis://redis:6379"}}, "2"),
        ({"redis": {"url": "redis://redis:6379"}, "ratelimit": {"replicas": 5}}, "5"),
        ({"redis": {"url": "redis://redis:6379"}, "ratelimit": {"autoscaling": {"minReplicas": 4}}}, "4"),
        ({"redis": {"url": "redis://redis:6379"}, "ratelimit": {"replicas": 50}}, "10"),
        (
            {"redis": {"url": "redis://redis:6379"}, "ratelimit": {"replicas": 3, "autoscaling": {"enabled": False}}},
            "3",
        ),
        ({"ratelimit": {"replicas": 3, "redis": {"url": "redis+cluster://redis:6379"}}}, "3"),
    ],
)
def test_the_limiter_is_told_among_how_many_a_limit_is_divided_without_its_store(values: Document, told: str) -> None:
    assert environment(render(values), "ratelimit")["DRAGOMAN_REPLICAS"]["value"] == told


def test_pods_that_may_be_several_ask_the_dns_for_their_own_number() -> None:
    values = {
        "redis": {"url": "redis://redis:6379"},
        "clusterDomain": "corp.example",
        "ratelimit": {"quota": {"enabled": True}, "workers": 2},
    }
    documents = render(values)
    told = settings(documents)
    # With a dot at its end: the resolver is not to try it in every domain that it searches.
    assert told.replicas_from == "dragoman-ratelimit.dragoman-system.svc.corp.example."
    service = find(documents, "Service", "dragoman-ratelimit")["spec"]
    assert service["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in service
    assert service["selector"] == find(documents, "Deployment", "dragoman-ratelimit")["spec"]["selector"]["matchLabels"]
    # The pool tells its workers how many they are; one pod that is alone has nobody to count.
    assert "DRAGOMAN_REPLICAS_FROM" not in environment(documents, "quota")
    assert "DRAGOMAN_REPLICAS_FROM" not in environment(render(), "ratelimit")


def test_limits_can_be_counted_in_stores_of_their_own() -> None:
    documents = render(VARIANTS[STORES])
    (first, tls), (second, _) = store(documents, "DRAGOMAN_REDIS"), store(documents, "DRAGOMAN_REDIS_PER_SECOND")
    mounted = mounted_files(documents)
    assert (first.kind, first.server.username) == (Kind.CLUSTER, "limits")
    assert [str(each) for each in first.seeds] == ["node-0:6379", "node-1:6379"]
    assert mounted[first.server.password_file] == ("limits", "password")
    assert {option: mounted[path] for option, path in tls.items()} == {
        "ssl_ca_certs": ("limits-tls", "ca.crt"),
        "ssl_certfile": ("limits-tls", "tls.crt"),
        "ssl_keyfile": ("limits-tls", "tls.key"),
    }
    assert (second.kind, second.service) == (Kind.SENTINEL, "seconds")
    assert mounted[second.server.password_file] == ("seconds", "servers")
    assert mounted[second.seeds[0].password_file] == ("seconds", "sentinels")
    keys = environment(documents, "authz")["DRAGOMAN_REDIS"]
    assert keys["valueFrom"]["secretKeyRef"]["name"] == "dragoman-redis"


def mounted_files(documents: list[Document]) -> dict[str, tuple[str, str]]:
    """The files of Secrets that the rate limit service finds: the Secret and its key."""
    pod = dict(pods(documents))["dragoman-ratelimit"]
    folders = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    return {
        f"{folders[volume['name']]}/{item['path']}": (source["secret"]["name"], item["key"])
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "secret" in source
        for item in source["secret"]["items"]
    }


def test_to_a_url_that_is_in_a_secret_nothing_is_added() -> None:
    documents = render(VARIANTS["limits in a store of a secret"])
    variables = environment(documents, "ratelimit")
    for variable, key in (("DRAGOMAN_REDIS", "address"), ("DRAGOMAN_REDIS_PER_SECOND", "second")):
        assert variables[variable]["valueFrom"] == {"secretKeyRef": {"name": "limits", "key": key}}
    assert "/var/run/secrets/dragoman-redis/ca.crt" in mounted_files(documents)
    made = [each["metadata"]["name"] for each in documents if each["kind"] == "Secret"]
    assert not [name for name in made if "redis" in name]
    assert variables["DRAGOMAN_REPLICAS"]["value"] == "2"
    assert find(documents, "HorizontalPodAutoscaler", "dragoman-ratelimit")


def test_the_limiters_settings_are_those_of_the_values_and_else_the_programs_own() -> None:
    assert settings(render()) == RateLimitSettings(listen="0.0.0.0:9001", xds="127.0.0.1:18000")
    told = settings(render(VARIANTS[STORES]))
    assert told.response_headers == "both"
    assert told.key_prefix == "edge:"
    assert told.shadow_mode is True
    assert (told.near_ratio, told.metrics_detail) == (0.95, "domain")
    assert told.store_timeout_s == 0.05
    assert (told.statsd, told.statsd_tags) == ("dogstatsd://datadog:8125", ("app:edge", "zone:eu"))


def test_quotas_are_divided_by_one_pod_whatever_there_is_besides() -> None:
    values = {"redis": {"url": "redis://redis:6379"}, "ratelimit": {**VARIANTS["quotas"]["ratelimit"], "replicas": 4}}
    documents = render(values)
    host = "dragoman-quota.dragoman-system.svc.cluster.local"
    assert f"--ratelimit-quota={host}:9001" in arguments(documents, "controlplane")
    deployment = find(documents, "Deployment", "dragoman-quota")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    pod = deployment["spec"]["template"]["spec"]
    told = pod["containers"][0]["args"]
    assert told[:2] == ["ratelimit", "--quota-listen=0.0.0.0:9001"]
    assert not [each for each in told if each.startswith(("--workers", "--xds-protocol"))]
    # To the control plane it is the rate limit service, whose certificate it shows to Envoys.
    assert pod["serviceAccountName"] == "dragoman-ratelimit"
    assert "dragoman-xds-ratelimit" in [each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each]
    assert not [each for each in pod["containers"][0]["env"] if "REDIS" in each["name"]]
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert "dragoman-quota" not in [each["metadata"]["name"] for each in documents if each["kind"] == kind]
    service = find(documents, "Service", "dragoman-quota")["spec"]
    assert (service["clusterIP"], service["ports"][0]["port"]) == ("None", 9001)
    assert service["selector"] == deployment["spec"]["selector"]["matchLabels"]
    ingress = find(documents, "NetworkPolicy", "dragoman-quota")["spec"]["ingress"]
    assert ingress[0]["ports"] == [{"protocol": "TCP", "port": 9001}]


def test_nothing_of_quotas_is_there_unless_it_is_asked_for() -> None:
    documents = render()
    assert not [each for each in documents if each["metadata"]["name"].endswith("-quota")]
    assert not [each for each in arguments(documents, "controlplane") if "quota" in each]

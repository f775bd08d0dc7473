"""The pods of a Gateway's Envoys: Envoy, and beside it the process that waits until clients have gone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.api.proxyprovider import ProxyContainer, ProxyPod
from controlplane.api.scalars import parse_duration
from controlplane.provision.kubernetes.labels import BOOTSTRAP, CONTROLLER, digest, selector_labels
from controlplane.provision.kubernetes.ports import ADMIN_PORT, DRAIN_PORT, READY_PORT
from controlplane.provision.kubernetes.quantities import parse_quantity
from controlplane.provision.kubernetes.ready import LIVE_PATH, METRICS_PATH, READY_PATH
from controlplane.provision.kubernetes.wanted import Defaults, Document, WantedGateway
from controlplane.provision.names import resource_name

CONFIG_FOLDER: Final = "/etc/dragoman"
TOKEN_FOLDER: Final = "/var/run/secrets/dragoman"  # noqa: S105 (where it is, not what it is)
TOKEN_AUDIENCE: Final = "dragoman"  # noqa: S105
DRAINED_PATH: Final = "/drained"
_TOKEN_LIFETIME_S: Final = 3600
_USER: Final = 65532
# The kubelet's own doings on top of what the drain may take.
_GRACE_S: Final = 15
# An Envoy is ready when it has its configuration. Until there is a control plane to give it one it waits: to restart
# it would only make the next start come later.
_STARTUP_S: Final = 3600


def pod_template(
    gateway: WantedGateway, defaults: Defaults, *, pod: ProxyPod, container: ProxyContainer, bootstrap: str
) -> Document:
    """Returns the template of the pods; `bootstrap` is the text that Envoy reads when it starts."""
    scraped = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(READY_PORT),
        "prometheus.io/path": METRICS_PATH,
        "kubectl.kubernetes.io/default-container": "envoy",
    }
    own = {BOOTSTRAP: digest(bootstrap), CONTROLLER: defaults.controller_name}
    return {
        "metadata": {
            "labels": {**gateway.labels, **pod.labels, **selector_labels(gateway)},
            "annotations": {**scraped, **gateway.annotations, **pod.annotations, **own},
        },
        "spec": _spec(gateway, defaults, pod, container),
    }


def cpu_limit(container: ProxyContainer, defaults: Defaults) -> int | None:
    """Returns how many cores Envoy may use, rounded up; None without a limit."""
    limit = _limit(container, defaults, "cpu")
    return None if limit is None else max(1, math.ceil(limit))


def memory_limit(container: ProxyContainer, defaults: Defaults) -> int | None:
    """Returns how many bytes Envoy may use; None without a limit."""
    limit = _limit(container, defaults, "memory")
    return None if limit is None else int(limit)


def _limit(container: ProxyContainer, defaults: Defaults, what: str) -> Any:
    resources = container.resources if container.resources is not None else defaults.resources
    limits = resources.get("limits")
    known: Mapping[str, object] = cast("Any", limits) if isinstance(limits, Mapping) else {}
    return parse_quantity(known[what]) if what in known else None


def _spec(gateway: WantedGateway, defaults: Defaults, pod: ProxyPod, container: ProxyContainer) -> Document:
    name = resource_name(gateway.key.name)
    pull_secrets = [*({"name": each} for each in defaults.image_pull_secrets), *pod.image_pull_secrets]
    deployment = gateway.config.provider.kubernetes.envoy_deployment
    optional = {
        "initContainers": list(deployment.init_containers) if deployment is not None else [],
        "nodeSelector": pod.node_selector,
        "affinity": pod.affinity,
        "tolerations": list(pod.tolerations),
        "topologySpreadConstraints": _spread(gateway, pod),
        "imagePullSecrets": pull_secrets,
        "priorityClassName": pod.priority_class_name,
    }
    return {
        "serviceAccountName": name,
        # The one token that is there is for the control plane, and of no use to the API server.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(_drain_s(gateway.config)[0]) + _GRACE_S,
        "securityContext": pod.security_context or _pod_security(),
        "containers": [_envoy(gateway.config, defaults, container), _drain(gateway.config, defaults)],
        "volumes": [*_volumes(name), *pod.volumes],
        **{key: value for key, value in optional.items() if value},
    }


def _envoy(config: ProxyConfigSpec, defaults: Defaults, container: ProxyContainer) -> Document:
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return {
        "name": "envoy",
        "image": _image(container, defaults),
        **_pull_policy(defaults),
        "command": ["envoy"],
        "args": _arguments(config, defaults, container),
        "env": [pod_name, *container.env],
        "resources": dict(container.resources if container.resources is not None else defaults.resources),
        "securityContext": container.security_context or _security(),
        # Listeners come and go without a pod being replaced, so their ports are not named here.
        "ports": [{"name": "metrics", "containerPort": READY_PORT, "protocol": "TCP"}],
        "startupProbe": {**_get(READY_PATH), "periodSeconds": 1, "failureThreshold": _STARTUP_S},
        "readinessProbe": {**_get(READY_PATH), "periodSeconds": 5, "failureThreshold": 2, "timeoutSeconds": 3},
        "livenessProbe": {**_get(LIVE_PATH), "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 5},
        # Envoy ends at once when it is asked to; so it is asked when its clients have gone.
        "lifecycle": {"preStop": {"httpGet": {"path": DRAINED_PATH, "port": DRAIN_PORT}}},
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/var/tmp"},  # noqa: S108 (a volume of the pod's own)
            *container.volume_mounts,
        ],
    }


def _arguments(config: ProxyConfigSpec, defaults: Defaults, container: ProxyContainer) -> list[str]:
    levels = dict(config.logging.level)
    level = levels.pop("default", "warn")
    # `misc` warns of every message that Envoy marks as work in progress: nothing that a reader could act on.
    components = ",".join(f"{name}:{each}" for name, each in {"misc": "error", **levels}.items())
    workers = config.concurrency or cpu_limit(container, defaults) or defaults.concurrency
    return [
        *("-c", f"{CONFIG_FOLDER}/envoy.yaml"),
        *("--service-node", "$(POD_NAME)"),
        *("--concurrency", str(workers)),
        *("--log-level", "warning" if level == "warn" else level),
        *("--component-log-level", components),
        *("--drain-time-s", str(math.ceil(_drain_s(config)[0]))),
        # Every response from the start of the drain tells its client to go, not only more and more of them.
        *("--drain-strategy", "immediate"),
        "--disable-hot-restart",
        *config.extra_args,
    ]


def _drain(config: ProxyConfigSpec, defaults: Defaults) -> Document:
    timeout_s, least_s = _drain_s(config)
    return {
        "name": "drain",
        "image": defaults.image,
        **_pull_policy(defaults),
        "command": ["python", "-m", "controlplane.provision.kubernetes.drain"],
        "args": [
            *("--admin", f"127.0.0.1:{ADMIN_PORT}"),
            *("--port", str(DRAIN_PORT)),
            *("--timeout", f"{timeout_s:g}"),
            *("--at-least", f"{least_s:g}"),
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": _security(),
    }


def _drain_s(config: ProxyConfigSpec) -> tuple[float, float]:
    shutdown = config.shutdown
    timeout, least = parse_duration(shutdown.drain_timeout), parse_duration(shutdown.min_drain_duration)
    return timeout.total_seconds(), least.total_seconds()


def _image(container: ProxyContainer, defaults: Defaults) -> str:
    if container.image is not None:
        return container.image
    if container.image_repository is None:
        return defaults.envoy_image
    path, _, last = defaults.envoy_image.rpartition("/")
    tag = last.partition(":")[2] if path or last else ""
    return f"{container.image_repository}:{tag}" if tag else container.image_repository


def _pull_policy(defaults: Defaults) -> Document:
    return {"imagePullPolicy": defaults.image_pull_policy} if defaults.image_pull_policy else {}


def _get(path: str) -> Document:
    return {"httpGet": {"path": path, "port": READY_PORT}}


def _spread(gateway: WantedGateway, pod: ProxyPod) -> list[Mapping[str, Any]]:
    if pod.topology_spread_constraints is not None:
        return list(pod.topology_spread_constraints)
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector_labels(gateway)},
        }
    ]


def _pod_security() -> Document:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _security() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _volumes(name: str) -> Iterable[Document]:
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": _TOKEN_LIFETIME_S, "path": "token"}
    return (
        {"name": "config", "configMap": {"name": name}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    )

"""What is made in Kubernetes for a Gateway: pure, from what it wants to documents that are applied as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from controlplane.api.merge import merged
from controlplane.api.proxyprovider import (
    KubernetesPatch,
    KubernetesProvider,
    ProxyDaemonSet,
    ProxyDeployment,
    ProxyService,
)
from controlplane.provision.address import TcpAddress
from controlplane.provision.bootstrap import XdsTls, bootstrap, bootstrap_yaml, secret_files
from controlplane.provision.kubernetes.labels import CONTROLLER, OWN_LABELS, metadata, sealed, selector_labels
from controlplane.provision.kubernetes.pods import CONFIG_FOLDER, TOKEN_FOLDER, memory_limit, pod_template
from controlplane.provision.kubernetes.ports import ADMIN_PORT, READY_PORT, container_port
from controlplane.provision.kubernetes.ready import with_ready_listener
from controlplane.provision.kubernetes.wanted import Defaults, Document, WantedGateway
from controlplane.provision.names import resource_name

_CPU: Final = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
_IDENTITY: Final = ("name", "namespace", "ownerReferences")


def plan(wanted: WantedGateway, defaults: Defaults) -> tuple[Document, ...]:
    """Returns all that a Gateway needs, in the order in which it is needed; each document goes in as a whole.

    A Gateway without ports has no Service, as one cannot be without any.
    """
    config = _config_map(wanted, defaults)
    documents = [_service_account(wanted, defaults), config]
    if wanted.ports:
        documents.append(_service(wanted, defaults))
    documents.append(_workload(wanted, defaults, config["data"]["envoy.yaml"]))
    if wanted.config.provider.kubernetes.envoy_hpa is not None:
        documents.append(_autoscaler(wanted, defaults))
    # A DaemonSet has no number of replicas that a budget could be reckoned from, and emptying nodes passes it by.
    if _provider(wanted).envoy_daemon_set is None or _provider(wanted).envoy_pdb is not None:
        documents.append(_disruption_budget(wanted, defaults))
    return tuple(sealed(document) for document in documents)


def _provider(wanted: WantedGateway) -> KubernetesProvider:
    return wanted.config.provider.kubernetes


def _service_account(wanted: WantedGateway, defaults: Defaults) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(wanted, defaults.controller_name),
        "automountServiceAccountToken": False,
    }


def _config_map(wanted: WantedGateway, defaults: Defaults) -> Document:
    tls = _tls(defaults)
    documents = {} if tls is None else secret_files(tls, defaults.ca_certificate)
    files = {name: bootstrap_yaml(document) for name, document in documents.items()}
    authority = {"ca.crt": defaults.ca_certificate} if defaults.ca_certificate else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(wanted, defaults.controller_name),
        "data": {"envoy.yaml": _bootstrap(wanted, defaults, tls), **files, **authority},
    }


def _tls(defaults: Defaults) -> XdsTls | None:
    if not defaults.server_name:
        return None
    return XdsTls(
        ca_file=f"{CONFIG_FOLDER}/ca.crt",
        server_name=defaults.server_name,
        token_file=f"{TOKEN_FOLDER}/token",
        secrets_folder=CONFIG_FOLDER,
    )


def _bootstrap(wanted: WantedGateway, defaults: Defaults, tls: XdsTls | None) -> str:
    admin = TcpAddress("127.0.0.1", ADMIN_PORT)
    shape = _shape(wanted)
    document = bootstrap(
        f"{wanted.key.namespace}/{wanted.key.name}",
        xds=defaults.xds,
        admin=admin,
        xds_tls=tls,
        max_heap_bytes=memory_limit(shape.container, defaults),
    )
    return bootstrap_yaml(with_ready_listener(document, admin=admin, hosts=defaults.hosts, port=READY_PORT))


def _shape(wanted: WantedGateway) -> ProxyDeployment | ProxyDaemonSet:
    provider = _provider(wanted)
    return provider.envoy_daemon_set or provider.envoy_deployment or ProxyDeployment()


def _workload(wanted: WantedGateway, defaults: Defaults, text: str) -> Document:
    shape = _shape(wanted)
    template = pod_template(wanted, defaults, pod=shape.pod, container=shape.container, bootstrap=text)
    # One more is ready before one ends.
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec: Document = {"selector": {"matchLabels": selector_labels(wanted)}, "template": template}
    if isinstance(shape, ProxyDaemonSet):
        kind, spec["updateStrategy"] = "DaemonSet", shape.strategy or surge
    else:
        kind, spec["strategy"] = "Deployment", shape.strategy or surge
        if shape.replicas is not None and _provider(wanted).envoy_hpa is None:
            spec["replicas"] = shape.replicas
    document = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": metadata(wanted, defaults.controller_name),
        "spec": spec,
    }
    return _patched(document, shape.patch)


def _service(wanted: WantedGateway, defaults: Defaults) -> Document:
    shape = _provider(wanted).envoy_service
    spec: Document = {
        "type": shape.type,
        "selector": selector_labels(wanted),
        "ports": [
            {
                "name": f"{each.transport.lower()}-{each.port}",
                "port": each.port,
                "targetPort": container_port(each.port),
                "protocol": each.transport,
            }
            for each in wanted.ports
        ],
        **_reach(wanted, shape),
    }
    if len(defaults.hosts) > 1:
        spec["ipFamilyPolicy"] = "PreferDualStack"
    made = metadata(wanted, defaults.controller_name, labels=shape.labels, annotations=shape.annotations)
    return _patched({"apiVersion": "v1", "kind": "Service", "metadata": made, "spec": spec}, shape.patch)


def _reach(wanted: WantedGateway, shape: ProxyService) -> Document:
    """How a Service is reached from outside. The first address that the Gateway asks for is what it asks for.

    `externalIPs` are never set: they would let whoever may write a Gateway take any address within the cluster.
    """
    if shape.type == "ClusterIP":
        return {}
    reach: Document = {"externalTrafficPolicy": shape.external_traffic_policy}
    if shape.type != "LoadBalancer":
        return reach
    asked = [value for type_, value in wanted.addresses if type_ == "IPAddress" and value]
    optional = {
        "loadBalancerIP": asked[0] if asked else shape.load_balancer_ip,
        "loadBalancerClass": shape.load_balancer_class,
        "loadBalancerSourceRanges": list(shape.load_balancer_source_ranges) or None,
        "allocateLoadBalancerNodePorts": shape.allocate_load_balancer_node_ports,
    }
    return {**reach, **{key: value for key, value in optional.items() if value is not None}}


def _autoscaler(wanted: WantedGateway, defaults: Defaults) -> Document:
    shape = _provider(wanted).envoy_hpa
    assert shape is not None
    spec: Document = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": resource_name(wanted.key.name)},
        "maxReplicas": shape.max_replicas,
        "metrics": list(shape.metrics) or [_CPU],
    }
    if shape.min_replicas is not None:
        spec["minReplicas"] = shape.min_replicas
    if shape.behavior is not None:
        spec["behavior"] = shape.behavior
    return _patched(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata(wanted, defaults.controller_name),
            "spec": spec,
        },
        shape.patch,
    )


def _disruption_budget(wanted: WantedGateway, defaults: Defaults) -> Document:
    shape = _provider(wanted).envoy_pdb
    spec: Document = {"selector": {"matchLabels": selector_labels(wanted)}}
    if shape is not None and shape.min_available is not None:
        spec["minAvailable"] = _number(shape.min_available)
    else:
        # Never none: a single Envoy would keep a node from ever being emptied.
        spec["maxUnavailable"] = 1 if shape is None or shape.max_unavailable is None else _number(shape.max_unavailable)
    document = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(wanted, defaults.controller_name),
        "spec": spec,
    }
    return _patched(document, shape.patch if shape is not None else None)


def _number(value: int | str) -> int | str:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _patched(document: Document, patch: KubernetesPatch | None) -> Document:
    """Applies what a ProxyConfig changes; which object it is, whose and for which pods is not its to change."""
    if patch is None:
        return document
    out: Document = merged(document, patch.value, how=patch.type)
    before, after = document["metadata"], _mapping(out.get("metadata"))
    own_labels = {name: value for name, value in before["labels"].items() if name in OWN_LABELS}
    annotations = {**_mapping(after.get("annotations")), CONTROLLER: before["annotations"][CONTROLLER]}
    made = {**after, "labels": {**_mapping(after.get("labels")), **own_labels}, "annotations": annotations}
    spec = dict(_mapping(out.get("spec")))
    if "selector" in document["spec"]:
        spec["selector"] = document["spec"]["selector"]
    same = {"apiVersion": document["apiVersion"], "kind": document["kind"]}
    return {**out, **same, "metadata": {**made, **{name: before[name] for name in _IDENTITY}}, "spec": spec}


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}

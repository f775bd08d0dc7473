"""How a Gateway's Envoys are deployed: what ProxyConfig says of the Deployment, the Service and so on."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.meta import Model
from controlplane.api.policy import CIDR, LaterBool, LaterMapping, LaterText
from controlplane.api.scalars import Bool, NonNegative, Positive, refuse

# Parts of Kubernetes' own kinds: the API server knows which fields they have, and its refusal becomes a condition.
Part: TypeAlias = dict[str, object]
Parts: TypeAlias = Annotated[tuple[Part, ...], Field(max_length=256)]
Strings: TypeAlias = Annotated[dict[str, str], Field(max_length=256)]
IntOrPercent: TypeAlias = NonNegative | Annotated[str, Field(pattern="^[0-9]{1,9}%?$")]


def _check_ip(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise refuse(f"expected an IP address; got {text!r}") from None
    return text


IpAddress: TypeAlias = Annotated[str, AfterValidator(_check_ip)]


class KubernetesPatch(Model):
    """A change of what is made, for fields that have no setting of their own."""

    type: Literal["StrategicMerge", "JSONMerge"] = "StrategicMerge"
    """StrategicMerge merges lists of containers, volumes, ports and the like by name; JSONMerge replaces lists."""
    value: Part
    """The part of the object to change."""


class ProxyPod(Model):
    """The pods of the Envoys."""

    annotations: Strings = Field(default_factory=dict)
    """Further annotations."""
    labels: Strings = Field(default_factory=dict)
    """Further labels."""
    node_selector: Strings = Field(default_factory=dict)
    """Labels of the nodes to run on."""
    affinity: Part | None = None
    """Which nodes, and which neighbours, to prefer or to require."""
    tolerations: Parts = ()
    """Taints of nodes to put up with."""
    topology_spread_constraints: Parts | None = None
    """How to spread over zones and nodes; by default over nodes, where that is possible."""
    security_context: Part | None = None
    """In place of the default: not root, and the runtime's own seccomp profile."""
    image_pull_secrets: Parts = ()
    """Secrets for the registry of the image."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """How important the pods are to the scheduler."""
    volumes: Parts = ()
    """Further volumes."""


class ProxyContainer(Model):
    """The container in which Envoy runs."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of Envoy, with its tag."""
    image_repository: (
        Annotated[str, Field(min_length=1, max_length=512, pattern="^[^:@]+(:[0-9]+/[^:@]+)?$")] | None
    ) = None
    """Repository of the image alone; the tag is the default one."""
    resources: Part | None = None
    """Requests and limits. A limit of memory is also where Envoy starts to refuse requests, rather than be killed."""
    env: Parts = ()
    """Further environment variables."""
    security_context: Part | None = None
    """In place of the default: no privileges, no capabilities, a read-only root file system."""
    volume_mounts: Parts = ()
    """Where to see volumes."""

    @model_validator(mode="after")
    def _one_image(self) -> ProxyContainer:
        if self.image is not None and self.image_repository is not None:
            raise refuse("set image or imageRepository, not both", "imageRepository")
        return self


class ProxyDeployment(Model):
    """The Deployment of the Envoys."""

    replicas: NonNegative | None = None
    """How many; when absent it is left to whoever scales the Deployment (Kubernetes starts with 1)."""
    strategy: Part | None = None
    """How pods are replaced; by default one more is ready before one ends."""
    pod: ProxyPod = ProxyPod()
    container: ProxyContainer = ProxyContainer()
    init_containers: Parts = ()
    """Containers that run before Envoy."""
    patch: KubernetesPatch | None = None
    name: LaterText = None


class ProxyDaemonSet(Model):
    """The DaemonSet of the Envoys: one on each node, in place of a Deployment."""

    strategy: Part | None = None
    """How pods are replaced; by default one at a time."""
    pod: ProxyPod = ProxyPod()
    container: ProxyContainer = ProxyContainer()
    patch: KubernetesPatch | None = None
    name: LaterText = None


class ProxyService(Model):
    """The Service before the Envoys."""

    type: Literal["LoadBalancer", "ClusterIP", "NodePort"] = "LoadBalancer"
    """How it is reached from elsewhere."""
    annotations: Strings = Field(default_factory=dict)
    """Further annotations, such as those that a load balancer takes its settings and address pools from."""
    labels: Strings = Field(default_factory=dict)
    """Further labels."""
    external_traffic_policy: Literal["Local", "Cluster"] = "Local"
    """Local keeps the address of the client; Cluster also uses Envoys on other nodes."""
    load_balancer_class: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Which load balancer serves it, where there are several."""
    load_balancer_ip: Annotated[IpAddress | None, Field(alias="loadBalancerIP")] = None
    """Address to ask the load balancer for; `spec.addresses` of the Gateway win."""
    load_balancer_source_ranges: Annotated[tuple[CIDR, ...], Field(max_length=256)] = ()
    """Clients that the load balancer lets in."""
    allocate_load_balancer_node_ports: Bool | None = None
    """Whether a load balancer gets ports on every node, which some do not need."""
    patch: KubernetesPatch | None = None
    name: LaterText = None

    @model_validator(mode="after")
    def _fits_type(self) -> ProxyService:
        if self.type != "LoadBalancer":
            for field, value in (
                ("loadBalancerClass", self.load_balancer_class),
                ("loadBalancerIP", self.load_balancer_ip),
                ("allocateLoadBalancerNodePorts", self.allocate_load_balancer_node_ports),
                ("loadBalancerSourceRanges", self.load_balancer_source_ranges or None),
            ):
                if value is not None:
                    raise refuse("goes with type LoadBalancer alone", field)
        return self


class ProxyAutoscaler(Model):
    """The HorizontalPodAutoscaler of the Deployment, which then decides how many replicas there are."""

    min_replicas: Positive | None = None
    """Fewest replicas."""
    max_replicas: Positive
    """Most replicas."""
    metrics: Parts = ()
    """What to scale by; by default 80 % of the CPU that is requested."""
    behavior: Part | None = None
    """How fast to scale."""
    patch: KubernetesPatch | None = None
    name: LaterText = None

    @model_validator(mode="after")
    def _in_order(self) -> ProxyAutoscaler:
        if (self.min_replicas or 1) > self.max_replicas:
            raise refuse("must not be less than minReplicas", "maxReplicas")
        return self


class ProxyDisruptionBudget(Model):
    """The PodDisruptionBudget: how many Envoys may be missing while nodes are emptied. By default one."""

    min_available: IntOrPercent | None = None
    """How many stay."""
    max_unavailable: IntOrPercent | None = None
    """How many may go at once."""
    patch: KubernetesPatch | None = None
    name: LaterText = None

    @model_validator(mode="after")
    def _one_of(self) -> ProxyDisruptionBudget:
        if self.min_available is not None and self.max_unavailable is not None:
            raise refuse("set minAvailable or maxUnavailable, not both", "maxUnavailable")
        return self


class KubernetesProvider(Model):
    """What is made in Kubernetes for a Gateway."""

    envoy_deployment: ProxyDeployment | None = None
    envoy_daemon_set: ProxyDaemonSet | None = None
    envoy_service: ProxyService = ProxyService()
    envoy_hpa: ProxyAutoscaler | None = None
    envoy_pdb: Annotated[ProxyDisruptionBudget | None, Field(alias="envoyPDB")] = None
    envoy_service_account: LaterMapping = None
    use_listener_port_as_container_port: LaterBool = None

    @model_validator(mode="after")
    def _fit_together(self) -> KubernetesProvider:
        if self.envoy_daemon_set is not None and self.envoy_deployment is not None:
            raise refuse("set envoyDeployment or envoyDaemonSet, not both", "envoyDaemonSet")
        if self.envoy_daemon_set is not None and self.envoy_hpa is not None:
            raise refuse("a DaemonSet is not scaled", "envoyHpa")
        return self


class ProxyProvider(Model):
    """Where the Envoys run. Without Kubernetes (a folder of manifests) this has no effect."""

    type: Literal["Kubernetes", "Host", "Custom"] = "Kubernetes"
    kubernetes: KubernetesProvider = KubernetesProvider()
    host: LaterMapping = None

    @model_validator(mode="after")
    def _is_kubernetes(self) -> ProxyProvider:
        if self.type != "Kubernetes":
            raise refuse("only Kubernetes is supported", "type")
        return self

"""What routes and policies refer to, at random: backends, Secrets, grants, namespaces."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support import manifests as m
from tests.support.certificates import Authority, Certificate
from tests.unit.pipeline.edited_names import HOSTS, JWKS, NAMESPACES, OURS, SERVICES, Manifest, one_of

_AUTHORITY = Authority()
CERTIFICATES = [_AUTHORITY.leaf("a.example.com"), _AUTHORITY.leaf("a.example.com")]
_OF_TWO = Certificate(CERTIFICATES[0].cert_pem, CERTIFICATES[1].key_pem)

# -- backends --

services = st.builds(
    lambda name, namespace, protocol: m.service(name, namespace=namespace, protocol=protocol),
    one_of(SERVICES),
    one_of(NAMESPACES),
    one_of([None, "kubernetes.io/h2c"]),
)
both_transports = st.builds(
    lambda name: m.manifest(
        "v1", "Service", name, {"ports": [{"name": "u", "port": 80, "protocol": "UDP"}, {"port": 80}]}
    ),
    one_of(SERVICES),
)
slices = st.builds(
    lambda name, namespace, addresses, suffix: m.endpoint_slice(name, *addresses, namespace=namespace, suffix=suffix),
    one_of(SERVICES),
    one_of(NAMESPACES),
    st.lists(one_of(["192.0.2.1", "192.0.2.2", "192.0.2.3"]), max_size=2),
    one_of("ab"),
)
_CA = {"tls": {"sni": "backend.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "text"}]}}
backends = st.one_of(
    st.builds(
        lambda address, tls: m.manifest(
            OURS, "Backend", "by-ip", {"endpoints": [{"ip": {"address": address, "port": 80}}], **tls}
        ),
        one_of(["192.0.2.7", "192.0.2.8"]),
        one_of([{}, {}, _CA]),
    ),
    st.builds(
        lambda hosts: m.manifest(
            OURS, "Backend", "by-name", {"endpoints": [{"fqdn": {"hostname": host, "port": 80}} for host in hosts]}
        ),
        st.lists(one_of(HOSTS), min_size=1, max_size=2, unique=True),
    ),
)
config_maps = st.builds(
    lambda data: m.manifest("v1", "ConfigMap", "text", None, data=data),
    one_of([{"jwks": JWKS[0]}, {"jwks": JWKS[1]}, {"jwks": "{}"}, {"ca.crt": _AUTHORITY.cert_pem}, {"ca.crt": "no"}]),
)

# -- Secrets, grants, namespaces --

certificates = st.builds(
    lambda which, namespace, name: which.secret(namespace, name),
    one_of([*CERTIFICATES, _OF_TWO]),
    one_of(["demo", "demo", "other"]),
    one_of(["cert-1", "cert-2"]),
)
keys = st.builds(
    lambda name, namespace, data: m.manifest("v1", "Secret", name, None, namespace=namespace, stringData=data),
    one_of(["keys-1", "keys-2"]),
    one_of(NAMESPACES),
    one_of([{"ann": "key-of-ann"}, {"ann": "key-of-ann", "bob": "key-of-bob"}, {"eve": "key-of-ann"}, {"no": "\n"}]),
)
many_keys = st.just(
    m.manifest("v1", "Secret", "keys-1", None, stringData={f"client-{index}": f"key-{index}" for index in range(101)})
)
GRANTED = [
    ("HTTPRoute", "gateway.networking.k8s.io", "Service", ""),
    ("SecurityPolicy", "dragoman.dev", "Secret", ""),
    ("Gateway", "gateway.networking.k8s.io", "Secret", ""),
    ("GRPCRoute", "gateway.networking.k8s.io", "Service", ""),
    ("BackendTrafficPolicy", "dragoman.dev", "Plan", "dragoman.dev"),
]


def grant(granted: tuple[str, str, str, str], name: str, source: str) -> Manifest:
    kind, group, to, to_group = granted
    spec = {
        "from": [{"group": group, "kind": kind, "namespace": source}],
        "to": [{"group": to_group, "kind": to}],
    }
    return m.manifest(m.GATEWAY_API, "ReferenceGrant", name, spec, namespace="other")


grants = st.builds(grant, one_of(GRANTED), one_of(["g1", "g2"]), one_of(["demo", "demo", "elsewhere"]))
namespaces = st.builds(
    lambda name, labels: m.manifest("v1", "Namespace", name, None, namespace=None, metadata={"labels": labels}),
    one_of(NAMESPACES),
    one_of([{}, {"team": "x"}]),
)

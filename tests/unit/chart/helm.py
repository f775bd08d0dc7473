"""Helm, for tests of the chart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "dragoman"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
_BUILT = Path(os.environ.get("CLUSTER_HOME") or Path.home() / ".cache" / "dragoman-cluster") / "bin"

Document = dict[str, Any]


def run(*arguments: str, values: Document | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm, with these values in its input; skips where there is no helm."""
    program = shutil.which("helm") or shutil.which("helm", path=str(_BUILT))
    if program is None:
        pytest.skip("there is no helm, neither on the PATH nor built by the rig")
    given = ["--values", "-"] if values is not None else []
    text = yaml.safe_dump(values) if values is not None else ""
    return subprocess.run(
        [program, *arguments, *given], input=text, capture_output=True, text=True, timeout=60, check=False
    )


def template(values: Document | None = None, *, release: str = "dragoman", namespace: str = "dragoman-system") -> str:
    """What is installed with these values, as text; made once."""
    return _template(json.dumps(values or {}, sort_keys=True), release, namespace)


@cache
def _template(values: str, release: str, namespace: str) -> str:
    done = run("template", release, str(CHART), "--namespace", namespace, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: Document | None = None, **options: str) -> list[Document]:
    """What is installed with these values."""
    return [document for document in yaml.safe_load_all(template(values, **options)) if document]


def refused(values: Document) -> str:
    """What helm says to these values, which it must refuse."""
    done = run("template", "dragoman", str(CHART), values=values)
    assert done.returncode != 0, done.stdout
    return done.stderr


def find(documents: list[Document], kind: str, name: str = "") -> Document:
    found = [each for each in documents if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, [f"{each['kind']} {each['metadata']['name']}" for each in found]
    return found[0]


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for document in documents:
        if document["kind"] == "Deployment":
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def arguments(documents: list[Document], component: str) -> list[str]:
    return find(documents, "Deployment", f"dragoman-{component}")["spec"]["template"]["spec"]["containers"][0]["args"]


VARIANTS: dict[str, Document] = {
    "defaults": {},
    "bundled redis": {"redis": {"bundled": {"enabled": True}}},
    "redis by url": {"redis": {"url": "rediss://:secret@redis.example:6380/1"}},
    "redis of a secret": {"redis": {"existingSecret": {"name": "store", "key": "address"}}},
    "cert-manager": {"xds": {"certificate": {"mode": "cert-manager"}}},
    "cert-manager's issuer": {
        "xds": {
            "certificate": {
                "mode": "cert-manager",
                "certManager": {"issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}},
            }
        }
    },
    "certificate that exists": {"xds": {"certificate": {"mode": "existing", "secretName": "mine"}}},
    "some namespaces": {"watchNamespaces": ["shop", "bank"]},
    "control plane alone": {
        "authz": {"enabled": False},
        "ratelimit": {"enabled": False},
        "controlPlane": {"provisioning": False},
        "gatewayClass": {"create": False},
        "ingressClass": {"create": False},
        "networkPolicy": {"enabled": False},
    },
    "monitored": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "podMonitor": {"enabled": True},
        },
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    },
    "several workers": {
        "redis": {"url": "redis://redis:6379"},
        "authz": {"workers": 4, "autoscaling": {"enabled": False}},
        "ratelimit": {"workers": 4, "autoscaling": {"enabled": False}},
    },
    "limits in stores of their own": {
        "redis": {"url": "redis://keys:6379"},
        "ratelimit": {
            "redis": {
                "url": "rediss+cluster://limits@node-0:6379,node-1:6379?ssl_check_hostname=false",
                "passwordSecret": {"name": "limits"},
                "tlsSecret": {"name": "limits-tls", "clientCertificate": True},
            },
            "redisPerSecond": {
                "url": "redis+sentinel://sentinel-0:26379,sentinel-1:26379/seconds",
                "passwordSecret": {"name": "seconds", "key": "servers"},
                "sentinelPasswordSecret": {"name": "seconds", "key": "sentinels"},
            },
            "responseHeaders": "both",
            "keyPrefix": "edge:",
            "shadowMode": True,
            "metrics": {
                "detail": "domain",
                "nearRatio": 0.95,
                "statsd": {"url": "dogstatsd://datadog:8125", "tags": ["app:edge", "zone:eu"]},
            },
            "storeTimeoutSeconds": 0.05,
        },
    },
    "limits in a store of a secret": {
        "ratelimit": {
            "redis": {"existingSecret": {"name": "limits", "key": "address"}, "tlsSecret": {"name": "limits-tls"}},
            "redisPerSecond": {"existingSecret": {"name": "limits", "key": "second"}},
        }
    },
    "quotas": {"ratelimit": {"quota": {"enabled": True}, "workers": 2, "extraArgs": ["--xds-protocol=delta"]}},
    "placed": {
        "imagePullSecrets": ["registry"],
        "image": {"digest": "sha256:" + "0" * 64},
        "listenAddress": "[::]",
        "gatewayClass": {"annotations": {"a": "b"}, "proxyConfig": {"namespace": "dragoman-system", "name": "edge"}},
        "ingressClass": {"default": True, "gateway": {"create": True}},
        **{
            component: {
                "podAnnotations": {"a": "b"},
                "podLabels": {"team": "edge"},
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "tolerations": [{"key": "edge", "operator": "Exists"}],
                "affinity": {"podAntiAffinity": {}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
                ],
                "priorityClassName": "system-cluster-critical",
                "serviceAccount": {"name": f"my-{component.lower()}", "annotations": {"c": "d"}},
                "extraArgs": ["--dns=10.0.0.53"] if component == "controlPlane" else [],
                "extraEnv": [{"name": "TZ", "value": "UTC"}],
                "podDisruptionBudget": {"enabled": False},
            }
            for component in ("controlPlane", "authz", "ratelimit")
        },
    },
}
"""Values that a platform team would set, by what they are for."""

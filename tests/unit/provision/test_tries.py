from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from controlplane.api.gateway import Gateway
from controlplane.api.httproute import HTTPRoute
from controlplane.api.tcproute import TCPRoute
from controlplane.api.tlsroute import TLSRoute
from controlplane.provision.binding import Endpoint, PortOf
from controlplane.provision.tries import TriedRoute, tries

GATEWAY = Gateway.model_validate(
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"namespace": "demo", "name": "edge"},
        "spec": {
            "gatewayClassName": "dragoman",
            "listeners": [
                {"name": "http", "protocol": "HTTP", "port": 80},
                {
                    "name": "https",
                    "protocol": "HTTPS",
                    "port": 443,
                    "hostname": "*.example.com",
                    "tls": {"certificateRefs": [{"name": "cert"}]},
                },
                {"name": "tcp", "protocol": "TCP", "port": 9300},
                {"name": "tls", "protocol": "TLS", "port": 8443, "tls": {"mode": "Passthrough"}},
            ],
        },
    }
)
BOUND: Mapping[PortOf, tuple[Endpoint, ...]] = {
    ("demo/edge", 80): (("127.0.0.1", 10080),),
    ("demo/edge", 443): (("0.0.0.0", 10443),),
    ("demo/edge", 9300): (("127.0.0.1", 9300),),
    ("demo/edge", 8443): (("127.0.0.1", 8443),),
}


def route(annotation: str | None = None, **spec: Any) -> HTTPRoute:
    annotations = {} if annotation is None else {"dragoman.dev/curl": annotation}
    return HTTPRoute.model_validate(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"namespace": "demo", "name": "r", "annotations": annotations},
            "spec": {
                "parentRefs": [{"name": "edge"}],
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}]}],
                **spec,
            },
        }
    )


def commands(*routes: TriedRoute) -> list[str]:
    found = tries(routes, {GATEWAY.key: GATEWAY}, BOUND)
    return [f"{each.command}  # {each.expect}".removesuffix("  # ") for each in found]


def test_a_route_can_be_tried_by_its_first_path() -> None:
    assert commands(route()) == ["curl http://127.0.0.1:10080/api"]


def test_a_host_name_is_asked_for() -> None:
    assert commands(route(hostnames=["a.test"])) == ['curl -H "Host: a.test" http://127.0.0.1:10080/api']


def test_tls_is_asked_for_by_name() -> None:
    secured = route(hostnames=["*.example.com"], parentRefs=[{"name": "edge", "sectionName": "https"}])
    assert commands(secured) == ["curl --resolve www.example.com:10443:127.0.0.1 https://www.example.com:10443/api"]


def test_an_annotation_gives_arguments_a_path_and_what_to_expect() -> None:
    annotation = """
        # 401: no token
        -H "Authorization: Bearer x.y" # 200
        -s -o /dev/null -w "%{http_code}\\n" "/limited?[1-6]" # 200, then 429
    """
    assert commands(route(annotation)) == [
        "curl http://127.0.0.1:10080/api  # 401: no token",
        'curl -H "Authorization: Bearer x.y" http://127.0.0.1:10080/api  # 200',
        "curl -s -o /dev/null -w '%{http_code}\\n' \"http://127.0.0.1:10080/limited?[1-6]\"  # 200, then 429",
    ]


def test_the_value_of_an_option_is_not_taken_for_the_path() -> None:
    assert commands(route("-s -o /dev/null")) == ["curl -s -o /dev/null http://127.0.0.1:10080/api"]


def test_an_annotation_cannot_smuggle_a_command_into_the_line() -> None:
    smuggled = "-H x; $(touch /tmp/x) `id` && id"
    (line,) = commands(route(smuggled))
    # A real shell sees one word for each argument, and nothing else.
    shown = "printf '%s\\n'" + line.removeprefix("curl")
    words = subprocess.check_output(["sh", "-c", shown], text=True).splitlines()
    assert words == [*shlex.split(smuggled), "http://127.0.0.1:10080/api"]
    assert commands(route('-H "open')) == ["curl http://127.0.0.1:10080/api"]


def test_a_route_of_connections_is_tried_as_its_annotation_says_and_not_without_one() -> None:
    meta: dict[str, Any] = {"namespace": "demo", "name": "r"}
    spec = {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "one", "port": 80}]}]}
    tcp = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": meta, "spec": spec}
    tls = {**tcp, "kind": "TLSRoute", "spec": {**spec, "hostnames": ["a.test"]}}
    assert commands(TCPRoute.model_validate(tcp), TLSRoute.model_validate(tls)) == []
    meta["annotations"] = {"dragoman.dev/curl": "-k / # 200"}
    assert commands(TCPRoute.model_validate(tcp), TLSRoute.model_validate(tls)) == [
        "curl -k http://127.0.0.1:9300/  # 200",
        "curl --resolve a.test:8443:127.0.0.1 -k https://a.test:8443/  # 200",
    ]


def test_a_route_that_no_bound_listener_serves_has_no_line() -> None:
    assert commands(route(parentRefs=[{"name": "other"}])) == []
    assert tries([route()], {GATEWAY.key: GATEWAY}, {}) == ()

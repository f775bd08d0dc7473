"""The bootstrap of a Gateway's Envoys: who they are, and where their control plane is. Everything else comes by xDS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import yaml

import dragoman
from controlplane.provision.address import Address, TcpAddress, envoy_address, is_ip

LOOPBACK_ADMIN: Final = TcpAddress("127.0.0.1", 19000)

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


_CA: Final = "xds-ca"
_PATH: Final = re.compile(r"/[-\w./]+")

# Read for each stream, so that a token that was replaced is shown from then on. Not a secret that Envoy follows: each
# of those takes inotify instances, of which a node gives all processes of a user 128, and Envoy aborts without.
_SHOW: Final = """\
function envoy_on_request(handle)
  local file = io.open("%s", "r")
  if file == nil then
    handle:logErr("the token for the control plane cannot be read")
    return
  end
  local token = file:read("*l")
  file:close()
  handle:headers():replace("authorization", "Bearer " .. (token or ""))
end
"""


@dataclass(frozen=True, slots=True)
class XdsTls:
    """TLS to the control plane: files that Envoy reads. `server_name` is what its certificate must be for.

    The authorities are those in `ca_file`, read once; or, with `secrets_folder`, those in the file of `secret_files`
    there, and what comes after them. The token is read for each stream.
    """

    ca_file: str
    server_name: str
    cert_file: str | None = None
    key_file: str | None = None
    token_file: str | None = None
    secrets_folder: str | None = None

    def __post_init__(self) -> None:
        if self.token_file is not None and not _PATH.fullmatch(self.token_file):
            raise ValueError(f"the path of a token is absolute and plain: {self.token_file!r} is not")


def bootstrap(
    gateway: str,
    *,
    xds: Address,
    node_id: str | None = None,
    admin: Address | None = LOOPBACK_ADMIN,
    xds_tls: XdsTls | None = None,
    metadata: Mapping[str, Any] | None = None,
    max_connections: int = 50_000,
    max_heap_bytes: int | None = None,
) -> dict[str, Any]:
    """Returns the bootstrap of an Envoy of `gateway` (`NAMESPACE/NAME`), as a document for `envoy -c`.

    `node_id` tells the Envoys of one Gateway apart (by default the Gateway's name). Without an `admin` address there is
    no admin endpoint. Past `max_connections` Envoy refuses new ones; near `max_heap_bytes`, where given, it frees what
    it can, then refuses requests. Raises ValueError for a `gateway` that is not `NAMESPACE/NAME`.
    """
    namespace, slash, name = gateway.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError(f"a Gateway is named NAMESPACE/NAME: {gateway!r} is not")
    by_name = isinstance(xds, TcpAddress) and not is_ip(xds.host)
    values: dict[str, Any] = {
        "node_id": node_id or gateway,
        "gateway": gateway,
        "metadata": {"dragoman.dev/gateway": gateway, **(metadata or {})},
        "admin": None if admin is None else envoy_address(admin),
        "xds": _without_mode(envoy_address(xds)),
        # Every address behind a name is a replica that may serve.
        "xds_discovery": "STRICT_DNS" if by_name else "STATIC",
        "xds_lookup_family": "ALL" if by_name else None,
        "xds_tls": None if xds_tls is None else _transport_socket(xds_tls),
        "xds_filters": None if xds_tls is None or xds_tls.token_file is None else _token_filters(xds_tls.token_file),
        "resource_monitors": _resource_monitors(max_connections, max_heap_bytes),
        "overload_actions": None if max_heap_bytes is None else _heap_actions(),
    }
    filled = cast("dict[str, Any]", fill(_template("edge"), values))
    if admin is None:
        del filled["admin"]
    return filled


def secret_files(tls: XdsTls, authorities: str) -> dict[str, dict[str, Any]]:
    """Returns what must lie in `tls.secrets_folder`: file name → document. No secret is in it.

    Envoy reads such a file (SDS) anew when something is renamed within its folder: so do Kubernetes' volumes replace
    what they hold. `authorities` are PEM, one or several.
    """
    if tls.secrets_folder is None:
        return {}
    kind = f"{_EXTENSIONS}.transport_sockets.tls.v3.Secret"
    trust = {"trusted_ca": {"inline_string": authorities}}
    return {f"{_CA}.yaml": {"resources": [{"@type": kind, "name": _CA, "validation_context": trust}]}}


def bootstrap_yaml(document: Mapping[str, Any]) -> str:
    """Returns a bootstrap as YAML text."""
    return str(yaml.dump(dict(document), Dumper=yaml.CSafeDumper, sort_keys=False, width=120))


def template_path(name: str) -> Path:
    """Returns where a bootstrap template is: in the installed package, else in the checkout."""
    package = Path(dragoman.__file__).parent
    installed = package / "_envoy" / "bootstrap" / f"{name}.yaml"
    return installed if installed.exists() else package.parent / "envoy" / "bootstrap" / f"{name}.yaml"


@cache
def _template(name: str) -> object:
    return yaml.load(template_path(name).read_text("utf-8"), Loader=yaml.CSafeLoader)


def fill(template: object, values: Mapping[str, Any]) -> object:
    """Returns a parsed template in which each scalar that is exactly `${name}` has become `values[name]`.

    Keys whose value becomes None are left out. Raises KeyError for a name that has no value.
    """
    if isinstance(template, dict):
        filled = {key: fill(value, values) for key, value in cast("dict[str, object]", template).items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(template, list):
        return [fill(item, values) for item in cast("list[object]", template)]
    if isinstance(template, str) and template.startswith("${") and template.endswith("}"):
        return values[template[2:-1]]
    return template


def _without_mode(address: dict[str, Any]) -> dict[str, Any]:
    # The mode of a socket is for who makes it; Envoy only connects to this one.
    return {"pipe": {"path": address["pipe"]["path"]}} if "pipe" in address else address


def _transport_socket(tls: XdsTls) -> dict[str, Any]:
    names = {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": tls.server_name}}]}
    context: dict[str, Any] = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_2"}}
    if tls.secrets_folder is None:
        context["validation_context"] = {"trusted_ca": {"filename": tls.ca_file}, **names}
    else:
        context["combined_validation_context"] = {
            "default_validation_context": names,
            "validation_context_sds_secret_config": _followed_ca(tls.secrets_folder),
        }
    if tls.cert_file is not None and tls.key_file is not None:
        context["tls_certificates"] = [
            {"certificate_chain": {"filename": tls.cert_file}, "private_key": {"filename": tls.key_file}}
        ]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": tls.server_name,
            "common_tls_context": context,
        },
    }


def _followed_ca(folder: str) -> dict[str, Any]:
    path = {"path": f"{folder}/{_CA}.yaml", "watched_directory": {"path": folder}}
    return {"name": _CA, "sds_config": {"path_config_source": path, "resource_api_version": "V3"}}


def _token_filters(token_file: str) -> list[dict[str, Any]]:
    filters = f"{_EXTENSIONS}.filters.http"
    show = {"@type": f"{filters}.lua.v3.Lua", "default_source_code": {"inline_string": _SHOW % token_file}}
    return [
        {"name": "envoy.filters.http.lua", "typed_config": show},
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": f"{filters}.upstream_codec.v3.UpstreamCodec"},
        },
    ]


def _resource_monitors(max_connections: int, max_heap_bytes: int | None) -> list[dict[str, Any]]:
    prefix = f"{_EXTENSIONS}.resource_monitors"
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{prefix}.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": max_connections,
        },
    }
    if max_heap_bytes is None:
        return [connections]
    heap = {
        "name": "envoy.resource_monitors.fixed_heap",
        "typed_config": {
            "@type": f"{prefix}.fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": max_heap_bytes,
        },
    }
    return [connections, heap]


def _heap_actions() -> list[dict[str, Any]]:
    steps = {"envoy.overload_actions.shrink_heap": 0.9, "envoy.overload_actions.stop_accepting_requests": 0.95}
    return [
        {"name": name, "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": value}}]}
        for name, value in steps.items()
    ]

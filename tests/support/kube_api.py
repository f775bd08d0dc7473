"""A small Kubernetes API server for tests: lists in pages, watches with history, discovery; it fails on demand."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

Document = dict[str, Any]
CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")
GATEWAY_API = "gateway.networking.k8s.io"
_VERBS = ["get", "list", "watch"]


@dataclass
class Refusal:
    """What is answered instead of what was asked for."""

    status: int
    reason: str = "Unknown"
    message: str = "refused by the test"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Kind:
    group: str
    kind: str
    plural: str
    versions: tuple[str, ...]
    namespaced: bool = True
    built_in: bool = False
    discovered: bool = True


@dataclass(eq=False)
class _Watch:
    group: str
    plural: str
    namespace: str
    partial: bool
    version: str
    queue: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)


class FakeKubeApi:
    """`async with FakeKubeApi() as api`: serves at `api.url`; `put`, `delete` and `define` change what there is."""

    def __init__(self) -> None:
        self.version = 100
        self.compacted = 0
        self.silent = False
        """Watches are granted, and then nothing is said."""
        self.hanging = False
        """Single objects are not answered at all."""
        self.refusals: dict[str, Refusal] = {}
        """By prefix of `VERB PATH$`, the verbs being discover, get, list and watch."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Verb, path and parameters of each."""
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Document]] = {}
        self._history: list[tuple[int, str, str, str, Document]] = []
        self._watches: set[_Watch] = set()
        self._snapshots: dict[str, list[Document]] = {}
        for kind, plural, namespaced in (
            ("Service", "services", True),
            ("Secret", "secrets", True),
            ("ConfigMap", "configmaps", True),
            ("Namespace", "namespaces", False),
        ):
            self._add(_Kind("", kind, plural, ("v1",), namespaced, built_in=True))
        self._add(_Kind("discovery.k8s.io", "EndpointSlice", "endpointslices", ("v1",), built_in=True))
        self._add(_Kind(CRDS[0], "CustomResourceDefinition", CRDS[1], ("v1",), namespaced=False, built_in=True))
        for name in ("Ingress", "IngressClass"):
            namespaced = name == "Ingress"
            self._add(_Kind("networking.k8s.io", name, f"{name.lower()}es", ("v1",), namespaced, built_in=True))

    async def __aenter__(self) -> FakeKubeApi:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What there is

    def define(
        self, kind: str, *versions: str, group: str = GATEWAY_API, plural: str = "", namespaced: bool = True
    ) -> None:
        """Installs a kind, or changes the versions that it is served in."""
        plural = plural or f"{kind.lower()}s"
        self._add(_Kind(group, kind, plural, versions or ("v1",), namespaced))
        self._put(CRDS, {"metadata": {"name": f"{plural}.{group}"}})

    def undefine(self, kind: str, *, group: str = GATEWAY_API) -> None:
        """Removes a kind and all its objects."""
        found = next(each for each in self._kinds.values() if (each.group, each.kind) == (group, kind))
        place = found.group, found.plural
        for namespace, name in list(self._objects[place]):
            self.delete(kind, namespace, name, group=group)
        del self._kinds[place]
        del self._objects[place]
        self._delete(CRDS, ("", f"{found.plural}.{group}"))
        self.cut(found.plural)

    def hide(self, kind: str, *, hidden: bool = True) -> None:
        """Leaves a kind out of discovery, as an API server does that has just started."""
        next(each for each in self._kinds.values() if each.kind == kind).discovered = not hidden

    def put(self, document: Document, *, tell: bool = True) -> int:
        """Creates or replaces an object; returns its version. With `tell` False no watch hears of it."""
        group = document["apiVersion"].rpartition("/")[0]
        found = next(each for each in self._kinds.values() if (each.group, each.kind) == (group, document["kind"]))
        return self._put((group, found.plural), document, tell=tell)

    def delete(self, kind: str, namespace: str, name: str, *, group: str = "", tell: bool = True) -> None:
        """Deletes an object."""
        found = next(each for each in self._kinds.values() if (each.group, each.kind) == (group, kind))
        self._delete((group, found.plural), (namespace, name), tell=tell)

    # What goes wrong

    def cut(self, plural: str = "") -> None:
        """Ends the watches of a kind, or all."""
        for watch in list(self._watches):
            if plural in ("", watch.plural):
                watch.queue.put_nowait(None)

    def compact(self) -> None:
        """Forgets all history."""
        self.compacted = self.version
        self._history.clear()

    def say(self, plural: str, line: bytes) -> None:
        """Sends a line to the watches of a kind."""
        for watch in self._watches:
            if watch.plural == plural:
                watch.queue.put_nowait(line + b"\n")

    def bookmark(self, plural: str, version: int | None = None) -> None:
        """Sends a bookmark to the watches of a kind."""
        metadata = {"resourceVersion": str(self.version if version is None else version)}
        self.say(plural, json.dumps({"type": "BOOKMARK", "object": {"kind": "X", "metadata": metadata}}).encode())

    def asked(self, verb: str, part: str = "") -> list[dict[str, str]]:
        """Returns the parameters of the requests whose path ends like this."""
        return [params for each, path, params in self.requests if each == verb and path.endswith(part)]

    def watching(self, plural: str) -> list[str]:
        """Returns the versions from which the open watches of a kind began."""
        return [watch.version for watch in self._watches if watch.plural == plural]

    # How it answers

    def _add(self, kind: _Kind) -> None:
        self._kinds[kind.group, kind.plural] = kind
        self._objects.setdefault((kind.group, kind.plural), {})

    def _put(self, place: tuple[str, str], document: Document, *, tell: bool = True) -> int:
        stored = copy.deepcopy(document)
        metadata = stored["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        before = self._objects[place].get(key)
        self.version += 1
        defaults = {"uid": f"uid-{self.version}", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
        if before is not None:
            defaults = {name: before["metadata"][name] for name in defaults}
            defaults["generation"] += before.get("spec") != stored.get("spec")
        metadata.update(defaults | {"resourceVersion": str(self.version), "managedFields": [{"manager": "test"}]})
        self._objects[place][key] = stored
        self._happened(place, "ADDED" if before is None else "MODIFIED", stored, tell)
        return self.version

    def _delete(self, place: tuple[str, str], key: tuple[str, str], *, tell: bool = True) -> None:
        document = self._objects[place].pop(key)
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        self._happened(place, "DELETED", document, tell)

    def _happened(self, place: tuple[str, str], type_: str, document: Document, tell: bool) -> None:
        if not tell:
            return
        self._history.append((self.version, *place, type_, copy.deepcopy(document)))
        for watch in self._watches:
            if (watch.group, watch.plural) == place and _is_in(document, watch.namespace):
                watch.queue.put_nowait(_event(type_, self._shown(place, document, watch.partial, watch.version)))

    def _shown(self, place: tuple[str, str], document: Document, partial: bool, version: str = "") -> Document:
        kind = self._kinds.get(place)
        shown = copy.deepcopy(document)
        if partial:
            return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": shown["metadata"]}
        if kind is not None:
            shown["kind"] = kind.kind
        return shown

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        accept = request.headers.get("Accept", "")
        if request.path == "/readyz":
            return web.Response(text="ok")
        if request.path in ("/api", "/apis"):
            return self._refused("discover", request) or web.json_response(self._discovery(request.path == "/api"))
        parts = request.path.strip("/").split("/")
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = self._kinds.get((group, rest[0]))
        verb = "watch" if "watch" in request.query else "list" if len(rest) == 1 else "get"
        refused = self._refused(verb, request)
        if refused is not None:
            return refused
        if kind is None or version not in kind.versions:
            return _status(404, "NotFound", "the server could not find the requested resource")
        place, partial = (group, rest[0]), "PartialObjectMetadata" in accept
        if verb == "watch":
            return await self._watch(request, place, namespace, partial)
        if verb == "list":
            return self._list(request, place, namespace, partial, f"{group}/{version}".strip("/"))
        if self.hanging:
            await asyncio.sleep(3600)
        found = self._objects[place].get((namespace, rest[1]))
        return web.json_response(found) if found is not None else _status(404, "NotFound", f"{rest[1]} not found")

    def _refused(self, verb: str, request: web.Request) -> web.Response | None:
        self.requests.append((verb, request.path, dict(request.query)))
        for prefix, refusal in self.refusals.items():
            if f"{verb} {request.path}$".startswith(prefix):
                return _status(refusal.status, refusal.reason, refusal.message, refusal.headers)
        return None

    def _list(
        self, request: web.Request, place: tuple[str, str], namespace: str, partial: bool, api_version: str
    ) -> web.Response:
        following = request.query.get("continue", "")
        token, _, start = following.partition(":")
        if following and token not in self._snapshots:
            return _status(410, "Expired", "the continue token is too old")
        if not following:
            token = f"{self.version}/{'/'.join(place)}/{namespace}/{partial}"
            found = (self._shown(place, each, partial) for each in self._objects[place].values())
            self._snapshots[token] = [each for each in found if _is_in(each, namespace)]
        first, size = int(start or 0), int(request.query.get("limit", 10**9))
        items = copy.deepcopy(self._snapshots[token][first : first + size])
        if place[0] == "" and not partial:
            for item in items:
                # As the API server does for built-in kinds.
                item.pop("kind", None)
                item.pop("apiVersion", None)
        metadata = {"resourceVersion": token.partition("/")[0]}
        if first + size < len(self._snapshots[token]):
            metadata["continue"] = f"{token}:{first + size}"
        return web.json_response({"kind": "List", "apiVersion": api_version, "metadata": metadata, "items": items})

    def expire_lists(self) -> None:
        """Makes lists that are under way begin anew."""
        self._snapshots.clear()

    async def _watch(
        self, request: web.Request, place: tuple[str, str], namespace: str, partial: bool
    ) -> web.StreamResponse:
        version = request.query["resourceVersion"]
        response = web.StreamResponse()
        await response.prepare(request)
        watch = _Watch(*place, namespace, partial, version)
        if int(version) < self.compacted:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(_event("ERROR", status))
            return response
        for happened, group, plural, type_, document in self._history:
            if (group, plural) == place and happened > int(version) and _is_in(document, namespace):
                watch.queue.put_nowait(_event(type_, self._shown(place, document, partial)))
        self._watches.add(watch)
        try:
            while (line := await watch.queue.get()) is not None:
                if not self.silent:
                    await response.write(line)
        except ConnectionResetError:
            pass
        finally:
            self._watches.discard(watch)
        return response

    def _discovery(self, core: bool) -> Document:
        groups: dict[str, dict[str, list[Document]]] = {}
        for kind in self._kinds.values():
            if not kind.discovered or (kind.group == "") != core:
                continue
            for version in kind.versions:
                resource = {
                    "resource": kind.plural,
                    "responseKind": {"group": kind.group, "version": version, "kind": kind.kind},
                    "scope": "Namespaced" if kind.namespaced else "Cluster",
                    "verbs": _VERBS,
                }
                groups.setdefault(kind.group, {}).setdefault(version, []).append(resource)
        items = [
            {
                "metadata": {"name": group} if group else {},
                "versions": [{"version": each, "resources": found} for each, found in versions.items()],
            }
            for group, versions in groups.items()
        ]
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}


def _is_in(document: Document, namespace: str) -> bool:
    return not namespace or document["metadata"].get("namespace") == namespace


def _event(type_: str, document: Document) -> bytes:
    return json.dumps({"type": type_, "object": document}).encode() + b"\n"


def _status(status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}
    return web.json_response(body, status=status, headers=headers)

"""A Kubernetes API for tests: raw JSON over the Unix socket of a `kubectl proxy`, which does all authentication."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

Document = Mapping[str, Any]
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """What the API server refused, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """`api.get("/api/v1/nodes")`: one request on a connection of its own; an OSError says that nobody answers."""

    def __init__(self, unix_path: Path) -> None:
        self._unix_path = unix_path
        self._plurals: dict[str, dict[str, tuple[str, bool]]] = {}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        within_s: float = 60.0,
        parameters: Mapping[str, str] | None = None,
    ) -> Any:
        """Returns the decoded answer (text where it is no JSON); raises ApiError for a status of 400 or more."""
        connection = _UnixConnection(self._unix_path, within_s)
        try:
            response = self._send(connection, method, path, body, content_type, parameters or {})
            return _decoded(response.read())
        except http.client.HTTPException as fault:
            raise ConnectionError(f"{method} {path}: {fault!r}") from fault
        finally:
            connection.close()

    def get(self, path: str, **parameters: str) -> Any:
        """Returns an object or a list."""
        return self.request("GET", path, parameters=parameters)

    def apply(self, document: Document, *, manager: str = "tests") -> Any:
        """Applies an object on the server's side, and returns what came of it."""
        path = self.path(document)
        forced = {"fieldManager": manager, "force": "true"}
        return self.request("PATCH", path, document, content_type=APPLY, parameters=forced)

    def create(self, document: Document) -> Any:
        """Creates an object."""
        return self.request("POST", self.path(document).rpartition("/")[0], document)

    def patch(self, document: Document, change: Any, *, subresource: str = "") -> Any:
        """Merges a change into the object that `document` names."""
        path = self.path(document) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, change, content_type=MERGE)

    def delete(self, document: Document) -> None:
        """Deletes an object; one that is not there is fine."""
        try:
            self.request("DELETE", self.path(document))
        except ApiError as fault:
            if fault.status != 404:
                raise

    def read(self, document: Document) -> Any | None:
        """Returns the object that `document` names as it is now, None where there is none."""
        try:
            return self.get(self.path(document))
        except ApiError as fault:
            if fault.status == 404:
                return None
            raise

    def create_all(self, documents: Sequence[Document], *, at_once: int = 16) -> None:
        """Creates many objects, several at a time."""
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(self.create, documents))

    def delete_all(self, documents: Sequence[Document], *, at_once: int = 16) -> None:
        """Deletes many objects, several at a time."""
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(self.delete, documents))

    def path(self, document: Document) -> str:
        """Returns the path of an object; what is namespaced and names no namespace is in `default`."""
        metadata = document["metadata"]
        namespace = metadata.get("namespace", "default")
        return self.path_of(document["apiVersion"], document["kind"], namespace, metadata["name"])

    def path_of(self, api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
        """Returns the path of an object, or without a name of a kind, in one namespace or (with none) in all."""
        root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
        plural, namespaced = self._plural(root, kind)
        where = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{root}{where}/{plural}" + (f"/{name}" if name else "")

    def lines(
        self,
        path: str,
        *,
        within_s: float = 600.0,
        opened: Callable[[Callable[[], None]], None] = lambda _: None,
        **parameters: str,
    ) -> Iterator[bytes]:
        """Yields the lines of an endless answer (a watch, a log); `opened` is given what ends it, from any thread."""
        connection = _UnixConnection(self._unix_path, within_s)
        try:
            response = self._send(connection, "GET", path, None, "", parameters)
            opened(connection.cut)
            while line := response.readline():
                yield line.rstrip(b"\n")
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            # Cut off: by the server, by the time that it may take, or by who called `opened`'s argument.
            return
        finally:
            connection.close()

    def watch(self, path: str, *, resource_version: str, **options: Any) -> Iterator[Any]:
        """Yields the events of a watch, decoded; an event of type ERROR too."""
        for line in self.lines(path, watch="true", resourceVersion=resource_version, **options):
            yield json.loads(line)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        content_type: str,
        parameters: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        target = path + (("&" if "?" in path else "?") + urlencode(parameters) if parameters else "")
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, {"content-type": content_type} if data is not None else {})
        response = connection.getresponse()
        if response.status >= 400:
            answer = _decoded(response.read())
            raise ApiError(response.status, answer.get("message", "") if isinstance(answer, dict) else str(answer))
        return response

    def _plural(self, root: str, kind: str) -> tuple[str, bool]:
        # Asked again for a kind that is not known: CRDs come while tests run.
        if kind not in self._plurals.get(root, {}):
            found = self.get(root)["resources"]
            self._plurals[root] = {r["kind"]: (r["name"], r["namespaced"]) for r in found if "/" not in r["name"]}
        if kind not in self._plurals[root]:
            raise ApiError(404, f"{root} has no kind {kind} yet")
        return self._plurals[root][kind]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self._own = self.sock
        self.sock.connect(str(self._path))

    def cut(self) -> None:
        """Ends the connection under a reader of another thread."""
        try:
            self._own.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")

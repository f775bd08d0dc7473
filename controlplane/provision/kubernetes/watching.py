"""What there is in the cluster of what was made for Gateways: listed, watched, and compared with what comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from controlplane.kube.client import Api, ApiError
from controlplane.kube.errors import error_of_status
from controlplane.kube.paths import group_version, path_of
from controlplane.provision.kubernetes.labels import SELECTOR
from controlplane.provision.kubernetes.wanted import Document

_log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 30.0


class Kind(NamedTuple):
    """A kind of object that is made."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str = "", name: str = "") -> str:
        """Returns where its objects are, all of them or one."""
        return path_of(*group_version(self.api_version), self.plural, namespace, name)


SERVICE: Final = Kind("v1", "Service", "services")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
DAEMON_SET: Final = Kind("apps/v1", "DaemonSet", "daemonsets")
AUTOSCALER: Final = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
KINDS: Final = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "ConfigMap", "configmaps"),
    SERVICE,
    DEPLOYMENT,
    DAEMON_SET,
    AUTOSCALER,
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)


class Id(NamedTuple):
    """One object."""

    kind: Kind
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Where it is."""
        return self.kind.path(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.namespace}/{self.name}"


def id_of(document: Mapping[str, Any]) -> Id:
    """Returns which object a document of a kind in KINDS is. Raises KeyError for other kinds."""
    kind = _BY_NAME[document["apiVersion"], document["kind"]]
    return Id(kind, document["metadata"]["namespace"], document["metadata"]["name"])


_BY_NAME: Final = {(kind.api_version, kind.kind): kind for kind in KINDS}


class Watched:
    """The objects of KINDS that carry the labels of what is made. `run` keeps it current until it is cancelled.

    `on_change` is told of each object before and after (None: not there). A kind that may not be listed is taken for
    absent, and asked for again now and then.
    """

    def __init__(
        self,
        api: Api,
        *,
        on_change: Callable[[Id, Document | None, Document | None], None],
        namespaces: Sequence[str] = (),
    ) -> None:
        self._api = api
        self._on_change = on_change
        self._namespaces = tuple(namespaces) or ("",)
        self._objects: dict[Id, Document] = {}
        self._unseen = len(KINDS) * len(self._namespaces)
        self.synced = asyncio.Event()

    def get(self, id_: Id) -> Document | None:
        """Returns an object as it was last seen."""
        return self._objects.get(id_)

    def objects(self) -> list[Document]:
        """Returns all objects as they were last seen."""
        return list(self._objects.values())

    def note(self, id_: Id, document: Document) -> None:
        """Takes an object as a write returned it, unless the watch has told of a newer one meanwhile."""
        before = self._objects.get(id_)
        if before is None or _is_newer(document, before):
            self._objects[id_] = _slim(document)

    async def run(self) -> None:
        """Lists and watches."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                for namespace in self._namespaces:
                    group.create_task(self._follow(kind, namespace))

    async def _follow(self, kind: Kind, namespace: str) -> None:
        version, wait_s, seen = "", _FIRST_WAIT_S, False
        while True:
            try:
                if not version:
                    version = await self._list(kind, namespace)
                    if not seen:
                        seen = True
                        self._is_seen()
                async for newer in self._watch(kind, namespace, version):
                    version, wait_s = newer, _FIRST_WAIT_S
                continue
            except ApiError as error:
                if error.gone or not version:
                    version = ""
                if error.gone:
                    continue
                if (error.forbidden or error.not_found) and not seen:
                    seen = True
                    self._is_seen()
                _log.warning("cannot watch %s: %s", kind.plural, error)
                wait_s = max(wait_s, error.retry_after_s or 0.0)
            except (ValueError, KeyError, TypeError):
                _log.exception("what the API server tells of %s is not understood", kind.plural)
                version = ""
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _is_seen(self) -> None:
        self._unseen -= 1
        if self._unseen == 0:
            self.synced.set()

    async def _list(self, kind: Kind, namespace: str) -> str:
        found = await self._api.get(kind.path(namespace), params={"labelSelector": SELECTOR})
        there: dict[Id, Document] = {}
        for item in cast("list[Document]", found.get("items") or []):
            there[Id(kind, item["metadata"]["namespace"], item["metadata"]["name"])] = item
        for id_ in [each for each in self._objects if each.kind == kind and namespace in ("", each.namespace)]:
            if id_ not in there:
                self._set(id_, None)
        for id_, item in there.items():
            self._set(id_, item)
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, kind: Kind, namespace: str, version: str) -> AsyncIterator[str]:
        params = {"labelSelector": SELECTOR, "resourceVersion": version, "allowWatchBookmarks": "true"}
        async for line in self._api.lines(kind.path(namespace), params=params):
            event: Document = json.loads(line)
            document: Document = event["object"]
            if event["type"] == "ERROR":
                raise error_of_status(document)
            if event["type"] != "BOOKMARK":
                id_ = Id(kind, document["metadata"]["namespace"], document["metadata"]["name"])
                self._set(id_, None if event["type"] == "DELETED" else document)
            yield str(document["metadata"]["resourceVersion"])

    def _set(self, id_: Id, document: Document | None) -> None:
        before = self._objects.get(id_)
        if document is None:
            if before is not None:
                del self._objects[id_]
                self._on_change(id_, before, None)
        elif before is None or _is_newer(document, before):
            self._objects[id_] = slim = _slim(document)
            self._on_change(id_, before, slim)


def _is_newer(document: Document, before: Document) -> bool:
    """An event that was under way while something was written tells of the time before it."""
    new, old = document["metadata"].get("resourceVersion", ""), before["metadata"].get("resourceVersion", "")
    if document["metadata"].get("uid") != before["metadata"].get("uid") or not (new.isdecimal() and old.isdecimal()):
        return new != old
    return int(new) > int(old)


def _slim(document: Document) -> Document:
    # What each manager owns is half of an object, and of no use here.
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    return {**document, "metadata": metadata}

"""What there is in the cluster of what was made for Gateways: listed, watched, and compared with what comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from controlplane.kube.client import Api, ApiError
from controlplane.kube.listwatch import ListWatch
from controlplane.kube.paths import group_version, path_of
from controlplane.provision.kubernetes.labels import SELECTOR
from controlplane.provision.kubernetes.wanted import Document

_log = logging.getLogger(__name__)

_SELECTING: Final = {"labelSelector": SELECTOR}


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
                    sink = _Listed(kind, namespace, watched=self)
                    listwatch = ListWatch(self._api, kind.path(namespace), sink, selecting=_SELECTING)
                    group.create_task(listwatch.run())

    def seen(self) -> None:
        """Takes in that one more kind is known, in a namespace or everywhere."""
        self._unseen -= 1
        if self._unseen == 0:
            self.synced.set()

    def of(self, kind: Kind, namespace: str) -> list[Id]:
        """Returns the objects of a kind that were last seen, in a namespace or everywhere."""
        return [each for each in self._objects if each.kind == kind and namespace in ("", each.namespace)]

    def set(self, id_: Id, document: Document | None) -> None:
        """Takes an object as the API server tells of it; None: it is gone."""
        before = self._objects.get(id_)
        if document is None:
            if before is not None:
                del self._objects[id_]
                self._on_change(id_, before, None)
        elif before is None or _is_newer(document, before):
            self._objects[id_] = slim = _slim(document)
            self._on_change(id_, before, slim)


class _Listed:
    """A listwatch.Sink for the objects of one kind, in one namespace or everywhere."""

    def __init__(self, kind: Kind, namespace: str, *, watched: Watched) -> None:
        self._kind = kind
        self._namespace = namespace
        self._watched = watched
        self._listed: set[Id] = set()
        self._seen = False

    def begin(self) -> None:
        """A list begins."""
        self._listed = set()

    def page(self, items: Iterable[Document]) -> None:
        """Takes a part of the list."""
        for document in items:
            id_ = self._id(document)
            self._listed.add(id_)
            self._watched.set(id_, document)

    def end(self) -> None:
        """The list is whole: what is not on it is gone."""
        for id_ in self._watched.of(self._kind, self._namespace):
            if id_ not in self._listed:
                self._watched.set(id_, None)
        self._listed = set()

    def changed(self, type_: str, document: Document) -> None:
        """Takes an event of a watch."""
        self._watched.set(self._id(document), None if type_ == "DELETED" else document)

    def failed(self, error: ApiError) -> None:
        """What is known stays; what may not be read, or is not there, is not waited for."""
        _log.warning("cannot watch %s: %s", self._kind.plural, error)
        if error.forbidden or error.not_found:
            self._be_seen()

    def well(self) -> None:
        """The list has come, or events come."""
        self._be_seen()

    def _be_seen(self) -> None:
        if not self._seen:
            self._seen = True
            self._watched.seen()

    def _id(self, document: Document) -> Id:
        return Id(self._kind, document["metadata"]["namespace"], document["metadata"]["name"])


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

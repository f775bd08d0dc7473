"""Commands that say why: `explain` (what becomes of a request), `diff` (what a change would change)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlencode

import typer

from dragoman.cli.asking import get, not_understood, print_lines
from dragoman.cli.errors import CommandError
from dragoman.cli.settings import GivenSettings, Quota, RatelimitQuota, Served, served

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import TypeAdapter

    from controlplane.engine import Engine
    from controlplane.explain import Explanation, Request
    from controlplane.explain.lines import Line
    from controlplane.explain.summary import Summary

_T = TypeVar("_T")
# What stands for key sets that the control plane fetches: offline nothing is contacted.
_SOME_KEY_SET = json.dumps(
    {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}
)

Server = Annotated[
    str | None, typer.Option(help="A running control plane instead of a folder (http://127.0.0.1:18001).")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def explain(
    url: Annotated[str, typer.Argument(help="What a client asks for: http://HOST[:PORT]/PATH.")],
    folder: Annotated[
        Path | None, typer.Argument(exists=True, file_okay=False, help="Folder of manifests, if not --server.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header, 'name: value'; may be repeated.")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method.")] = "GET",
    gateway: Annotated[
        str | None, typer.Option(help="The Gateway (NAMESPACE/NAME), where several have the port.")
    ] = None,
    listener: Annotated[str | None, typer.Option(help="A listener by name, whatever the port of the URL.")] = None,
    server: Server = None,
    quota: Quota = None,
    ratelimit_quota: RatelimitQuota = None,
    settings: GivenSettings = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what becomes of a request, and why: listener, host, rule, filters, policies, backends.

    Exit code 0: a route has the request; 1: none has, and the nearest are told.
    """
    from controlplane.explain import Request
    from controlplane.explain.lines import lines

    if (folder is None) == (server is None):
        raise CommandError("give either a folder or --server")
    given = _given(server, settings, quota=quota, ratelimit_quota=ratelimit_quota)
    headers = header or []
    try:
        request = Request.of(url, method=method, headers=headers)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if server is not None:
        asked = [("url", url), ("method", method), *(("header", each) for each in headers)]
        asked += [(name, value) for name, value in (("gateway", gateway), ("listener", listener)) if value]
        found = _explained_by(server, asked)
    else:
        assert folder is not None
        found = _explained(folder, given, request, gateway, listener)
    _print(found.to_json(), lines(found), as_json=as_json)
    if found.chosen is None:
        raise typer.Exit(1)


def diff(
    new: Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="[OLD] NEW", help="Folders.")],
    other: Annotated[Path | None, typer.Argument(exists=True, file_okay=False, hidden=True)] = None,
    server: Server = None,
    quota: Quota = None,
    ratelimit_quota: RatelimitQuota = None,
    settings: GivenSettings = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a folder would change, against another folder (OLD NEW) or what is live (NEW --server URL).

    Routes in words, faults that appear or go, resources of Envoy by type and name. Exit code 0: nothing changes;
    1: something does.
    """
    from controlplane.explain.diff import diff as difference
    from controlplane.explain.diff import lines
    from controlplane.explain.summary import summary

    if (other is None) == (server is None):
        raise CommandError("give either two folders, OLD and NEW, or NEW and --server")
    given = _given(server, settings, quota=quota, ratelimit_quota=ratelimit_quota)
    if server is not None:
        before = _summary_of(server)
        # What is live says how the folder would be served.
        after = summary(_engine(new, Served(before.quota_mode, before.rate_limit_service)))
    else:
        assert other is not None
        before, after = summary(_engine(new, given)), summary(_engine(other, given))
    found = difference(before, after)
    _print(found.to_json(), lines(found), as_json=as_json)
    if found:
        raise typer.Exit(1)


def _given(
    server: str | None, settings: Path | None, *, quota: bool | None, ratelimit_quota: list[str] | None
) -> Served:
    """Returns what is taken for given of the gateway that a folder is for; one that runs says so itself."""
    if server is None:
        return served(settings, quota=quota, ratelimit_quota=ratelimit_quota)
    if quota is not None or ratelimit_quota:
        raise CommandError("--quota and --ratelimit-quota are for folders: a control plane that runs knows")
    return Served()


def _explained(folder: Path, given: Served, request: Request, gateway: str | None, listener: str | None) -> Explanation:
    from controlplane.explain import explain as explain_request
    from controlplane.explain import locator

    engine = _engine(folder, given)
    return explain_request(engine.pipeline, request, locate=locator(engine), gateway=gateway, listener=listener)


def _engine(folder: Path, given: Served) -> Engine:
    """Returns an engine on a folder; what is fetched while a gateway runs is taken to be there."""
    from dragoman.cli.offline import engine_of

    engine = engine_of(folder, given)
    engine.take_key_sets(dict.fromkeys(engine.pipeline.wanted_key_sets(), _SOME_KEY_SET))
    return engine


def _explained_by(server: str, asked: list[tuple[str, str]]) -> Explanation:
    from pydantic import TypeAdapter

    from controlplane.explain import Explanation

    return _read(TypeAdapter(Explanation), server, f"/explain?{urlencode(asked)}")


def _summary_of(server: str) -> Summary:
    from pydantic import TypeAdapter

    from controlplane.explain.summary import Summary

    return _read(TypeAdapter(Summary), server, "/summary")


def _read(adapter: TypeAdapter[_T], server: str, path: str) -> _T:
    try:
        return adapter.validate_json(get(server, path))
    except ValueError:
        raise not_understood(server) from None


def _print(document: dict[str, Any], lines: Iterable[Line], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        print_lines(lines)

"""Commands that need no running gateway: validate, translate, bootstrap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from controlplane.engine import Engine, Step
from controlplane.pipeline import Pipeline
from controlplane.provision.address import parse_address
from controlplane.provision.binding import bind
from controlplane.provision.bootstrap import bootstrap as make_bootstrap
from controlplane.provision.bootstrap import bootstrap_yaml
from controlplane.quarantine.quarantine import Quarantine
from controlplane.sources.files import FileSource
from controlplane.status.report import Report, report
from controlplane.translate.dump import to_dict
from controlplane.translate.services import QUOTA_CLUSTER
from controlplane.xds.cache import SnapshotCache
from dragoman.cli.errors import CommandError
from dragoman.cli.options import validator
from dragoman.cli.settings import GivenSettings, Quota, RatelimitQuota, Served, served

if TYPE_CHECKING:
    from controlplane.quarantine.validator import Validator
    from controlplane.sources.reading import Reading

Folder = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="Folder of manifests (*.yaml, *.yml, *.json; recursively).")
]


def validate(
    command: typer.Context,
    folder: Folder,
    all_: Annotated[bool, typer.Option("--all", help="Show every object, not only faults.")] = False,
    validate_with: Annotated[
        str | None, typer.Option(help="Ask another one too: `envoy` (--mode validate) about what is risky.")
    ] = None,
    quota: Quota = None,
    ratelimit_quota: RatelimitQuota = None,
    settings: GivenSettings = None,
) -> None:
    """Check a folder of manifests; print file:line, object and field of every fault.

    Exit code 0: nothing is wrong; 1: something is. Nothing is started and nothing is contacted.
    """
    given = served(settings, quota=quota, ratelimit_quota=ratelimit_quota)
    found = report(engine_of(folder, given, begun=command.obj, asked=validator(validate_with)))
    if all_:
        _show_statuses(found)
    for finding in found.findings:
        typer.echo(str(finding))
    count = len(found.findings)
    if count:
        raise CommandError(f"{count} {'fault' if count == 1 else 'faults'} in {folder}")
    typer.echo(f"{folder}: {len(found.statuses)} objects, no faults")


def translate(
    command: typer.Context,
    folder: Folder,
    gateway: Annotated[str | None, typer.Option(help="Only this Gateway (NAMESPACE/NAME).")] = None,
    quota: Quota = None,
    ratelimit_quota: RatelimitQuota = None,
    settings: GivenSettings = None,
) -> None:
    """Print the Envoy configuration of each Gateway of a folder as YAML; private keys and credentials are redacted."""
    given = served(settings, quota=quota, ratelimit_quota=ratelimit_quota)
    engine = engine_of(folder, given, begun=command.obj)
    out: dict[str, Any] = {}
    for key, snapshot in sorted(engine.pipeline.snapshots.current().items()):
        name = f"{key.namespace}/{key.name}"
        if gateway in (None, name):
            out[name] = {
                type_url.rpartition(".")[2]: [to_dict(type_url, each.body) for each in resources.values()]
                for type_url, resources in snapshot.resources.items()
                if resources
            }
    if gateway is not None and gateway not in out:
        raise CommandError(f"{folder} has no Gateway {gateway} of a class that Dragoman serves")
    typer.echo(yaml.safe_dump(out, sort_keys=False, width=120), nl=False)


def bootstrap(
    gateway: Annotated[str, typer.Option(help="The Gateway that the Envoy belongs to (NAMESPACE/NAME).")],
    xds: Annotated[str, typer.Option(help="Where the control plane serves xDS (HOST:PORT or unix:PATH).")],
    node_id: Annotated[str | None, typer.Option(help="Tells the Envoys of one Gateway apart.")] = None,
    admin: Annotated[str, typer.Option(help="Where Envoy serves its admin endpoint; empty: nowhere.")] = (
        "127.0.0.1:19000"
    ),
) -> None:
    """Print a bootstrap for an Envoy of a Gateway: `dragoman bootstrap ... > envoy.yaml; envoy -c envoy.yaml`."""
    try:
        document = make_bootstrap(
            gateway, xds=parse_address(xds), node_id=node_id, admin=parse_address(admin) if admin else None
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    typer.echo(bootstrap_yaml(document), nl=False)


def engine_of(folder: Path, given: Served, *, begun: Reading | None = None, asked: Validator | None = None) -> Engine:
    """Returns an engine that has taken in a folder, without asking the DNS: no object waits for it.

    What is risky is in force only as far as the validator, if there is one, takes it.
    """
    pipeline = Pipeline(quota_mode=given.quota_mode, rate_limit_service=given.rate_limit_service)
    engine = Engine(bind=bind, now=lambda: datetime.now(UTC), pipeline=pipeline)
    if given.quota_at:
        engine.serve_at({QUOTA_CLUSTER: given.quota_at})
    changes = FileSource(folder, reading=begun).read()
    quarantine = None
    if asked is not None:
        quarantine = Quarantine(engine, SnapshotCache(), publish=_nobody, later=_never)
        quarantine.rehearsal.ask(asked, lambda work: work())
        quarantine.rehearsal.expect(changes)
    engine.apply(changes)
    engine.resolve(dict.fromkeys(engine.pipeline.wanted_hosts(), ()))
    if quarantine is not None:
        asyncio.run(quarantine.rehearsal.run())
    return engine


def _nobody(step: Step) -> None:
    """Nobody is there to be sent anything."""


def _never(delay_s: float, work: Callable[[], None]) -> None:
    """Nothing happens later, for nobody answers."""


def _show_statuses(found: Report) -> None:
    for key, status in found.statuses:
        typer.secho(str(key), bold=True)
        for condition in status.conditions:
            typer.echo(f"  {condition.type}={condition.status} ({condition.reason}) {condition.message}".rstrip())
        for parent in status.parents:
            for condition in parent.conditions:
                text = (
                    f"  {parent.parent}: {condition.type}={condition.status} ({condition.reason}) {condition.message}"
                )
                typer.echo(text.rstrip())
        for listener in status.listeners:
            for condition in listener.conditions:
                text = (
                    f"  {listener.name}: {condition.type}={condition.status} ({condition.reason}) {condition.message}"
                )
                typer.echo(text.rstrip())

"""`dragoman key`: API keys, made, listed, changed and revoked while everything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from dragoman.cli.errors import CommandError
from dragoman.cli.settings import SettingsFile, load
from ext_authz.keys import NewKey, StoreLocation, change_key, create_key, list_keys, revoke_key
from ext_authz.settings import AuthzSettings
from ext_authz.stores.records import StoreUnavailableError

app = typer.Typer(help="Make, list, change and revoke API keys.", no_args_is_help=True)

Redis = Annotated[str | None, typer.Option(help="redis://, rediss:// or unix:// URL of the key store.")]
Keys = Annotated[Path | None, typer.Option(help="The SQLite file of API keys. [default: .dragoman/keys.db]")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def create(
    consumer: Annotated[str, typer.Argument(help="Who will call with the key.")],
    scope: Annotated[list[str] | None, typer.Option(help="A scope of the key; may be repeated.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE that policies may use; may be repeated.")
    ] = None,
    plan: Annotated[str, typer.Option(help="The consumer's plan; the same as --metadata plan=NAME.")] = "",
    tenant: Annotated[str, typer.Option(help="The tenant that the consumer belongs to.")] = "",
    expires_in: Annotated[str | None, typer.Option(help="How long it is good for, such as 12h or 90d.")] = None,
    keys: Keys = None,
    redis: Redis = None,
    settings: SettingsFile = None,
) -> None:
    """Make a key and show it: this once, for only its hash is kept."""
    said = _pairs(metadata or ()) | ({"plan": plan} if plan else {})
    wanted = NewKey(consumer, tuple(scope or ()), said, tenant, _seconds(expires_in))
    try:
        created = create_key(_location(keys, redis, settings), wanted)
    except (ValueError, StoreUnavailableError) as error:
        raise CommandError(str(error)) from None
    typer.echo(created.key)
    typer.secho(f"key {created.record.id} of {consumer}; it is not shown again", err=True, dim=True)


@app.command("list")
def list_(keys: Keys = None, redis: Redis = None, settings: SettingsFile = None) -> None:
    """List all keys: whose they are and what they may do, never the keys themselves."""
    try:
        records = list_keys(_location(keys, redis, settings))
    except StoreUnavailableError as error:
        raise CommandError(str(error)) from None
    # Other commands take the id: it is whole, however narrow the terminal is.
    whole = Column("id", no_wrap=True, min_width=max((len(record.id) for record in records), default=0))
    table = Table(whole, "consumer", "tenant", "plan", "scopes", "created", "expires", "state")
    now = datetime.now(UTC).timestamp()
    for record in records:
        expired = record.expires_at is not None and record.expires_at <= now
        state = "revoked" if record.revoked_at is not None else "expired" if expired else "good"
        times = (_date(record.created_at), _date(record.expires_at))
        who = (record.consumer, record.tenant, record.metadata.get("plan", ""))
        table.add_row(record.id, *who, " ".join(record.scopes), *times, state)
    Console().print(table)


@app.command()
def change(
    key_id: Annotated[str, typer.Argument(help="The id of the key, as `create` and `list` show it.")],
    plan: Annotated[str | None, typer.Option(help="The consumer's plan; empty for none.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE that policies may use, NAME= for none; may be repeated.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant that the consumer belongs to; empty for none.")] = None,
    keys: Keys = None,
    redis: Redis = None,
    settings: SettingsFile = None,
) -> None:
    """Change the plan, tenant or other metadata of a key: in force within a second."""
    said = _pairs(metadata or ()) | ({"plan": plan} if plan is not None else {})
    if not said and tenant is None:
        raise CommandError("nothing to change: give --plan, --tenant or --metadata")
    try:
        known = change_key(_location(keys, redis, settings), key_id, metadata=said, tenant=tenant)
    except (ValueError, StoreUnavailableError) as error:
        raise CommandError(str(error)) from None
    if not known:
        raise CommandError(f"there is no key with the id {key_id}")
    typer.echo(f"key {key_id} is changed")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id of the key, as `create` and `list` show it.")],
    keys: Keys = None,
    redis: Redis = None,
    settings: SettingsFile = None,
) -> None:
    """Revoke a key: within a second every worker refuses it."""
    try:
        known = revoke_key(_location(keys, redis, settings), key_id)
    except StoreUnavailableError as error:
        raise CommandError(str(error)) from None
    if not known:
        raise CommandError(f"there is no key with the id {key_id}")
    typer.echo(f"key {key_id} is revoked")


def _location(keys: Path | None, redis: str | None, file: Path | None) -> StoreLocation:
    # The service's own settings, so that `key` looks where `authz` does.
    loaded = load(AuthzSettings, file, keys=keys, redis=redis, listen="unix:/unused", config="unused")
    return StoreLocation(loaded.keys, loaded.redis or "")


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {name: value for name, equals, value in (text.partition("=") for text in texts) if equals and name}
    if len(pairs) != len(texts):
        raise CommandError("--metadata wants NAME=VALUE, each name once")
    return pairs


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise CommandError(f"--expires-in {text}: expected a number and s, m, h or d, such as 90d")
    return int(found.group(1)) * _UNITS[found.group(2)]


def _date(moment: float | None) -> str:
    return "" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")

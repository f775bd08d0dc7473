"""Who is let in before the API server has been asked: by keys that were kept, and a certificate that is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cluster.doorway import Doorway, doorway
from controlplane.cluster.settings import ClusterSettings, Identity
from controlplane.kept.token_keys import FILE, load_token_keys
from controlplane.xds.identity import Principal, Refusal
from tests.support.certificates import Authority
from tests.support.tokens import SigningKey
from tests.unit.xds.accounts import Issuer, shown

EDGE = Principal("gateway", service_account=("demo", "dragoman-edge"))


def settings(folder: Path | None) -> ClusterSettings:
    accounts = {"authz": ("dragoman", "authz"), "controlplane": ("dragoman", "controlplane")}
    return ClusterSettings(
        identity=Identity("plane-1", "dragoman"), secret="xds", secret_folder=folder, service_accounts=accounts
    )


def mounted(folder: Path) -> Path:
    """A folder as the certificate's Secret is mounted."""
    folder.mkdir()
    authority = Authority()
    authority.leaf("dragoman.dragoman.svc").write(folder)
    (folder / "ca.crt").write_text(authority.cert_pem)
    return folder


async def life(door: Doorway, issuer: Issuer) -> None:
    """The API server answers: the keys come."""
    door.api.get = issuer.fetch
    assert await door.tokens.authenticate(shown(issuer.token("demo", "dragoman-edge"))) == EDGE


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


async def test_without_anything_at_hand_nobody_is_let_in(tmp_path: Path, issuer: Issuer) -> None:
    door = doorway(settings(None), state=tmp_path)
    assert door.admission is None
    found = await door.tokens.authenticate(shown(issuer.token("demo", "dragoman-edge")))
    assert isinstance(found, Refusal)


async def test_keys_that_were_kept_verify_tokens_before_the_api_server_answers(tmp_path: Path, issuer: Issuer) -> None:
    folder = mounted(tmp_path / "secret")
    first = doorway(settings(folder), state=tmp_path)
    assert first.admission is None
    await life(first, issuer)
    second = doorway(settings(folder), state=tmp_path)
    assert second.admission is not None
    assert second.authorities == (folder / "ca.crt").read_text()
    token = issuer.token("demo", "dragoman-edge")
    assert await second.tokens.authenticate(shown(token)) == EDGE
    service = await second.tokens.authenticate(shown(issuer.token("dragoman", "authz")))
    assert service == Principal("service", "authz")
    stranger = Issuer(SigningKey.make("k1"))
    assert isinstance(await second.tokens.authenticate(shown(stranger.token("demo", "dragoman-edge"))), Refusal)


async def test_what_is_kept_is_replaced_when_the_keys_are(tmp_path: Path, issuer: Issuer) -> None:
    await life(doorway(settings(None), state=tmp_path), issuer)
    rotated = Issuer(SigningKey.make("k2"))
    await life(doorway(settings(None), state=tmp_path), rotated)
    kept = load_token_keys(tmp_path / FILE)
    assert kept is not None
    assert kept.by_id.keys() == {"k2"}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"issuer": "i", "keys": {"keys": []}}', '{"keys": 1, "issuer": 2}'])
def test_keys_that_cannot_be_read_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert load_token_keys(tmp_path / FILE) is None


def test_a_certificate_that_is_not_for_its_key_is_not_served_with(tmp_path: Path) -> None:
    folder = mounted(tmp_path / "secret")
    other = Authority().leaf("dragoman.dragoman.svc")
    (folder / "tls.key").write_text(other.key_pem)
    assert doorway(settings(folder), state=tmp_path).tls is None


def test_a_secret_that_is_still_empty_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    door = doorway(settings(tmp_path / "secret"), state=tmp_path)
    assert (door.tls, door.authorities) == (None, "")

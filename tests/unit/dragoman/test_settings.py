"""Layers of settings, and what is said about those that are wrong."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from dragoman.logs import Level
from dragoman.settings import SettingsError, load, variable_names


class Xds(BaseModel):
    listen: str = "127.0.0.1:18000"
    insecure: bool = False


class Settings(BaseModel):
    workers: int = Field(default=1, ge=1)
    engine: Literal["ngh2", "grpcio"] = "ngh2"
    redis: SecretStr | None = None
    dns: list[str] = []
    state: Path | None = None
    xds: Xds = Xds()
    extra: Xds | None = None


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


def faults_of(**layers: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(Settings, **layers)  # type: ignore[arg-type]
    return [str(fault) for fault in caught.value.faults]


def test_without_layers_the_defaults_hold() -> None:
    assert load(Settings) == Settings()


def test_a_later_layer_wins_field_by_field(tmp_path: Path) -> None:
    file = written(tmp_path, "workers: 2\nengine: grpcio\nxds:\n  listen: file:1\n  insecure: true\n")
    environ = {"DRAGOMAN_WORKERS": "3", "DRAGOMAN_XDS_LISTEN": "env:2", "PATH": "/bin"}
    settings = load(Settings, file=file, environ=environ, flags={"workers": 4, "engine": None})
    assert (settings.workers, settings.engine, settings.xds) == (4, "grpcio", Xds(listen="env:2", insecure=True))


def test_a_variable_is_converted_to_the_type_of_its_field() -> None:
    environ = {"DRAGOMAN_DNS": "10.0.0.1, 10.0.0.2", "DRAGOMAN_STATE": "/var/lib/x", "DRAGOMAN_EXTRA_INSECURE": "true"}
    settings = load(Settings, environ=environ)
    assert settings.dns == ["10.0.0.1", "10.0.0.2"]
    assert settings.state == Path("/var/lib/x")
    assert settings.extra == Xds(insecure=True)


def test_unknown_names_are_refused_with_their_place_and_the_nearest_name(tmp_path: Path) -> None:
    file = written(tmp_path, "workers: 2\nxds:\n  listn: here\nzzz: 1\n")
    faults = faults_of(file=file, environ={"DRAGOMAN_WORKER": "1", "DRAGOMAN_XDS_LISTEN": "a:1"})
    assert faults == [
        f"{file}:3: xds.listn: there is no such setting; did you mean listen?",
        f"{file}:4: zzz: there is no such setting",
        "DRAGOMAN_WORKER: there is no such setting; did you mean DRAGOMAN_WORKERS?",
    ]


def test_variables_of_others_are_left_alone() -> None:
    environ = {"DRAGOMAN_HOME": "/srv"}
    assert load(Settings, environ=environ, foreign_variables={"DRAGOMAN_HOME"}) == Settings()


def test_every_fault_is_told_with_the_place_it_came_from(tmp_path: Path) -> None:
    file = written(tmp_path, "engine: go\nxds:\n  insecure: perhaps\ndns:\n- a\n- [b]\n")
    faults = faults_of(file=file, environ={"DRAGOMAN_WORKERS": "many"}, flags={"xds.listen": 7})
    assert [fault.split(": ")[:2] for fault in faults] == [
        ["DRAGOMAN_WORKERS", "workers"],
        [f"{file}:1", "engine"],
        [f"{file}:6", "dns.1"],
        ["--xds-listen", "xds.listen"],
        [f"{file}:3", "xds.insecure"],
    ]


def test_a_fault_never_repeats_a_value() -> None:
    (fault,) = faults_of(environ={"DRAGOMAN_WORKERS": "hunter2"})
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workers: [1\n", ":2: not YAML"),
        ("- workers\n", ":1: the file must hold a mapping"),
        ("workers: 1\nworkers: 2\n", ":2: workers is given twice"),
        ("xds: 7\n", ":1: xds: Input should be"),
        ("dns: &a [*a]\n", ":1: not YAML: found undefined alias 'a'"),
        (f"dns: {'[' * 40}{']' * 40}\n", "nested more than"),
        (f"{'? ' * 900}dns\n", "nested more than"),
        ("dns: !!bool x\n", ":1: not of the type bool"),
        ("dns: !!timestamp x\n", ":1: not of the type timestamp"),
        ("dns: !!int x\n", ":1: not of the type int"),
    ],
)
def test_a_file_that_is_no_settings_is_refused_with_the_line(tmp_path: Path, text: str, says: str) -> None:
    fault, *_ = faults_of(file=written(tmp_path, text))
    assert says in fault


def test_a_missing_file_is_a_fault_and_an_empty_one_is_not(tmp_path: Path) -> None:
    (fault,) = faults_of(file=tmp_path / "absent.yaml")
    assert "No such file" in fault
    assert load(Settings, file=written(tmp_path, "# nothing\n")) == Settings()


def test_two_fields_may_not_share_a_variable() -> None:
    class Clash(BaseModel):
        xds: Xds = Xds()
        xds_listen: str = ""

    with pytest.raises(ValueError, match="DRAGOMAN_XDS_LISTEN"):
        variable_names(Clash)


def test_what_a_model_says_is_told_without_the_words_of_its_library() -> None:
    class Loud(BaseModel):
        log_level: Level = "INFO"

    assert load(Loud, environ={"DRAGOMAN_LOG_LEVEL": "debug"}).log_level == "debug"
    with pytest.raises(SettingsError) as caught:
        load(Loud, environ={"DRAGOMAN_LOG_LEVEL": "LOUD"})
    assert [str(fault) for fault in caught.value.faults] == [
        "DRAGOMAN_LOG_LEVEL: log_level: there is no log level 'LOUD': use DEBUG, INFO, WARNING or ERROR"
    ]

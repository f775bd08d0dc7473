from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from controlplane.sources import reading
from dragoman.cli.early import begin_reading


@pytest.mark.parametrize(
    ("arguments", "environment", "folder"),
    [
        (["serve", "--config", "here"], {}, "here"),
        (["serve", "--xds-insecure", "--config=here"], {"DRAGOMAN_CONFIG": "there"}, "here"),
        (["serve"], {"DRAGOMAN_CONFIG": "there"}, "there"),
        (["serve", "--kubernetes"], {}, None),
        (["serve", "--config"], {}, None),
        (["up", "--http", "x", "here"], {}, "x"),
        (["validate", "--all", "here"], {}, "here"),
        (["translate", "here"], {}, "here"),
        (["translate"], {}, None),
        (["serve", "--config", "here", "--help"], {}, None),
        (["key", "create", "here"], {}, None),
        ([], {"DRAGOMAN_CONFIG": "there"}, None),
    ],
)
def test_a_command_that_is_about_a_folder_begins_to_read_it(
    monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], environment: Mapping[str, str], folder: str | None
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(reading, "begin", asked.append)
    begin_reading(arguments, environment)
    assert [each for each in asked if each] == ([folder] if folder else [])

"""Texts that are kept come back as they were, or it is told why they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.kept_texts import keep_texts, kept_texts

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_what_is_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]) -> None:
    file = tmp_path_factory.mktemp("kept") / "file"
    keep_texts(file, texts)
    assert kept_texts(file) == texts
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_large_comes_back(tmp_path: Path) -> None:
    texts = {"a": '\\"é𝄞\n' * 100_000, "b": ""}
    keep_texts(tmp_path / "file", texts)
    assert kept_texts(tmp_path / "file") == texts


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"a": 5}', b"\xff", b"[" * 100_000])
def test_what_is_damaged_is_told(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "file").write_bytes(damaged)
    with pytest.raises(ValueError):
        kept_texts(tmp_path / "file")

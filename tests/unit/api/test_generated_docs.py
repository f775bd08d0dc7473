from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from controlplane.api import KINDS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_that_are_checked_in_are_what_the_models_say(generator: ModuleType) -> None:
    made = generator.pages()
    kept = {page.name: page.read_text("utf-8") for page in (ROOT / "docs" / "resources").glob("*.md")}
    stale = sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name))
    assert stale == [], "run `make docs`"


def test_every_kind_has_a_page_that_names_what_is_not_supported(generator: ModuleType) -> None:
    made = generator.pages()
    kinds = {kind for group, kind in KINDS if group != "gateway.envoyproxy.io"}
    assert {f"{kind}.md" for kind in kinds} | {"README.md"} == set(made)
    assert "| `oidc` | [OIDC](#oidc) |  | **Not supported yet** (use jwt)." in made["SecurityPolicy.md"]
    assert "| `port` | integer: 1 to 65535 | required | Port that clients connect to. |" in made["Gateway.md"]

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.load import load

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    if ".venv" not in path.parts
)
# Files of the rate limiter are no manifests; tests/unit/ratelimit/test_config_examples.py holds them.
LIMITS = ROOT / "examples" / "ratelimit"
MANIFESTS = sorted(path for path in ROOT.glob("examples/**/*.yaml") if path.parent != LIMITS)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose_of(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Returns what links may name in a page: its headings, as GitHub calls them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors_of(target))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    assert [link for link in links if not re.match(r"[a-z]+:", link) and not leads_somewhere(page, link)] == []


def documents(text: str) -> list[Any]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_every_example_is_free_of_faults(path: Path) -> None:
    found = documents(path.read_text("utf-8"))
    assert found
    assert [loaded.faults for loaded in map(load, found) if loaded.faults] == []


def test_the_manifests_of_the_readme_are_free_of_faults() -> None:
    blocks = re.findall(r"<<'YAML'\n(.*?)\n *YAML\n", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        indent = len(block) - len(block.lstrip())
        text = "\n".join(line[indent:] for line in block.splitlines())
        assert [loaded.faults for loaded in map(load, documents(text)) if loaded.faults] == []


def test_every_example_stands_in_the_list_of_examples() -> None:
    listed = set(re.findall(r"\[([a-z-]+)\]\(\1\)", (ROOT / "examples" / "README.md").read_text("utf-8")))
    assert listed == {path.parent.name for path in MANIFESTS} | {LIMITS.name}

"""Every example of a configuration is free of faults, and does what its comments say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "ratelimit"
TRY = re.compile(r"# try: (.+?) +=> (?:(always) )?(?:(\d+) )?(allowed|refused)(?:, then refused)?(?: as (\S+))?$", re.M)
OVER_LIMIT = 2
FAR_MORE = 12


@dataclass(frozen=True, slots=True)
class Try:
    """Requests of these descriptors: so many are allowed, and the one after them is not, unless that is left open."""

    descriptors: tuple[tuple[tuple[str, str], ...], ...]
    allowed: int
    then_refused: bool
    series: str | None


def tries(text: str) -> list[Try]:
    found: list[Try] = []
    for line in TRY.finditer(text):
        described, always, count, word, series = line.groups()
        entries = tuple(
            tuple((key, value) for key, _, value in (entry.partition("=") for entry in each.split(", ")))
            for each in described.split(" + ")
        )
        allowed = (FAR_MORE if word == "allowed" else 0) if always else int(count)
        found.append(Try(entries, allowed, "then refused" in line[0] or word == "refused", series))
    assert len(found) == len(re.findall(r"^ *# try:", text, re.M)), "a line that cannot be read"
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_does_what_its_comments_say(path: Path) -> None:
    text = path.read_text("utf-8")
    limiter = Limiter(text, MemoryStore(), clock=Clock())
    domain = re.findall(r"^domain: (\w+)$", text, re.M)[0]
    shown = tries(text)
    assert shown
    for each in shown:
        body = request(domain, *each.descriptors)
        codes = [limiter.ask(body).response.overall_code for _ in range(each.allowed + each.then_refused)]
        refused = [code == OVER_LIMIT for code in codes]
        assert refused == [False] * each.allowed + [True] * each.then_refused, (each, codes)
        if each.series is not None:
            counts = limiter.stats.of(domain, each.series, each.series)
            assert counts.total == len(codes)

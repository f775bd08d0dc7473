"""What changes between two summaries: in resources, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from controlplane.explain.lines import Line, Style
from controlplane.explain.summary import Summary, Words

Sign = Literal["+", "-", "~"]
_V = TypeVar("_V")
_STYLES: Mapping[Sign, Style] = {"+": "good", "-": "bad", "~": "plain"}
_MOST = 200
_ALIKE = 4


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is new (+), gone (-) or different (~), and how."""

    sign: Sign
    subject: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diff:
    """All changes: of what Envoys are sent, of routes, of what is wrong with objects."""

    resources: tuple[Change, ...] = ()
    routes: tuple[Change, ...] = ()
    faults: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.resources or self.routes or self.faults)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return asdict(self)


def diff(old: Summary, new: Summary) -> Diff:
    """Returns what changes from the one to the other."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return Diff(
        resources=tuple(Change(sign, name) for sign, name, _, _ in _changes(before, after)),
        routes=tuple(Change(sign, name, _route(was, now)) for sign, name, was, now in _changes(old.routes, new.routes)),
        faults=tuple(
            Change(sign, name)
            for sign, name, _, _ in _changes(dict.fromkeys(old.faults, ""), dict.fromkeys(new.faults, ""))
        ),
    )


def lines(found: Diff) -> Iterator[Line]:
    """Yields what changes, as text; what changes alike is told once; of very many, the first are shown."""
    if not found:
        yield Line(0, "plain", "nothing changes")
    for title, changes in (("Routes", found.routes), ("Faults", found.faults), ("Resources", found.resources)):
        if changes:
            counts = ((sign, sum(1 for each in changes if each.sign == sign)) for sign in ("+", "-", "~"))
            yield Line(0, "title", f"{title} ({', '.join(f'{sign}{count}' for sign, count in counts if count)})")
        groups = _alike(changes)
        for group in groups[:_MOST]:
            for each in group if len(group) <= _ALIKE else group[: _ALIKE - 1]:
                style = _faulty(each.sign) if title == "Faults" else _STYLES[each.sign]
                yield Line(1, style, f"{each.sign} {each.subject}")
            if len(group) > _ALIKE:
                yield Line(1, "plain", f"{group[0].sign} and {len(group) - _ALIKE + 1} more alike")
            yield from (Line(3, "plain", detail) for detail in group[0].details)
        if len(groups) > _MOST:
            yield Line(1, "dim", f"and {sum(map(len, groups[_MOST:]))} more")


def _alike(changes: Sequence[Change]) -> list[list[Change]]:
    """Puts together what changes in the same way, such as all routes of a Gateway whose policy is another."""
    groups: dict[tuple[Sign, tuple[str, ...] | str], list[Change]] = {}
    for each in changes:
        groups.setdefault((each.sign, each.details or each.subject), []).append(each)
    return list(groups.values())


def _faulty(sign: Sign) -> Style:
    return "bad" if sign == "+" else "good"


def _changes(before: Mapping[str, _V], after: Mapping[str, _V]) -> Iterator[tuple[Sign, str, _V | None, _V | None]]:
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if name not in before:
            yield "+", name, was, now
        elif name not in after:
            yield "-", name, was, now
        elif was != now:
            yield "~", name, was, now


def _flat(summary: Summary) -> Iterator[tuple[str, str]]:
    for owner, types in summary.resources.items():
        for type_, names in types.items():
            yield from ((f"{owner} {type_} {name}", version) for name, version in names.items())


def _route(was: Words | None, now: Words | None) -> tuple[str, ...]:
    if was is None or now is None:
        there = now if now is not None else was or {}
        return tuple(f"{aspect}: {value}" for aspect, value in there.items())
    aspects = dict.fromkeys([*was, *now])
    return tuple(
        f"{aspect}: {was.get(aspect, 'none')} → {now.get(aspect, 'none')}"
        for aspect in aspects
        if was.get(aspect) != now.get(aspect)
    )

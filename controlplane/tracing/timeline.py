"""Changes as lines of text: what `dragoman trace` prints of what `/changes` answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Style = Literal["title", "plain", "good", "bad", "dim"]
_MOST_OBJECTS = 5
_STAGES = (("wait", "taken", "waited"), ("load", "loaded", "took"), ("compile", "compiled", "took"))


class Line(NamedTuple):
    """One line: indented by `depth` steps."""

    depth: int
    style: Style
    text: str


def lines(change: Mapping[str, Any]) -> Iterator[Line]:
    """Yields what became of a change, in the order of time, every moment in ms since it was seen."""
    yield Line(0, "title", f"change {change['id']}  {change['at']}  {_verdict(change)}")
    objects = change["objects"][:_MOST_OBJECTS]
    more = change["objects_total"] - len(objects)
    yield Line(1, "plain", (", ".join(objects) + (f" and {more:,} more" if more else "")) or "no object of its own")
    at = 0.0
    yield _moment(at, "seen")
    for stage, becomes, verb in _STAGES:
        took = change["stages_ms"][stage]
        at += took
        yield _moment(at, becomes, f"{verb} {_ms(took)}")
    yield _moment(at + change["stages_ms"]["publish"], "published", f"took {_ms(change['stages_ms']['publish'])}")
    if not change["owners"]:
        yield Line(1, "dim", "nothing that anybody is sent has changed")
    for owner in change["owners"]:
        yield from _owner(owner)


def _owner(owner: Mapping[str, Any]) -> Iterator[Line]:
    clients = owner["clients"]
    who = f"{clients:,} client{'s' if clients != 1 else ''}"
    state = "no client is to answer anything" if owner["state"] == "nobody" else f"{owner['state']}, {who}"
    words = f"{owner['owner']}: {state}"
    if owner["behind"] and owner["behind"] != clients:
        words += f", {owner['behind']:,} of them behind"
    if owner["left"]:
        words += f", {owner['left']:,} went away before they had it"
    yield Line(1, _style(owner["state"]), words)
    for sent in sorted(owner["types"], key=lambda each: each["pushed_ms"] or [float("inf")]):
        yield from _type(sent, clients)
    for rejection in owner["rejections"]:
        names = ", ".join(rejection["names"])
        yield Line(2, "bad", f"{rejection['client']} rejected {rejection['type']} {names}: {rejection['message']}")
    for waiting in owner["waiting"]:
        sent = ", ".join(f"{name} for {_ms(since)}" for name, since in waiting["unanswered_ms"].items())
        yield Line(2, "bad", f"{waiting['client']} has not answered {sent or 'and is yet to be sent it'}")
    if owner["settled_ms"] is not None and owner["last_client"]:
        last = f"by {owner['last_client']}, the last" if clients > 1 else f"by {owner['last_client']}"
        yield _moment(owner["settled_ms"], "settled", last)


def _type(sent: Mapping[str, Any], clients: int) -> Iterator[Line]:
    names = ", ".join(sent["names"][:2]) + (" …" if sent["resources"] > 2 else "")
    what = f"{sent['type']}: {sent['resources']:,} ({sent['bytes']:,} bytes) {names}" if sent["resources"] else ""
    if sent["removed"]:
        what = (f"{what}, " if what else f"{sent['type']}: ") + f"{sent['removed']:,} removed"
    if sent["pushed_ms"] is None:
        yield Line(2, "dim", f"{what}: nothing that is acknowledged yet" if clients else what)
        return
    first, last = sent["pushed_ms"]
    yield _moment(first, "pushed", what)
    if sent["acks"] > 1:
        yield _moment(last, "pushed", f"{sent['type']} to the last of {sent['acks']:,} clients")
    slowest = max(sent["clients"].values(), key=lambda each: each[1] - each[0])
    took = f"after {_ms(slowest[1] - slowest[0])}" if sent["acks"] == 1 else f"{sent['acks']:,} clients, the last"
    yield _moment(sent["acked_ms"], "acked", f"{sent['type']} {took} ({sent['last_client']})")


def _verdict(change: Mapping[str, Any]) -> str:
    if change["settled_ms"] is not None:
        return f"{change['state']} after {_ms(change['settled_ms'])}"
    if change["state"] == "under way":
        return f"under way for {_ms(change['age_ms'])}"
    return "sent to nobody" if change["state"] == "nobody" else str(change["state"])


def _moment(at: float, what: str, words: str = "") -> Line:
    return Line(2, "plain", f"{at:>10,.1f} ms  {what:<10}{words}".rstrip())


def _style(state: str) -> Style:
    styles: dict[str, Style] = {"settled": "good", "under way": "plain", "nobody": "dim"}
    return styles.get(state, "bad")


def _ms(value: float) -> str:
    return f"{value:,.1f} ms"

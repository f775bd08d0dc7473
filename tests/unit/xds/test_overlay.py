"""What is told as a difference from a shared mapping says just what a mapping of its own would."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.xds import overlay
from controlplane.xds.overlay import Names, Versions
from controlplane.xds.resources import CLUSTER, Resource

NAMES = st.sampled_from("abcd")
TEXTS = st.sampled_from(["1", "2"])
STATES = st.dictionaries(NAMES, TEXTS, max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("set"), NAMES, TEXTS),
    st.tuples(st.just("discard"), NAMES, TEXTS),
    st.tuples(st.just("share"), NAMES, TEXTS),
    st.tuples(st.just("rebase"), STATES, st.booleans()),
)


def made(state: dict[str, str]) -> dict[str, Resource]:
    return {name: Resource(CLUSTER, name, b"", version) for name, version in state.items()}


@pytest.fixture(scope="module", autouse=True)
def _share_a_little() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "MIN_SHARED", 1)
        yield


@given(first=STATES, have=STATES, steps=st.lists(STEPS, max_size=20))
def test_versions_are_those_of_a_plain_mapping(
    first: dict[str, str], have: dict[str, str], steps: list[tuple[str, object, object]]
) -> None:
    shared, plain = made(have), dict(first)
    versions = Versions()
    assert versions.begin(first, shared) == (first == have and bool(have))
    for action, what, value in steps:
        if action == "rebase":
            assert isinstance(what, dict)
            after = made(what)
            changes = {
                name
                for name in shared.keys() | after.keys()
                if (name in shared) != (name in after) or shared[name].version != after[name].version
            }
            versions.rebase(after, None if value else changes)
            shared = after
        elif action == "share":
            versions.share(shared)
        elif action == "set":
            versions.set(str(what), str(value))
            plain[str(what)] = str(value)
        else:
            versions.discard(str(what))
            plain.pop(str(what), None)
        assert {name: versions.get(name) for name in versions} == plain
        assert len(versions) == len(plain)
        assert [name in versions for name in "abcd"] == [name in plain for name in "abcd"]


@given(asked=st.sets(NAMES), have=STATES, after=STATES, more=st.lists(NAMES), less=st.lists(NAMES))
def test_names_stay_what_was_asked_for_whatever_the_snapshot_holds(
    asked: set[str], have: dict[str, str], after: dict[str, str], more: list[str], less: list[str]
) -> None:
    names = Names()
    names.begin(dict.fromkeys(asked, True), made(have))
    names.rebase(made(after), have.keys() ^ after.keys())
    assert set(names) == asked
    for name in more:
        names.add(name)
    for name in less:
        names.discard(name)
    assert set(names) == (asked | set(more)) - set(less)
    assert len(names) == len(set(names))


def test_a_view_of_two_snapshots_is_not_shared() -> None:
    versions = Versions()
    assert not versions.begin({"a": "1"}, ChainMap({}, made({"a": "1"})))
    assert versions.begin({"a": "1"}, made({"a": "1"}))

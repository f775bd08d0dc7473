# pyright: standard, reportAttributeAccessIssue=false
"""A tree that is kept up to date path by path is the tree that would be made at once."""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3.route_components_pb2 import VirtualHost
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane import ir
from controlplane.compile.precedence import rank
from controlplane.graph import Change
from controlplane.pipeline import trees
from controlplane.pipeline.pieces import Piece, Surface
from controlplane.pipeline.trees import Placed, Stage
from controlplane.translate import tree
from controlplane.translate.overlays import overlay

_OPEN = overlay(ir.Policies())
_GUARDED = overlay(ir.Policies(deny=ir.Deny(500, "no")))
_PATHS = st.one_of(
    st.builds(ir.PathMatch, st.sampled_from(["Exact", "PathPrefix"]), st.sampled_from(["/", "/a", "/a/b", "/c"])),
    st.just(ir.PathMatch("RegularExpression", "/x[0-9]+")),
)
_MATCHES = st.builds(
    ir.Match,
    _PATHS,
    method=st.sampled_from([None, "GET"]),
    headers=st.sampled_from([(), (ir.ValueMatch("x-a", "1"),)]),
    query=st.just(()),
    call=st.none(),
)
_OBJECTS = st.sampled_from(["r1", "r2", "r3", "r4", "r5"])
_EDITS = st.lists(
    st.tuples(_OBJECTS, st.lists(_MATCHES, max_size=3), st.sampled_from([_OPEN, _GUARDED])), min_size=1, max_size=20
)


def _laid(name: str, matches: list[ir.Match], over: Any) -> tuple[Placed, ...]:
    rule = ir.Rule(name, tuple(matches), ir.Respond(200, name))
    return tuple(
        Placed(
            Piece(
                rank(match, created=None, route=name, rule_index=0, match_index=index),
                name,
                match,
                rule,
                name,
                name,
                Surface(80, False),
            ),
            over,
            (name,),
        )
        for index, match in enumerate(matches)
    )


def _read(parts: tuple[bytes, ...]) -> Any:
    """What matchers say; the order of a map's entries says nothing."""
    return MessageToDict(VirtualHost.FromString(tree.joined(parts))) if parts else None


@settings(max_examples=150, deadline=None)
@given(_EDITS)
def test_a_stage_after_edits_is_the_stage_of_what_is_there(edits: list[tuple[str, list[ir.Match], Any]]) -> None:
    laid: dict[str, tuple[Placed, ...]] = {}
    stage: Stage | None = None
    for name, matches, over in edits:
        before, after = laid.pop(name, None), _laid(name, matches, over) if matches else None
        stage = trees.updated(stage, [Change(before, after)])
        if after is not None:
            laid[name] = after
    assert stage is not None
    cold = trees.updated(None, [Change(None, each) for each in laid.values()])
    assert trees.encoded(stage) == trees.encoded(cold)
    assert (stage.count, stage.unfit) == (sum(map(len, laid.values())), 0)
    assert sorted(trees.StageOrigins(stage)) == sorted(each.origins for some in laid.values() for each in some)
    in_order = sorted((each for some in laid.values() for each in some), key=lambda each: each.piece.rank)
    if in_order:
        whole = tree.matcher([[each.piece.branch(each.overlay) for each in in_order]])
        assert _read(trees.encoded(stage).parts) == MessageToDict(VirtualHost.FromString(whole))


def test_an_edit_encodes_its_path_again_and_no_other(monkeypatch: Any) -> None:
    laid = {
        f"r{number}": _laid(f"r{number}", [ir.Match(ir.PathMatch("PathPrefix", f"/p{number}"))], _OPEN)
        for number in range(500)
    }
    stage = trees.updated(None, [Change(None, each) for each in laid.values()])
    encoded: list[str] = []
    entry = tree.entry
    monkeypatch.setattr(trees.tree, "entry", lambda found: encoded.append(found[0].match.path.value) or entry(found))
    moved = _laid("r7", [ir.Match(ir.PathMatch("PathPrefix", "/moved"))], _OPEN)
    after = trees.updated(stage, [Change(laid["r7"], moved)])
    assert encoded == ["/moved"]
    kept = sum(after.shares[number] is share for number, share in stage.shares.items() if number in after.shares)
    assert kept >= len(stage.shares) - 2

"""The routes of one hostname in a matcher tree, kept up to date: one change has one path encoded again, and its share.

What a path leads to depends on the routes of that path alone. The paths are in shares, each joined and hashed apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple
from zlib import crc32

from controlplane.compile import precedence
from controlplane.graph import Change
from controlplane.pipeline.pieces import Piece
from controlplane.translate import tree
from controlplane.translate.overlays import Overlay

_SHARES: Final = 64
_DIGEST_BYTES: Final = 16
Path = tuple[str, str]
"""The kind of a path match, and its value."""


class Placed(NamedTuple):
    """A route at a place, with what policies lay over it there, and the objects that it is made from."""

    piece: Piece
    overlay: Overlay
    origins: tuple[str, ...]


class _Share(NamedTuple):
    """Some paths of one kind: the routes of each, its entry; and these joined."""

    paths: Mapping[Path, tuple[tuple[Placed, ...], bytes]]
    body: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """The routes of one hostname; `unfit` is how many of them no such tree can hold."""

    shares: Mapping[tuple[str, int], _Share] = field(default_factory=lambda: MappingProxyType({}))
    expressions: tuple[Placed, ...] = ()
    count: int = 0
    unfit: int = 0


@dataclass(frozen=True, slots=True)
class StageOrigins:
    """The origins of the routes of a stage; looked for only when they are asked for."""

    stage: Stage

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yields them in an order that the content decides."""
        for number in sorted(self.stage.shares):
            paths = self.stage.shares[number].paths
            yield from (placed.origins for path in sorted(paths) for placed in paths[path][0])
        yield from (placed.origins for placed in self.stage.expressions)


class Tree(NamedTuple):
    """The matchers of a stage in their order, and what tells their content apart."""

    parts: tuple[bytes, ...]
    digest: bytes


def updated(before: Stage | None, changes: Iterable[Change[tuple[Placed, ...]]]) -> Stage:
    """Returns a stage after changes of what is laid at its place."""
    stage = before or Stage()
    gone: dict[Path, list[Piece]] = {}
    come: dict[Path, list[Placed]] = {}
    count, unfit = stage.count, stage.unfit
    for change in changes:
        for laid, by in ((change.before, -1), (change.after, 1)):
            for placed in laid or ():
                piece = placed.piece
                count += by
                unfit += 0 if _fits(piece) else by
                path = piece.match.path.kind, piece.match.path.value
                if by < 0:
                    gone.setdefault(path, []).append(piece)
                else:
                    come.setdefault(path, []).append(placed)
    expressions = _expressions(stage.expressions, gone, come)
    return Stage(_shares(stage.shares, gone, come), expressions, count, unfit)


def encoded(stage: Stage) -> Tree:
    """Encodes a stage: exact paths, expressions, prefixes (Gateway API: HTTPRouteRule.matches precedence)."""
    parts: list[bytes] = []
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for kind in ("Exact", "PathPrefix"):
        shares = [share for (of, _), share in sorted(stage.shares.items()) if of == kind]
        if kind == "PathPrefix" and stage.expressions:
            parts.append(tree.expressions(_branches(stage.expressions)))
            digest.update(b"expressions" + hashlib.blake2b(parts[-1], digest_size=_DIGEST_BYTES).digest())
        if shares:
            parts.append(tree.path_map(share.body for share in shares))
            digest.update(kind.encode() + b"".join(share.digest for share in shares))
    return Tree(tuple(parts), digest.digest())


def _fits(piece: Piece) -> bool:
    """Says whether such a tree can hold a route: expressions of gRPC are among other paths, not between kinds."""
    is_expression = piece.match.path.kind == "RegularExpression"
    return tree.suits([piece.match]) and not (is_expression and piece.match.call is not None)


def _expressions(
    before: tuple[Placed, ...], gone: Mapping[Path, Sequence[Piece]], come: Mapping[Path, Sequence[Placed]]
) -> tuple[Placed, ...]:
    without = {id(piece) for path in gone if path[0] == "RegularExpression" for piece in gone[path]}
    new = [placed for path in come if path[0] == "RegularExpression" for placed in come[path]]
    if not (without or new):
        return before
    return tuple(sorted([*(each for each in before if id(each.piece) not in without), *new], key=_rank))


def _shares(
    before: Mapping[tuple[str, int], _Share],
    gone: Mapping[Path, Sequence[Piece]],
    come: Mapping[Path, Sequence[Placed]],
) -> Mapping[tuple[str, int], _Share]:
    touched: dict[tuple[str, int], list[Path]] = {}
    for path in {**gone, **come}:
        if path[0] != "RegularExpression":
            touched.setdefault((path[0], crc32(path[1].encode()) % _SHARES), []).append(path)
    shares = dict(before)
    for number, paths in touched.items():
        known = dict(shares[number].paths) if number in shares else {}
        for path in paths:
            placed = _at_path(known[path][0] if path in known else (), gone.get(path, ()), come.get(path, ()))
            known.pop(path, None)
            if placed:
                known[path] = placed, tree.entry(_branches(placed))
        shares.pop(number, None)
        if known:
            shares[number] = _joined(known)
    return MappingProxyType(shares)


def _at_path(before: tuple[Placed, ...], gone: Iterable[Piece], come: Iterable[Placed]) -> tuple[Placed, ...]:
    without = {id(piece) for piece in gone}
    return tuple(sorted([*(each for each in before if id(each.piece) not in without), *come], key=_rank))


def _joined(paths: dict[Path, tuple[tuple[Placed, ...], bytes]]) -> _Share:
    body = b"".join(paths[path][1] for path in sorted(paths))
    return _Share(MappingProxyType(paths), body, hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest())


def _rank(placed: Placed) -> precedence.Rank:
    return placed.piece.rank


def _branches(placed: Iterable[Placed]) -> list[tree.Branch]:
    return [each.piece.branch(each.overlay) for each in placed]

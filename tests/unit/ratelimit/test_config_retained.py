"""What of a configuration is as it was before is taken over, and what is in force then means what was given."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_service.build import retained
from ratelimit_service.model import Domain, Node, OnStoreError, Rule, Unit

Tree = dict[str, tuple[int, bool, "Tree"]]
"""By the name of a descriptor its limit (0 for none), whether its values are told, and what is below it."""

NAMES = st.sampled_from(["a", "b", "a_1", "a_*", "b_*", "*"])
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.just({}),
    lambda below: st.dictionaries(NAMES, st.tuples(st.integers(0, 2), st.booleans(), below), max_size=4),
    max_leaves=12,
)


def node(tree: Tree, path: str = "", name: str = "", limit: int = 0, told: bool = False) -> Node:
    children = {each: node(below, f"{path}.{each}", each, own, flag) for each, (own, flag, below) in tree.items()}
    rule = Rule("d", path, Unit.HOUR, limit) if limit else None
    wildcards = tuple((each[:-1], child) for each, child in children.items() if each.endswith("*"))
    return Node(name, rule, children, wildcards, value_to_metric=told)


def nodes(root: Node, path: str = "") -> dict[str, Node]:
    found = {path: root}
    for name, child in root.children.items():
        found |= nodes(child, f"{path}.{name}")
    return found


@given(TREES, TREES, st.sampled_from(OnStoreError), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_is_in_force_is_what_was_given_with_all_that_is_as_it_was(
    old: Tree, new: Tree, on_store_error: OnStoreError, refines: bool
) -> None:
    before = Domain("d", node(old))
    now = Domain("d", node(new), on_store_error, refines=refines)
    found = retained(now, before)
    assert found == now
    # Equal mappings may differ in their order, and the first wildcard that fits is taken.
    were, are, given = nodes(before.root), nodes(found.root), nodes(now.root)
    for path, each in are.items():
        assert [prefix for prefix, _ in each.wildcards] == [prefix for prefix, _ in given[path].wildcards]
        assert all(wildcard is each.children[wildcard.name] for _, wildcard in each.wildcards)
        was = were.get(path)
        if was is not None and was == each:
            assert each is was
        if was is not None and was.rule == each.rule:
            assert each.rule is was.rule
    if found == before:
        assert found is before


def test_the_same_again_is_the_same() -> None:
    tree: Tree = {"a": (1, False, {"b_*": (2, True, {}), "*": (1, False, {})})}
    before = Domain("d", node(tree))
    assert retained(Domain("d", node(tree)), before) is before
    assert retained(before, None) is before

"""The tree of sums: its shape depends on the number of shards only."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.plan.tree import describe, frontier, halves, is_leaf

drawn = settings(deadline=None, derandomize=True, max_examples=60)
owned = st.lists(st.integers(0, 4), min_size=1, max_size=24)


def leaves(span):
    if is_leaf(span):
        return [span[0]]
    left, right = halves(span)
    return leaves(left) + leaves(right)


def depth(span):
    return 0 if is_leaf(span) else 1 + max(map(depth, halves(span)))


def joined(span, values):
    """The sum of a span, from the sums of the subtrees in ``values``."""
    if span in values:
        return values[span]
    left, right = halves(span)
    return joined(left, values) + joined(right, values)


@drawn
@given(start=st.integers(0, 50), length=st.integers(2, 70))
def test_halves_meet_in_the_middle_and_reach_each_shard_once(start, length):
    span = (start, start + length)
    left, right = halves(span)
    assert left[0] == start and left[1] == right[0] and right[1] == start + length
    assert abs((left[1] - left[0]) - (right[1] - right[0])) <= 1
    assert leaves(span) == list(range(*span))
    assert depth(span) == (length - 1).bit_length()


@drawn
@given(owners=owned)
def test_the_frontier_partitions_the_span_into_the_largest_subtrees_of_one_owner(owners):
    root = (0, len(owners))
    found = frontier(root, dict(enumerate(owners)))
    assert [shard for span, _ in found for shard in range(*span)] == list(range(*root))
    spans = {span for span, _ in found}
    for span, owner in found:
        assert {owners[shard] for shard in range(*span)} == {owner}

    def check(span):
        """Every node above the frontier has several owners."""
        if span not in spans:
            assert len({owners[shard] for shard in range(*span)}) > 1
            for half in halves(span):
                check(half)

    check(root)


@drawn
@given(owners=owned, seed=st.integers(0, 99))
def test_joining_any_frontier_gives_the_bits_of_the_whole_tree(owners, seed):
    root = (0, len(owners))
    rng = np.random.default_rng(seed)
    parts = (rng.standard_normal((len(owners), 5)) * 10.0 ** rng.integers(-6, 6, (len(owners), 1))).astype(
        "float32"
    )
    shards = {(i, i + 1): part for i, part in enumerate(parts)}
    whole = joined(root, shards)
    subtrees = {span: joined(span, shards) for span, _ in frontier(root, dict(enumerate(owners)))}
    assert joined(root, subtrees).tobytes() == whole.tobytes()
    np.testing.assert_allclose(whole, parts.sum(0, dtype=np.float64), rtol=1e-3, atol=abs(parts).max() * 1e-5)


def test_sums_in_another_order_have_other_bits():
    parts = np.random.default_rng(0).standard_normal((7, 50)).astype("float32")
    tree = joined((0, 7), {(i, i + 1): part for i, part in enumerate(parts)})
    chain = parts[0]
    for part in parts[1:]:
        chain = chain + part
    assert tree.tobytes() != chain.tobytes()


def test_a_tree_in_words():
    assert describe((0, 1)) == "0" and describe((3, 5)) == "(3 + 4)"
    assert describe((0, 5)) == "(((0 + 1) + 2) + (3 + 4))"

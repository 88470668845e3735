"""Split Programs: every plan's loss, gradients and weights are those of the whole network."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskconv import SGD
from daskconv.errors import InputError
from daskconv.plan.boxes import edges_of
from daskconv.plan.pieces import Pieces
from daskconv.run.exchange import Mesh
from daskconv.run.shards import Batch, Shards
from plan.drawn import images, networks, program_of, some_plans, state_of, unsplit


def shards_of(program, state, threads=1):
    count = program.split.shards
    pieces = Pieces.cut(program.split, state, range(count))
    return Shards(program, pieces, Mesh((0,) * count), threads)


def gradients_of(shards, data, indices):
    """Return the summed gradients and statistics, put together, and the sums; NaN where no shard gave any."""
    program = shards.program
    batch = Batch(shards, data, indices, 0, training=True)
    batch.forward()
    sums = shards.add_sums(batch.lose())
    batch.backward()
    found = {name: np.full(shape, np.nan) for name, shape in program.vector_shapes.items()}
    for (name, box), gradient in shards.add_gradients(batch.grads).items():
        place = found[name][tuple(slice(*side) for side in box)]
        assert np.isnan(place).all(), "each piece once"
        place[...] = gradient
    return found, sums


def image_groups(plan, images):
    """Return the groups of images that share the statistics of batch norms."""
    if plan.synchronize:
        return [(0, images)]
    edges, parts = edges_of(images, plan.shards), plan.layout.n
    each = plan.shards // parts
    return [(edges[i * each], edges[(i + 1) * each]) for i in range(parts)]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), some_plans(), st.sampled_from([(8, 9, 4), (12, 8, 4)]), st.integers(1, 7), st.data())
def test_every_plan_gives_the_gradients_of_the_whole_network(network, plan, shape, count, draw):
    batch = max(count, plan.layout.n)
    try:
        program = program_of(network, plan, shape, batch)
    except InputError as error:
        # Deep networks on small images: some part of the last ones would see padding only.
        assert "see padding only" in str(error) or "kernel spans" in str(error), error
        return
    if program.split is None:
        return
    data, indices = images(9, shape), np.arange(9)[draw.draw(st.permutations(range(9)))][:count]
    if plan.layout.n > 1 and any("variance" in name for name in program.vector_shapes):
        indices = indices[: max(1, count)]
    found, sums = gradients_of(shards_of(program, state_of(network, shape, SGD(0.1))), data, indices)
    expected, expected_sums = unsplit(network, plan, shape, data, indices, image_groups(plan, len(indices)))
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-9)
    scale = max(np.abs(gradient).max() for name, gradient in expected.items())
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-7, atol=1e-9 * scale, err_msg=name)

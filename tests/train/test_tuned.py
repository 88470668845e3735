"""Training with a tuning table: equal tables give equal bits, and a checkpoint keeps its choices."""

import os

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskconv.graph import tuning_file
from daskconv.graph.choose import PASSES, PRECISIONS
from daskconv.graph.tuning import Case, Table
from daskconv.graph.tuning_file import save_table
from daskconv.train.files import load_checkpoint
from train.small import TINY, X, Y, bits, fit, refuse, trainer

pytestmark = pytest.mark.skipif(
    os.environ.get("DASKCONV_JIT") == "0", reason="the table names compiled methods"
)
SHAPES = [TINY.nodes[i].layer.conv_shape(s) for i, s in ((0, (8, 8, 1)), (3, (4, 4, 6)))]


def table_of(method):
    return Table.of(
        {
            Case(shape, p, "float32", 16, precision): method
            for shape in SHAPES
            for p in PASSES
            for precision in PRECISIONS
        }
    )


@pytest.fixture
def tune(tmp_path, monkeypatch):
    """Make this a machine with a table for a method, or with none."""

    def machine(method):
        monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path / str(method)))
        tuning_file._read_once.cache_clear()
        if method:
            save_table(table_of(method))

    yield machine
    tuning_file._read_once.cache_clear()


def methods_of(trainer, batch_size=50):
    program = trainer.program((8, 8, 1), batch_size)
    return {method for row in program.methods.values() for method in row.values()}


def test_equal_tables_give_equal_bits_and_workers_do_not_look_at_their_own(tune):
    tune("lowering")
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        tune("direct")
        here, there = fit(trainer()), fit(trainer(transport="dask", client=client))
        lazy = here.predict(da.from_array(X[:100], (50, -1, -1, -1))).compute()
    assert methods_of(here) == {"direct"} and bits(here) == bits(there)
    assert (lazy == np.concatenate([here.predict(X[:50]), here.predict(X[50:100])])).all()
    assert here.program((8, 8, 1), 50) == there.program((8, 8, 1), 50)
    assert here.program((8, 8, 1), 50).tuning == table_of("direct").hash
    tune("lowering")
    other = fit(trainer())
    assert methods_of(other) == {"lowering"} and bits(other) != bits(here)
    tune(None)
    assert bits(fit(trainer(method="direct"))) == bits(here)


def test_training_goes_on_with_the_methods_it_began_with(tune, tmp_path):
    tune("direct")
    once = fit(trainer(), epochs=2)
    first = fit(trainer())
    first.save(tmp_path / "f")
    for method in "lowering", None:
        tune(method)
        resumed = fit(trainer().resume(tmp_path / "f"), epochs=2)
        assert bits(resumed) == bits(once) and methods_of(resumed) == {"direct"}
        assert resumed.program((8, 8, 1), 50).tuning == table_of("direct").hash
        resumed.save(tmp_path / "again")
        assert load_checkpoint(tmp_path / "again").options["tuning"] == table_of("direct").hash
    assert bits(fit(first, epochs=2)) == bits(once), "nor does what is tuned meanwhile change a trainer"
    assert first.evaluate(X, Y) == once.evaluate(X, Y)


def test_training_without_a_table_goes_on_where_there_is_one(tune, tmp_path):
    tune(None)
    once = fit(trainer(), epochs=2)
    fit(trainer()).save(tmp_path / "f")
    tune("direct")
    resumed = fit(trainer().resume(tmp_path / "f"), epochs=2)
    assert bits(resumed) == bits(once) and resumed.program((8, 8, 1), 50).tuning == ""


def test_another_method_or_precision_is_refused_as_before(tune, tmp_path):
    tune("direct")
    fit(trainer()).save(tmp_path / "f")
    for options, match in ({"method": "lowering"}, "method auto"), ({"precision": "exact"}, "precision fast"):
        refuse(match, fit, trainer(**options).resume(tmp_path / "f"), epochs=2)


@pytest.mark.parametrize(
    ("methods", "match"),
    [
        ({"conv1": dict.fromkeys(PASSES, "direct")}, "Training began with methods"),
        (dict.fromkeys(["conv1", "conv2"], dict.fromkeys(PASSES, "fourier")), "method is 'fourier'"),
    ],
)
def test_methods_of_a_checkpoint_that_cannot_be_are_refused(tune, tmp_path, methods, match):
    tune(None)
    fit(trainer()).save(tmp_path / "f")
    checkpoint = load_checkpoint(tmp_path / "f")
    checkpoint.options["methods"] = methods
    refuse(match, fit, trainer().resume(checkpoint), epochs=2)


def test_methods_of_a_checkpoint_that_need_compiled_kernels_say_so(tune, tmp_path, monkeypatch):
    tune("direct")
    fit(trainer()).save(tmp_path / "f")
    monkeypatch.setattr("daskconv.graph.choose.enabled", lambda: False)
    refuse("'direct' needs compiled kernels", fit, trainer().resume(tmp_path / "f"), epochs=2)


def test_a_checkpoint_of_before_tables_goes_on(tmp_path):
    fit(trainer()).save(tmp_path / "f")
    checkpoint = load_checkpoint(tmp_path / "f")
    del checkpoint.options["tuning"]
    assert np.isfinite(fit(trainer().resume(checkpoint), epochs=2).history["loss"][-1])

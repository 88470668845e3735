"""The tuning table and the private file in which processes share it."""

import json
import os
import pickle
import stat
import subprocess
import sys
import warnings

import dask
import dask.array as da
import numpy as np
import pytest

import daskconv
from daskconv.geometry import Window
from daskconv.graph import tuning, tuning_file
from daskconv.graph.choose import PASSES, ConvShape, candidates, choose, choose_all
from daskconv.graph.tuning import Case, Table, about
from daskconv.graph.tuning_file import cache_folder, load_table, save_table
from daskconv.kernels.jit import enabled

compiled = pytest.mark.skipif(
    os.environ.get("DASKCONV_JIT") == "0", reason="the table names compiled methods"
)
SHAPE = ConvShape(Window.of(3, (14, 14), padding=1), (14, 14), 32, 32)


def table_of(methods, shape=SHAPE, images=8, precision="fast", dtype="float32"):
    return Table.of({Case(shape, p, dtype, images, precision): m for p, m in methods.items()})


TABLE = table_of({"forward": "lowering", "input_grad": "direct"})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; the folder that a table is kept in."""
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path / "cache"))
    tuning_file._read_once.cache_clear()
    yield tmp_path / "cache" / "tuning"
    tuning_file._read_once.cache_clear()


@pytest.fixture
def kept(cache):
    """The file of a table that was saved."""
    return save_table(TABLE)


def ignored(match):
    """Reading the table warns once, however often it is read, and gives an empty one."""
    tuning_file._read_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=match) as caught:
        assert load_table() == load_table() == Table()
    assert len(caught) == 1
    assert "chosen by the rule" in str(caught[0].message)


def test_what_was_saved_is_loaded_and_stands_for_its_rows(cache):
    assert load_table() == Table() and Table().hash == ""
    path = save_table(TABLE)
    assert load_table() == TABLE == pickle.loads(pickle.dumps(TABLE))
    assert len(TABLE.hash) == 12 and load_table().hash == TABLE.hash
    assert path.parent == cache and [p.name for p in cache.iterdir() if p.name[0] != "."] == [path.name]
    assert table_of({"forward": "direct"}).hash != TABLE.hash
    backwards = Table.of(dict(reversed(TABLE.rows)))
    assert backwards == TABLE and backwards.hash == TABLE.hash


def test_the_folder_and_the_file_are_private(kept):
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.parent.iterdir()} == {0o600}
    kept.parent.chmod(0o755)
    save_table(TABLE)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_saving_again_keeps_the_other_rows_and_replaces_the_same(kept):
    newer = table_of({"input_grad": "lowering", "weight_grad": "implicit"})
    save_table(newer)
    assert load_table().methods == TABLE.methods | newer.methods


def test_gains_are_kept_beside_the_rows_and_choose_nothing(kept):
    (first, method), (second, _) = TABLE.rows
    save_table(Table.of({first: method}, {first: 1.5}))
    assert load_table().gains == ((first, 1.5),) and load_table().hash == TABLE.hash
    save_table(Table.of({second: "lowering"}, {second: 2.0}))
    assert dict(load_table().gains) == {first: 1.5, second: 2.0}
    tuned = load_table().at("float32", 9)
    assert tuned.gain(SHAPE, first.pass_, method) == 1.5
    assert tuned.gain(SHAPE, first.pass_, "fft") is tuned.gain(SHAPE, "weight_grad", "fft") is None
    save_table(Table.of({second: "direct"}))
    assert load_table().gains == ((first, 1.5),), "what is not known of the newer choice is not shown"


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("DASKCONV_CACHE", "/a")
    with dask.config.set({"daskconv.cache": "/b"}):
        assert str(cache_folder()) == "/a"
        monkeypatch.delenv("DASKCONV_CACHE")
        assert str(cache_folder()) == "/b"
    assert str(cache_folder()) == "/x/daskconv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert str(cache_folder()) == "/h/.cache/daskconv"


def test_a_user_without_a_home_has_the_rule(monkeypatch):
    monkeypatch.setenv("DASKCONV_CACHE", "~nobody-of-that-name/cache")
    assert load_table() == Table()
    with pytest.warns(RuntimeWarning, match="cannot be kept in the user's cache"):
        assert save_table(TABLE) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-100],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"lowering"', '"fourier"'),
        lambda text: text.replace('"lowering"', '["lowering"]'),
        lambda text: text.replace('"kernel"', '"kernels"'),
        lambda text: text.replace('"images": 8', '"images": "8"'),
        lambda text: text.replace('"float32"', '"int8"'),
        lambda text: text.replace('"c": 32', '"c": {}'),
    ],
)
def test_a_damaged_file_is_ignored_with_one_warning_and_replaced(kept, spoil):
    kept.write_text(spoil(kept.read_text()))
    ignored("is ignored")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert save_table(TABLE) == kept
    assert load_table() == TABLE


@pytest.mark.parametrize("gain", [0, -1.0, float("nan"), True, "1.5", [1.5]])
def test_a_gain_that_is_none_damages_a_file(kept, gain):
    plain = json.loads(kept.read_text())
    plain["rows"][0]["gain"] = gain
    kept.write_text(json.dumps(plain))
    ignored("no gain that was measured")


def test_a_file_of_another_version_or_processor_is_ignored(kept):
    plain = json.loads(kept.read_text())
    for other in {"format": 2}, {"made_for": plain["made_for"] | {"numpy": "0"}}:
        kept.write_text(json.dumps(plain | other))
        ignored("was made for another version or processor")


def test_other_kernels_or_versions_have_another_file(monkeypatch):
    before = tuning.table_name()
    facts = tuning.made_for()
    assert facts["kernels"] and facts["processor"] and facts["numpy"] == np.__version__
    assert ("llvmlite" in facts) == enabled()
    for name in facts:
        monkeypatch.setattr(tuning, "made_for", lambda name=name: facts | {name: "other"})
        tuning.table_name.cache_clear()
        assert tuning.table_name() != before
    tuning.table_name.cache_clear()


def test_what_belongs_to_another_user_is_neither_read_nor_written(kept, monkeypatch):
    monkeypatch.setattr(tuning_file.os, "geteuid", lambda: 12345)
    ignored("belongs to another user")
    with pytest.warns(RuntimeWarning, match="it belongs to another user.*DASKCONV_CACHE"):
        assert save_table(TABLE) is None


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_may_write_to_is_not_read(kept, what):
    (kept if what == "file" else kept.parent).chmod(0o770)
    ignored("others may write to it")


def test_links_pipes_and_folders_are_not_followed(kept, tmp_path):
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    ignored("is ignored")
    kept.unlink()
    os.mkfifo(kept, 0o600)
    ignored("is no file of a table")
    kept.unlink()
    kept.mkdir(0o700)
    ignored("is ignored")


def test_a_cache_that_cannot_be_written_gives_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path / "file"))
    assert load_table() == Table()
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*: set DASKCONV_CACHE") as caught:
        assert save_table(TABLE) is None
    assert len(caught) == 1


def test_a_write_that_fails_leaves_the_old_file(kept, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuning_file.os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert save_table(table_of({"weight_grad": "direct"})) is None
    assert load_table() == TABLE
    assert {path.name for path in kept.parent.iterdir()} == {".lock", kept.name}


WRITER = """
import sys
from daskconv.geometry import Window
from daskconv.graph.choose import ConvShape
from daskconv.graph.tuning import Case, Table
from daskconv.graph.tuning_file import save_table
for c in range(8):
    shape = ConvShape(Window((1, 1)), (9, 9), 1 + c, 1 + int(sys.argv[1]))
    assert save_table(Table.of({Case(shape, "forward", "float32", 8, "fast"): "lowering"}))
"""


def test_many_processes_lose_no_rows(cache):
    # Without Numba they start at once.
    environ = os.environ | {"DASKCONV_JIT": "0"}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(i)], env=environ) for i in range(4)]
    while any(writer.poll() is None for writer in writers):
        for path in cache.glob("methods-*.json"):
            json.loads(path.read_text())  # whole, whenever it is read
    assert [writer.returncode for writer in writers] == [0] * 4
    [path] = cache.glob("methods-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert {(row["shape"]["c"], row["shape"]["k"]) for row in rows} == {
        (1 + c, 1 + k) for c in range(8) for k in range(4)
    }
    assert {path.name[:8] for path in cache.iterdir()} == {".lock", "methods-"}


@compiled
def test_each_pass_gets_its_own_method_and_the_rule_the_rest():
    tuned = TABLE.at("float32", 9)
    rule = choose("auto", SHAPE)
    assert choose_all("auto", SHAPE, None, tuned) == {
        "forward": "lowering",
        "input_grad": "direct",
        "weight_grad": rule,
    }
    assert choose_all("implicit", SHAPE, None, tuned) == dict.fromkeys(PASSES, "implicit")
    assert choose_all("auto", SHAPE, None, TABLE.at("float64", 9)) == dict.fromkeys(PASSES, rule)
    other = ConvShape(SHAPE.window, SHAPE.image, 32, 33)
    assert choose("auto", other, None, "forward", tuned) == choose("auto", other)


@compiled
def test_exact_precision_takes_nothing_fast_from_a_table():
    rule = choose("auto", SHAPE, "exact")
    for precision, method in ("fast", "winograd"), ("exact", "winograd"), ("exact", "fft"):
        tuned = table_of({"forward": method}, precision=precision).at("float32", 8)
        assert choose("auto", SHAPE, "exact", "forward", tuned) == rule == "implicit"
    tuned = table_of({"forward": "direct"}, precision="exact").at("float32", 8)
    assert choose("auto", SHAPE, "exact", "forward", tuned) == "direct"
    assert choose("auto", SHAPE, "fast", "forward", tuned) == "winograd"
    assert set(candidates(SHAPE, "fast")) - set(candidates(SHAPE, "exact")) == {"winograd", "fft"}


def test_a_method_that_cannot_is_not_taken_from_a_table():
    strided = ConvShape(Window.of(3, (14, 14), stride=2), (14, 14), 32, 32)
    tuned = table_of({"forward": "winograd"}, strided).at("float32", 8)
    assert choose("auto", strided, None, "forward", tuned) == choose("auto", strided)
    assert not {"winograd", "pipelined"} & set(candidates(strided, "fast"))


def test_without_compiled_kernels_a_table_changes_nothing():
    if not enabled():
        assert candidates(SHAPE, "fast") == ("lowering", "fft") and candidates(SHAPE, "exact") == (
            "lowering",
        )
        assert choose("auto", SHAPE, None, "input_grad", TABLE.at("float32", 8)) == "lowering"


def test_the_nearest_number_of_images_counts():
    table = table_of({"forward": "direct"}, images=4).merged(table_of({"forward": "lowering"}, images=64))
    found = [table.at("float32", n).method(SHAPE, "forward", "fast") for n in (1, 4, 15, 17, 24, 90, 10**6)]
    assert found == ["direct"] * 4 + ["lowering"] * 3
    assert [about(n) for n in (0, 1, 2, 3, 5, 6, 1 << 30)] == [1, 1, 2, 4, 4, 8, 1 << 30]


@compiled
def test_convolutions_of_arrays_take_what_was_tuned(cache, monkeypatch):
    taken = []
    monkeypatch.setattr("daskconv.graph.arrays.choose", lambda *a: taken.append(choose(*a)) or taken[-1])
    save_table(table_of({"forward": "direct", "input_grad": "lowering", "weight_grad": "direct"}))
    x, dy = (np.ones((6, 14, 14, 32), np.float32) for _ in range(2))
    w = np.ones((3, 3, 32, 32), np.float32)
    daskconv.conv2d(x, w, padding=1)
    daskconv.conv2d_input_grad(dy, w, x.shape, padding=1)
    daskconv.conv2d_weight_grad(x, dy, w.shape, padding=1)
    assert taken == ["direct", "lowering", "direct"]
    lazy = daskconv.conv2d(da.from_array(x, (3, -1, -1, -1)), w, padding=1)
    save_table(table_of({"forward": "lowering"}))
    assert taken[-1] == "direct" and lazy.compute().shape == x.shape
    daskconv.conv2d(x, w, padding=1, precision="exact")
    assert taken[-1] == "implicit"

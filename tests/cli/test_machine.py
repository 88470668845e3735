"""Commands that tell of a machine or a plan, and train nothing."""

import re

from daskconv.nn import zoo
from daskconv.plan.plans import resolve_plan


def test_plan_prints_the_table_and_the_program(run):
    code, out, err = run(
        "plan", "lenet", "--input", 8, 8, 1, "--batch", 24, "--plan", "hybrid", "--shards", 2
    )
    assert (code, err) == (0, "")
    table, program = out.rstrip("\n").split("\n\n")
    assert table == resolve_plan("hybrid", 2).describe(zoo.build("lenet", 10), (8, 8, 1), 24)
    lines = program.splitlines()
    assert lines[0] == "Program of lenet: batch 24 in 2 shards, blocks of 12 images"
    assert "segment   update         each step   conv1 .. dense2" in lines
    assert any(line.startswith("exchange  all-gather") for line in lines)


def test_plan_of_what_is_no_plan_is_one_sentence(run):
    code, _, err = run("plan", "lenet", "--input", 8, 8, 1, "--plan", "k=3,n=nope")
    assert code == 2 and err.startswith("Error: ") and err.count("\n") == 1
    code, _, err = run("plan", "lenet")
    assert code == 2 and "give it as --input H W C" in err


def test_bench_compares_methods_round_by_round(run):
    line = ("bench", "lenet", "--input", 8, 8, 1, "--batch", 8, "--threads", 2, "--rounds", 2)
    code, out, err = run(*line)
    assert (code, err) == (0, "")
    title, head, *rows, machine = out.splitlines()
    assert title == "A training step of lenet, 8 images of (8, 8, 1), 2 rounds"
    assert head.split()[:3] == ["method", "threads", "images/s"]
    assert [row.split()[:2] for row in rows] == [
        ["auto", "2"],
        ["pipelined", "2"],
        ["lowering", "2"],
        ["auto", "1"],
    ]
    assert rows[2].split()[3:] == ["1.00", "1.00", "to", "1.00"]
    for row in rows:
        middle, low, high = (float(row.split()[i]) for i in (3, 4, 6))
        assert 0 < low <= middle <= high
    assert re.fullmatch(r"on .*, \d+ cores for this process", machine)


def test_bench_has_a_network_of_its_own(run):
    code, out, _ = run("bench", "--batch", 4, "--rounds", 1, "--threads", 1)
    assert code == 0 and out.startswith("A training step of cifar10_quick, 4 images of (32, 32, 3)")
    code, _, err = run("bench", "alexnet")
    assert code == 2 and "The shape of an image is not known of alexnet" in err


def test_tune_takes_the_blocks_of_the_training_to_come(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DASKCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("daskconv.plan.tune.ROUNDS", 1)
    monkeypatch.setattr("daskconv.plan.tune._MOST_RUNS", 1)
    code, out, _ = run("tune", "lenet", "--input", 8, 8, 1, "--batch", 12, "--shards", 2)
    assert code == 0 and out.startswith("lenet input (8, 8, 1), blocks of 6 images, threads 1\n")

"""--patience, --monitor and --save-best."""

import re
from pathlib import Path

import daskconv
from daskconv.train.files import load_checkpoint

LINE = ["train", "--data", "digits", "--batch-size", 100, "--threads", 1]


def test_a_run_that_learns_nothing_more_ends_early_and_its_best_model_is_kept(run):
    # A rate of 0: all epochs are alike, and the first is the best.
    words = ["--lr", 0, "--epochs", 9, "--patience", 2, "--monitor", "val_accuracy", "--save-best"]
    code, out, err = run(*LINE, *words, "--save", "model.safetensors")
    assert (code, err) == (0, "")
    *_, third, best, kept, test, saved = out.splitlines()
    assert third.startswith("epoch 3/9") and saved == "saved model.safetensors"
    assert re.fullmatch(r"stopped early: val_accuracy was best in epoch 1, 0\.\d{4}", best)
    assert kept == "saved model-best.safetensors, of that epoch" and test.startswith("test accuracy")
    assert load_checkpoint("model-best.safetensors").state.position.epoch == 1
    assert daskconv.load("model-best.safetensors").network.name == "lenet"


def test_a_resumed_run_takes_them_too(run):
    assert run(*LINE, "--epochs", 1, "--save", "model.safetensors")[0] == 0
    words = ["--resume", "model.safetensors", "--epochs", 2, "--patience", 5, "--save-best"]
    code, out, _ = run(*LINE[:3], *words)
    assert code == 0 and re.search(r"^val_loss was best in epoch \d, \d\.\d{4}$", out, re.MULTILINE)
    assert Path("model-best.safetensors").exists() == ("best in epoch 2" in out)


def test_what_does_not_fit_is_one_sentence(run):
    for words, sentence in [
        (["--monitor", "loss"], "--monitor is for --patience and --save-best"),
        (["--save-best"], "--save-best writes beside --save"),
        (["--patience", 2, "--monitor", "acc"], "monitor is 'acc', but an epoch has loss, accuracy"),
    ]:
        code, _, err = run(*LINE, *words)
        assert code == 2 and sentence in err and err.count("\n") == 1
    assert list(Path().iterdir()) == []

"""Progress: lines in a log, a bar on a terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from daskconv.train.progress import epoch_line
from train.small import X, Y, fit, trainer

LINE = re.compile(r"epoch (\d)/2  loss \d+\.\d{4}  accuracy [01]\.\d{4}(  val_loss .*)?  [\d,]+ images/s")


def test_a_log_gets_one_line_an_epoch(capsys):
    fit(trainer(), epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert [LINE.fullmatch(line)[1] for line in out.splitlines()] == ["1", "2"] and err == ""


def test_the_line_holds_the_histories_figures(capsys):
    run = fit(
        trainer(metrics=["accuracy", "confusion_matrix"]), validation_data=(X, Y), progress=True, epochs=2
    )
    lines = capsys.readouterr().out.splitlines()
    for line, logs in zip(lines, run.history.epochs, strict=True):
        assert LINE.fullmatch(line) and "confusion" not in line
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert f"  {name} {logs[name]:.4f}  " in line


def test_no_progress_prints_nothing(capsys):
    fit(trainer(), epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_epochs_are_aligned():
    logs = {"epoch": 7, "loss": 0.5, "images_per_second": 12345.6, "learning_rate": 0.1, "seconds": 1.0}
    assert epoch_line(logs, 100) == "epoch   7/100  loss 0.5000  12,346 images/s"


SCRIPT = """
import daskconv
digits = daskconv.datasets.load("digits")
optimizer = daskconv.SGD(0.02, momentum=0.9)
trainer = daskconv.Trainer("lenet", optimizer=optimizer, preprocess="standardize", transport="local")
trainer.fit(digits.x_train, digits.y_train, epochs=2, batch_size=50)
"""


def on_a_terminal(command, columns):
    """What a command writes to a terminal of so many columns, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    written = b""
    while chunk := read(ours):
        written += chunk
    os.close(ours)
    return written.decode(), process.wait(timeout=60)


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that nobody holds the other side any more
        return b""


def test_a_terminal_gets_a_bar_with_figures():
    written, code = on_a_terminal([sys.executable, "-c", SCRIPT], columns=80)
    assert code == 0, written
    assert "\x1b[" in written and "Traceback" not in written
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    bar = (
        r"epoch (\d)/2 [━╸╺ ]+ loss \d\.\d{4}  accuracy ([01]\.\d{4})  [\d,]+ images/s time left \d:\d\d:\d\d"
    )
    drawn = re.findall(bar, plain)
    assert drawn[-1][0] == "2" and float(drawn[-1][1]) > 0.8 and len(drawn) >= 3
    assert [line[0] for line in re.findall(r"epoch (\d)/2  loss", plain)] == ["1", "2"]
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", plain))

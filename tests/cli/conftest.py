"""What tests of the command share."""

import sys

import pytest

from daskconv import cli


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command here, in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["daskconv", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return call

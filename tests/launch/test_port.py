"""A port that is in use: the next one is taken, and said."""

import re
import socket
from contextlib import contextmanager

import pytest

import daskconv
from daskconv.launch.port import next_free


@contextmanager
def taken(count):
    """Hold some ports in a row, and yield the first; 100 ports from there on nobody else is likely to want."""
    for first in range(21_000, 30_000, 100):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, held in enumerate(sockets):
                held.bind(("127.0.0.1", first + number))
                held.listen()
            yield first
            return
        except OSError:
            continue
        finally:
            for held in sockets:
                held.close()


def test_the_next_free_port_is_taken():
    with taken(3) as first:
        assert next_free(f"127.0.0.1:{first}") == f"127.0.0.1:{first + 3}"
        assert next_free(f"127.0.0.1:{first + 3}") == f"127.0.0.1:{first + 3}"
        assert next_free(f":{first}") == f":{first + 3}"
    assert [next_free(address) for address in ("127.0.0.1:0", ":0", "anything")] == [
        "127.0.0.1:0",
        ":0",
        "anything",
    ]


@pytest.mark.parametrize(
    "options", [{"transport": "local", "dashboard": True}, {"workers": 1, "threads": 1}], ids=str
)
def test_the_line_says_which_port_was_in_use(options, capsys):
    with taken(2) as first:
        with daskconv.start(dashboard_address=f"127.0.0.1:{first}", **options):
            pass
        said = capsys.readouterr().out
        assert re.search(
            rf"page: http://127.0.0.1:{first + 2}/daskconv\S* \(port {first} is in use\)\n", said
        )
    with taken(1) as first, daskconv.start(dashboard_address=f"127.0.0.1:{first + 1}", **options):
        assert "in use" not in capsys.readouterr().out

"""The port of the page: the one that was asked for, or the next that is free."""

from __future__ import annotations

import re
import socket

_TRIES = 20


def next_free(address: str) -> str:
    """Return an address whose port is free: this one, or the same host with one of the ports after it.

    Parameters
    ----------
    address : str
        Such as "127.0.0.1:8787" or ":8787"; any other form, and port 0, are returned as they are.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not int(port):
        return address
    for number in range(int(port), min(int(port) + _TRIES, 65536)):
        with socket.socket() as tried:
            # As servers do: a port whose last connection has just ended is free.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((host, number))
            except OSError:
                continue
            return f"{host}:{number}"
    return address


def moved(page: str, address: str) -> str:
    """Return words for a page that is not at the port which was asked for.

    Examples
    --------
    >>> moved("http://127.0.0.1:8788/daskconv", "127.0.0.1:8787")
    ' (port 8787 is in use)'
    >>> moved("http://127.0.0.1:8787/daskconv", ":8787"), moved("none", ":8787")
    ('', '')
    """
    asked = address.rpartition(":")[2]
    found = re.match(r"https?://[^/]*:(\d+)/", page)
    return f" (port {asked} is in use)" if found and asked not in ("0", found[1]) else ""

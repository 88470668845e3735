"""What a user without the job's keys gets out of its ports, as one JSON line.

attack.py UID '[[[address, port], ...], [dask address, ...]]' becomes that user, once everything is imported.
"""

import base64
import json
import logging
import os
import socket
import ssl
import sys
import warnings
from typing import Any

SECONDS = 10


def exchange(address: str, port: int, sent: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Return what a port answers to some bytes; nothing where it refuses."""
    try:
        with socket.create_connection((address, port), SECONDS) as link:
            link.settimeout(SECONDS)
            if context is not None:
                link = context.wrap_socket(link)
                link.settimeout(SECONDS)
            link.sendall(sent)
            return link.recv(4096)
    except (OSError, ssl.SSLError):
        return b""


def anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def http(address: str, port: int, path: str, *headers: str, host: str = "") -> int:
    """Return the status of a request, 0 where there is no HTTP."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or address}:{port}", *headers, "", ""]
    answer = exchange(address, port, "\r\n".join(lines).encode())
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


def websocket(address: str, port: int, path: str, origin: str, *headers: str) -> int:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    upgrade += [f"Sec-WebSocket-Key: {key}", f"Origin: {origin}", "Sec-WebSocket-Protocol: bokeh, x"]
    return http(address, port, path, *upgrade, *headers)


def probe(address: str, port: int) -> dict[str, Any]:
    """Return what one port gives away."""
    found: dict[str, Any] = {
        "page": http(address, port, "/status"),
        "health": http(address, port, "/health"),
        "foreign name": http(address, port, "/health", host="evil.example"),
        "foreign origin": websocket(address, port, "/status/ws", "http://evil.example"),
    }
    if not any(found.values()):  # what speaks HTTP would wait for more
        found["plain"] = len(exchange(address, port, b"\0" * 8))
        found["encrypted"] = len(exchange(address, port, b"\0" * 8, anyone()))
    return found


def client(address: str) -> str:
    """Return what becomes of a Dask client with a certificate of its own, or without any."""
    from distributed import Client, Security

    security = Security.temporary() if address.startswith("tls") else None
    try:
        with Client(address, security=security, timeout=SECONDS, set_as_default=False) as link:
            return f"in: {link.submit(os.getuid).result(timeout=SECONDS)}"
    except Exception as error:
        return f"refused: {type(error).__name__}"


def become(uid: int) -> None:
    """Be another user, who perhaps may not even read Python's own files: import what is needed before."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(protocol="tls://", security=True, **options) as cluster, Client(cluster) as link:
        link.submit(os.getuid).result()
    with LocalCluster(protocol="tcp://", **options) as cluster, Client(cluster) as link:
        link.submit(os.getuid).result()
    if uid != os.getuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    become(int(sys.argv[1]))
    ports, addresses = json.loads(sys.argv[2])
    found = {f"{address}:{port}": probe(address, port) for address, port in ports}
    plain = [address.replace("tls://", "tcp://") for address in addresses]
    clients = {address: client(address) for address in {*addresses[:1], *plain[:1]}}
    print(json.dumps({"uid": os.getuid(), "ports": found, "clients": clients}))


if __name__ == "__main__":
    main()

"""Temporary TLS credentials: made for one job, kept in memory, worth nothing after it.

One key and one self-signed certificate, which is its own authority: scheduler, workers and client show it to each
other, and whoever has none is refused on both sides of a connection.
"""

from __future__ import annotations

from typing import Any

import dask

from daskconv.errors import InputError

PROTOCOL = "tls://"
_AT = "distributed.comm"
_ROLES = ("client", "scheduler", "worker")


def configured() -> bool:
    """Return whether Dask's configuration has a site's own certificates, which then are used."""
    return bool(dask.config.get(f"{_AT}.tls.ca-file", None))


def temporary() -> Any:
    """Return new credentials as distributed.Security; raise InputError where they cannot be made."""
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError as error:
        raise InputError(
            f"TLS needs the cryptography package ({error}): pip install cryptography, or go without encryption and "
            "without certificates, by tls=False or --no-tls, where nobody else reaches these hosts."
        ) from None


def as_config(security: Any) -> dict[str, Any]:
    """Return credentials as Dask's configuration, which scheduler, workers and clients of a process read."""
    found = {f"{_AT}.require-encryption": True, f"{_AT}.tls.ca-file": security.tls_ca_file}
    for role in _ROLES:
        found[f"{_AT}.tls.{role}.cert"] = getattr(security, f"tls_{role}_cert")
        found[f"{_AT}.tls.{role}.key"] = getattr(security, f"tls_{role}_key")
    return found

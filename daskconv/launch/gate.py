"""Who may look at the page: requests for its own address, with its token where it has one.

Scheduler and workers load this as a preload. Browsers tell which site opened a websocket, and which name they asked
for: pages of other sites that the user has open, also under a name that is made to point here, are refused. Other users
of the same host are kept out by the token alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
from typing import Any
from urllib.parse import urlsplit

import dask
from tornado.httputil import HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, RequestHandler

LOOPBACK = ("127.0.0.1", "localhost")
_ORIGINS = "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"


def token() -> str:
    """Return the page's token: the configured one, a new one where ``daskconv.page.token`` is true, or ""."""
    wanted = dask.config.get("daskconv.page.token", None)
    return secrets.token_urlsafe(24) if wanted is True else str(wanted or "")


def preloaded(token: str) -> dict[str, Any]:
    """Return the configuration under which scheduler and workers are to be made, so that they have this gate."""
    found: dict[str, Any] = {"daskconv.page.token": token}
    for role in ("scheduler", "worker"):
        given = dask.config.get(f"distributed.{role}.preload")
        others = [given] if isinstance(given, str) else [module for module in given if module != __name__]
        found[f"distributed.{role}.preload"] = [*others, __name__]
    return found


def dask_setup(node: Any) -> None:
    """Set the gate before the page of a scheduler, or what a worker tells of its health."""
    server, inside = node.http_server, node.http_application
    given = [name for name in dask.config.get(_ORIGINS, None) or () if name != "*"]
    names = {*LOOPBACK, *(() if server.address in ("127.0.0.1", "::1") else _own_names())}
    origins = {f"{name}:{server.port}" for name in names} | set(given)
    hosts = names | {name.partition(":")[0] for name in given}
    server.request_callback = Gate(
        inside, hosts, origins, dask.config.get("daskconv.page.token", None) or "", f"daskconv-{server.port}"
    )


def _own_names() -> set[str]:
    from distributed.utils import get_ip

    return {socket.gethostname(), socket.getfqdn(), get_ip()}


class Gate(Router):
    """Passes on requests for one of some hosts' names, with the token, which a cookie keeps from then on.

    Parameters
    ----------
    inside : tornado.web.Application
        The page.
    hosts : set of str
        Names that a browser may have asked for, without ports.
    origins : set of str
        Sites whose pages may open websockets, with ports.
    token : str
        Nothing where none is needed.
    cookie : str
        Its name.
    """

    def __init__(
        self, inside: Application, hosts: set[str], origins: set[str], token: str, cookie: str
    ) -> None:
        self.inside, self.hosts, self.origins = inside, hosts, origins
        self.token, self.cookie = token, cookie
        self.outside = Application([(".*", _Refused)])
        self.kept = hashlib.sha256(token.encode()).hexdigest()
        self.entry = Application([(".*", _Enters, {"cookie": cookie, "kept": self.kept})])

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return what answers a request."""
        if request.host_name.lower() not in self.hosts or self._is_foreign(request):
            return self.outside.find_handler(request, **kwargs)
        if not self.token or self._shown(request):
            return self.inside.find_handler(request, **kwargs)
        given = request.query_arguments.get("token", [b""])[-1]
        way = self.entry if _same(given, self.token) else self.outside
        return way.find_handler(request, **kwargs)

    def _is_foreign(self, request: HTTPServerRequest) -> bool:
        """Return whether another site's page opens a websocket; browsers always tell, and other clients need not."""
        origin = request.headers.get("Origin")
        if origin is None or request.headers.get("Upgrade", "").lower() != "websocket":
            return False
        return urlsplit(origin).netloc.lower() not in self.origins

    def _shown(self, request: HTTPServerRequest) -> bool:
        kept = request.cookies.get(self.cookie)
        kind, _, said = request.headers.get("Authorization", "").partition(" ")
        return _same((kept.value if kept else "").encode(), self.kept) or (
            kind.lower() == "bearer" and _same(said.encode(), self.token)
        )


def _same(given: bytes, wanted: str) -> bool:
    return hmac.compare_digest(given, wanted.encode())


class _Refused(RequestHandler):
    """Answers every request the same way."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish(
            "Not for you: open the address that the job has printed, its token included. A proxy's name has to be in "
            f"Dask's configuration, {_ORIGINS}.\n"
        )


class _Enters(RequestHandler):
    """Has the browser remember that the token was right, and goes on without it in the address."""

    def initialize(self, cookie: str, kept: str) -> None:
        self.cookie, self.kept = cookie, kept

    def get(self) -> None:
        self.set_cookie(self.cookie, self.kept, httponly=True, samesite="Lax")
        self.redirect(self.request.path)

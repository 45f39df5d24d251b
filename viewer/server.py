"""The web server behind the viewer: viser's, on a socket of our own, with a doorkeeper.

Viser opens its port itself, moves on to the next when it is taken, and lets anybody in. Here the
socket is bound first, so that a taken port is an error, and every request passes `Doorkeeper`
before viser sees it: pages and websockets without the token, from foreign pages, or under a foreign
host name are refused. Viser has no option for that; its call of `websockets.asyncio.server.serve`
is the one place where both fit in.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import http
import http.cookies
import ipaddress
import logging
import re
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lumigraph.core.errors import InputError, require

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8080
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9.\-_]+)(:\d+)?")
_START = threading.Lock()


def bind(host: str, port: int | None) -> socket.socket:
    """A listening socket.

    Args:
        host: address or name of this machine.
        port: 0 for any free one; None for 8080, or any free one where that is taken.

    Raises:
        InputError: the port is taken or may not be used, or the host is not this machine's.
    """
    if port is not None and not 0 <= port <= 65535:
        raise InputError(f"port {port}: expected 0 to 65535")
    wanted = DEFAULT_PORT if port is None else port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, wanted, type=socket.SOCK_STREAM
        )[0]
    except OSError as error:
        raise InputError(f"host {host!r}: unknown ({error.strerror or error})") from None
    listener = socket.socket(family, kind, protocol)
    try:
        # A server that has just ended must not block its port; on Windows this would share it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE and port is None:
            return bind(host, 0)
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {wanted} is taken; choose another with --port, or --port 0 for any free one"
            ) from None
        raise InputError(f"{host} port {wanted}: {error.strerror or error}") from None
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Doorkeeper:
    """Decides who may come in."""

    port: int
    token: str | None
    """What the address must hold as `?token=`, once: the page then gets a cookie."""
    loopback_only: bool
    """Names of other machines are refused: a foreign page could point its own name here."""

    @property
    def cookie(self) -> str:
        return f"lumigraph-{self.port}"

    def refusal(self, path: str, headers: Any) -> str | None:
        """Why a request is turned away, or None.

        Args:
            path: path and query.
            headers: a mapping of header names.
        """
        match = _HOST.fullmatch(headers.get("Host", ""))
        if match is None:
            return "this request names no host"
        if self.loopback_only and not is_loopback(match[1].strip("[]")):
            return "open this viewer as localhost"
        origin = headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != match[0]:
            return "requests of other pages are refused"
        if self.token is not None and not self._knows(path, headers):
            return "the token is missing; open the whole address that the viewer printed"
        return None

    def _knows(self, path: str, headers: Any) -> bool:
        given = self.given_token(path)
        jar: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
        with contextlib.suppress(http.cookies.CookieError):
            jar.load(headers.get("Cookie", ""))
        kept = jar[self.cookie].value if self.cookie in jar else ""
        wanted = (self.token or "").encode()
        # both compared always, in constant time
        right = [hmac.compare_digest(text.encode(), wanted) for text in (given, kept)]
        return any(right)

    def given_token(self, path: str) -> str:
        """`?token=` of an address, or nothing."""
        return parse_qs(urlsplit(path).query).get("token", [""])[0]

    def page_headers(self, path: str, headers: Any) -> dict[str, str]:
        """Headers of a page: the browser itself forbids it to ask anybody else."""
        here = headers.get("Host", "")
        own = f"'self' ws://{here} wss://{here}"
        rules = {
            "default-src": "'self' data: blob:",
            "script-src": "'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
            "style-src": "'self' 'unsafe-inline'",
            "connect-src": f"{own} data: blob:",
            "worker-src": "'self' data: blob:",
            "frame-ancestors": "'self'",
            "form-action": "'none'",
        }
        found = {
            "Content-Security-Policy": "; ".join(f"{k} {v}" for k, v in rules.items()),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if self.token is not None and self.given_token(path):
            cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            found["Set-Cookie"] = cookie
        return found


def start_server(listener: socket.socket, door: Doorkeeper, *, title: str) -> Any:
    """A viser server on a bound socket, quiet, guarded, never asking the outside.

    Raises:
        MissingExtraError: viser is not installed.
    """
    viser = require("viser", extra="viewer")

    class Server(viser.ViserServer):  # type: ignore[name-defined]
        def request_share_url(self, verbose: bool = True) -> None:
            """Any browser may ask for a public tunnel through a foreign server; none is opened."""
            return None

    host, port = listener.getsockname()[:2]
    # a browser that leaves while its panel is filled is nothing to warn of
    warnings.filterwarnings("ignore", message=r"Queued a \w+ on a closed connection")
    with _START, _guarded_serve(listener, door) as used, quiet():
        server = Server(host=host, port=port, label=title, verbose=False)
    if not used:
        server.stop()
        raise RuntimeError(
            f"viser {viser.__version__} opens its port in a new way; the viewer cannot guard it"
        )
    server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
    return server


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Viser greets and says goodbye on stdout through rich's own console."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextlib.contextmanager
def _guarded_serve(listener: socket.socket, door: Doorkeeper) -> Iterator[list[bool]]:
    """While open, the next server of `websockets` takes our socket and our doorkeeper."""
    import websockets.asyncio.server as module

    plain, used = module.serve, []

    def serve(handler: Any, host: Any, port: Any, **options: Any) -> Any:
        used.append(True)
        asyncio.get_running_loop().set_exception_handler(_one_line)
        options["process_request"] = _admit(door, options.get("process_request"))
        options["logger"] = _silent_logger()
        return plain(_survivor(handler), sock=listener, **options)

    module.serve = serve  # type: ignore[assignment, misc]
    try:
        yield used
    finally:
        module.serve = plain  # type: ignore[misc]


def _admit(door: Doorkeeper, inner: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    """Doorkeeper first, then viser's own answer with our headers."""

    def process(connection: Any, request: Any) -> Any:
        reason = door.refusal(request.path, request.headers)
        if reason is not None:
            return connection.respond(http.HTTPStatus.FORBIDDEN, f"lumigraph: {reason}\n")
        response = None if inner is None else inner(connection, request)
        if response is not None:
            for name, value in door.page_headers(request.path, request.headers).items():
                response.headers[name] = value
        return response

    return process


def _survivor(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A message that cannot be read ends its own connection, with one line in the log."""

    async def survive(connection: Any) -> None:
        try:
            await handler(connection)
        except Exception as error:
            logger.info("a browser sent what cannot be read (%s)", type(error).__name__)
            await connection.close(1003, "unreadable message")

    return survive


def _one_line(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tasks that failed over the content of a message: no trace for the user."""
    error = context.get("exception")
    logger.info("a message was not understood (%s)", type(error).__name__ if error else "?")
    logger.debug("%s", context.get("message"), exc_info=error)


def _silent_logger() -> logging.Logger:
    quiet_one = logging.getLogger(f"{__name__}.websockets")
    quiet_one.setLevel(logging.CRITICAL + 1)
    return quiet_one

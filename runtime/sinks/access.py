"""Who may see the browser page: the token, and the names under which it answers."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable

from aiohttp import web

from framecast.errors import OptionError
from framecast.runtime.sinks.address import bracketed

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")  # fits into a header, a URL, an environment file and a shell
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]")


class Access:
    """Decides which requests are answered.

    On loopback only browsers on this machine reach the page, so no token is needed. But a foreign page must not get in
    through a name that resolves to this machine (DNS rebinding): there we answer only to loopback's own names. Other
    machines can reach any other address, and a loopback address behind a proxy, for which ``hosts`` are the names: then
    the token keeps strangers out.

    Args:
        bound: the IP address that the server listens on.
        host: the same as the user wrote it.
        port: the port.
        token: the value that a request must carry, as ``?token=…`` or ``Authorization: Bearer …`` (default: generated
            if others can reach the page, otherwise none).
        hosts: further names under which the page is reached, through a proxy. They may come with any port.

    Attributes:
        token: the token; None if none is needed.

    Raises:
        OptionError: the token or a name has a wrong form.
    """

    def __init__(
        self, bound: str, host: str, port: int, *, token: str | None = None, hosts: Iterable[str] = ()
    ) -> None:
        if token is not None:
            check_token(token)
        self._proxied = {check_host(name) for name in hosts}
        local = ipaddress.ip_address(bound.partition("%")[0]).is_loopback
        self.token = token or (None if local and not self._proxied else secrets.token_urlsafe())
        names = {"localhost", "127.0.0.1", "[::1]", bracketed(bound), bracketed(host).lower()}
        own = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
        self._own = own if local else None  # None: any name

    def refusal(self, request: web.Request, *, from_page: bool) -> str | None:
        """Why a request is refused, in one line; None if it is answered.

        Args:
            request: any request.
            from_page: only the page itself may make it, so its origin is checked as well.
        """
        host = request.headers.get("Host", "").lower()
        if self._own is not None and host not in self._own and _without_port(host) not in self._proxied:
            return (
                "This page is only for browsers on this machine. Behind a proxy, start framecast with --host and the "
                "name in the browser's address bar."
            )
        if self.token and not any(secrets.compare_digest(given, self.token.encode()) for given in _tokens(request)):
            return "The token is missing or wrong: open the address that framecast printed."
        if from_page:
            scheme, _, origin = request.headers.get("Origin", "").lower().partition("://")
            if scheme not in ("http", "https") or (origin != host and _without_port(origin) not in self._proxied):
                return "Only this server's own page may open the stream."
        return None


def check_token(token: str) -> None:
    """Check the form of a token. The message does not repeat it.

    Raises:
        OptionError: it is too short, too long, or has a character that a URL or a header cannot carry.
    """
    if not _TOKEN.fullmatch(token):
        raise OptionError(
            "cannot use this token: it must have 16 to 256 characters, only letters, digits and . _ ~ + / = -; "
            "make one with: openssl rand -hex 24"
        )


def check_host(name: str) -> str:
    """Check a name for the page, and return it in lower case.

    Raises:
        OptionError: it is not the name of a host.
    """
    if not _NAME.fullmatch(name.lower()):
        raise OptionError(f"cannot serve as {name!r}: give a name without scheme and port, such as cam.example.org")
    return name.lower()


def _without_port(host: str) -> str:
    return re.sub(r":\d+\Z", "", host)


def _tokens(request: web.Request) -> Iterable[bytes]:
    """The tokens that a request carries."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield bearer.strip().encode("utf-8", "surrogateescape")
    yield request.query.get("token", "").encode("utf-8", "surrogateescape")

"""Addresses of the browser page: parse one, listen on it, and find the one that other machines can reach."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket

from framecast.errors import OptionError, SinkError

# Documentation addresses (RFC 5737, RFC 3849). Connecting a datagram socket sends nothing: it only picks a route.
_AFAR = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def parse(address: str) -> tuple[str, int]:
    """Parse HOST:PORT, HOST or PORT into host and port.

    Raises:
        OptionError: it is none of these.
    """
    match = re.fullmatch(r"(\d+)|(?:\[([\w:.%]+)\]|([\w.-]+))(?::(\d+))?", address, re.ASCII)
    port = int((match[1] or match[4] or "8000")[:6]) if match else -1  # [:6] avoids parsing a thousand digits
    if match is None or port > 65535:
        raise OptionError(f"cannot serve on {address!r}: give HOST:PORT, e.g. --serve 127.0.0.1:8000")
    return match[2] or match[3] or "127.0.0.1", port


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        OptionError: the host is not known.
        SinkError: the address is not available.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # ValueError: not even a valid name to look up
        raise OptionError(f"cannot serve on {host!r}: unknown host; try --serve 127.0.0.1:{port}") from None
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # "localhost" means 127.0.0.1
    try:
        return socket.create_server(where, family=family)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        other = port + 1 if 1024 <= port < 65535 else 8001
        raise SinkError(
            f"cannot serve on {bracketed(host)}:{port}: {why}; choose another, e.g. --serve 127.0.0.1:{other}"
        ) from None


def bracketed(host: str) -> str:
    """The host as written in a URL: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host else host


def outward(family: int) -> str:
    """The address at which other machines reach this one: that of the default route, or of any other interface.

    Args:
        family: ``socket.AF_INET`` or ``socket.AF_INET6``.

    Returns:
        The address, or the host name if there is none.
    """
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((_AFAR[socket.AddressFamily(family)], 9))
        own = str(probe.getsockname()[0])
        if _is_outward(own):
            return own
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            if name in up and entry.family == family and _is_outward(entry.address):
                return entry.address
    return socket.gethostname()


def _is_outward(address: str) -> bool:
    """Whether a browser elsewhere can open it. A link-local address needs an interface, which a URL cannot name."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)

"""Addresses of the page: which ones are accepted, and which link is printed."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest

from framecast.errors import OptionError, SinkError
from framecast.runtime.sinks.address import outward
from framecast.runtime.sinks.web import WebSink

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import get, snapshot  # noqa: TID252

BAD_ADDRESSES = ["", ":", ":8000", "8000:", "host:port", "127.0.0.1:65536", "1" * 5000, "::1", "[::1", "a b", "-1"]
BAD_ADDRESSES += ["http://127.0.0.1:8000", "127.0.0.1:-1", "a..b:0", f"{'a' * 70}:0", "127.0.0.1:0\n"]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(OptionError, match=r"^cannot serve on .*--serve 127\.0\.0\.1:\d+$"):
        WebSink(address, snapshot=snapshot)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize(("address", "host"), [("0", "127.0.0.1"), ("localhost:0", "localhost"), ("[::1]:0", "[::1]")])
def test_good_addresses(address: str, host: str) -> None:
    if "::1" in address and not has_ipv6():
        pytest.skip("no IPv6 here")
    with contextlib.closing(WebSink(address, snapshot=snapshot)) as sink:
        assert re.fullmatch(rf"http://{re.escape(host)}:\d+/", sink.url)
        assert get(sink.url)[0] == 200


def test_a_busy_port() -> None:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        refuse_again(urlsplit(sink.url).netloc)


def refuse_again(address: str) -> None:
    threads = threading.active_count()
    expected_error = rf"^cannot serve on {address}: Address already in use; .*--serve 127.0.0.1:\d+$"
    with pytest.raises(SinkError, match=expected_error):
        WebSink(address, snapshot=snapshot)
    assert threading.active_count() == threads


# The link that is printed


Interfaces = dict[str, tuple[bool, list[str]]]  # name: whether it is up, addresses


def machine(monkeypatch: pytest.MonkeyPatch, route: str | None, interfaces: Interfaces) -> None:
    """Simulate a machine with these interfaces and a default route from the address ``route`` (None: no route)."""

    class Probe(contextlib.AbstractContextManager["Probe"]):
        def __init__(self, family: int, kind: int) -> None:
            assert kind == socket.SOCK_DGRAM  # it sends nothing

        def connect(self, address: tuple[str, int]) -> None:
            if route is None:
                raise OSError("network is unreachable")

        def getsockname(self) -> tuple[str | None, int]:
            return route, 40000

        def __exit__(self, *_: object) -> None:
            pass

    def entry(address: str) -> SimpleNamespace:
        return SimpleNamespace(family=socket.AF_INET6 if ":" in address else socket.AF_INET, address=address)

    stats = {name: SimpleNamespace(isup=up) for name, (up, _) in interfaces.items()}
    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)
    monkeypatch.setattr(
        psutil, "net_if_addrs", lambda: {name: [*map(entry, own)] for name, (_, own) in interfaces.items()}
    )


@pytest.mark.parametrize(
    ("family", "route", "interfaces", "expected"),
    [
        (socket.AF_INET, "192.168.1.20", {}, "192.168.1.20"),
        (socket.AF_INET6, "2001:db8::20", {}, "2001:db8::20"),
        # No default route: a camera's own network, or a direct cable.
        (socket.AF_INET, None, {"lo": (True, ["127.0.0.1"]), "eth0": (True, ["fe80::1", "10.0.0.5"])}, "10.0.0.5"),
        (socket.AF_INET, None, {"eth0": (False, ["10.0.0.5"]), "wlan0": (True, ["10.1.0.5"])}, "10.1.0.5"),
        (socket.AF_INET6, None, {"eth0": (True, ["10.0.0.5", "fe80::1%eth0", "fd00::5"])}, "fd00::5"),
        (socket.AF_INET, "127.0.0.1", {"eth0": (True, ["169.254.3.4"])}, "box"),
        (socket.AF_INET6, None, {"lo": (True, ["::1"])}, "box"),
    ],
)
def test_the_link_names_an_address_that_works_from_other_machines(
    family: int, route: str | None, interfaces: Interfaces, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, route, interfaces)
    assert outward(family) == expected


@pytest.mark.parametrize(("address", "host"), [("0.0.0.0:0", "192.168.1.20"), ("[::]:0", "[fd00::20]")])
def test_the_link_of_all_interfaces(address: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "::" in address and not has_ipv6():
        pytest.skip("no IPv6 here")
    own = {socket.AF_INET: "192.168.1.20", socket.AF_INET6: "fd00::20"}
    monkeypatch.setattr("framecast.runtime.sinks.web.outward", lambda family: own[family])
    with contextlib.closing(WebSink(address, snapshot=snapshot)) as sink:
        assert re.fullmatch(rf"http://{re.escape(host)}:\d+/\?token=[\w-]{{40,}}", sink.url)
        here = sink.url.replace(host, "[::1]" if "::" in address else "127.0.0.1")
        assert get(here)[0] == 200

"""Property tests: the mailbox and the ring of states for any order of calls, the page's server for any bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from framecast.errors import OptionError
from framecast.graph.manifest import Manifest, StateSpec
from framecast.runtime.engines import Engine, State
from framecast.runtime.mailbox import Mailbox
from framecast.runtime.sinks.address import parse
from framecast.runtime.sinks.web import WebSink

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import endpoint, get, snapshot  # noqa: TID252

# The mailbox

ACTIONS = st.lists(st.sampled_from(["put", "put", "get", "close"]), max_size=40)


@given(ACTIONS)
def test_a_mailbox_of_the_newest_behaves_like_a_simple_model(actions: list[str]) -> None:
    box: Mailbox[int] = Mailbox(newest=True)
    there: list[int] = []
    dropped, closed = 0, False
    for number, action in enumerate(actions):
        if action == "put":
            assert box.put(number) is not closed
            if not closed:
                dropped += len(there)
                there = [number]
        elif action == "close":
            box.close()
            closed = True
        elif there or closed:  # otherwise it would block
            assert box.get() == (there.pop() if there else None)
        assert box.dropped == dropped


@given(ACTIONS, st.integers(1, 4))
def test_a_mailbox_of_all_behaves_like_a_simple_model(actions: list[str], capacity: int) -> None:
    box: Mailbox[int] = Mailbox(newest=False, capacity=capacity)
    there: deque[int] = deque()
    closed = False
    for number, action in enumerate(actions):
        if action == "put" and (closed or len(there) < capacity):  # otherwise it would block
            assert box.put(number) is not closed
            if not closed:
                there.append(number)
        elif action == "close":
            box.close()
            closed = True
        elif action == "get" and (there or closed):
            assert box.get() == (there.popleft() if there else None)
        assert box.dropped == 0


@given(st.booleans(), st.integers(0, 200), st.integers(1, 4))
def test_nothing_is_lost_or_out_of_order_between_two_threads(newest: bool, count: int, capacity: int) -> None:
    box: Mailbox[int] = Mailbox(newest=newest, capacity=capacity)

    def send() -> None:
        for number in range(count):
            assert box.put(number)
        box.close()

    sender = threading.Thread(target=send)
    sender.start()
    came = list(iter(box.get, None))
    sender.join()
    assert came == sorted(set(came))
    assert came[-1:] == list(range(count))[-1:]  # the last item always arrives
    assert len(came) + box.dropped == count
    assert newest or box.dropped == 0


# The ring of states


class Nothing(Engine):
    """An engine that only makes states, with histories of ``slots`` steps and of one step."""

    name, device, version = "nothing", "test", "0"

    def __init__(self, slots: int) -> None:
        specs = (StateSpec("long", (1,), "history", slots), StateSpec("short", (1,), "history", 1))
        self.manifest = Manifest("M", "m", (3, 4, 6), specs, slots, 0, "by hand", "", "none")

    def step(self, frame: np.ndarray, state_in: State, state_out: State) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        pass


@given(
    slots=st.integers(1, 12),
    count=st.integers(2, 5),
    moves=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(range(8))), max_size=60),
)
def test_a_state_reads_what_was_written_on_its_path(slots: int, count: int, moves: list[tuple[int, int, int]]) -> None:
    """The test tracks each state's whole path, and which states are still readable: writing one invalidates others."""
    states = [Nothing(slots).new_state() for _ in range(count)]
    paths: list[list[tuple[int, float]]] = [[] for _ in states]  # (state that wrote, value), oldest first
    readable = [True] * count
    for number, (source, target, kind) in enumerate(moves, start=1):
        source, target = source % count, target % count
        if kind == 0:
            states[target].reset()
            paths[target], readable[target] = [], True
        elif source != target and readable[source]:
            for other in range(count):  # writing a state invalidates states derived from it
                wrote = any(who == target for who, _ in paths[other][-slots:])
                readable[other] &= other in (source, target) or not wrote
            moment = states[target].follow(states[source])
            for tensor in moment.tensors.values():
                tensor.fill(number)
            paths[target], readable[target] = [*paths[source], (target, float(number))], True
        for state, path, reads in zip(states, paths, readable, strict=True):
            if reads:
                wanted = [value for _, value in path[::-1]] + [0.0] * slots
                assert [float(moment.tensors["long"][0, 0]) for moment in state.past] == wanted[:slots]
                assert float(state.past[0].tensors["short"][0, 0]) == wanted[0]


# The page's server

ADDRESSES = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}:{}".format, st.sampled_from(["localhost", "127.0.0.1", "[::1]", "::1", "ä", ""]), st.integers(-9, 10**6)
    ),
    st.from_regex(r"[\w.\-:\[\]%]{0,20}:?\d{0,7}"),
)


@given(ADDRESSES)
def test_an_address_is_parsed_or_refused_in_one_line(address: str) -> None:
    shown = address  # a valid address is printable, because the URL shows it
    try:
        host, port = parse(address)
        assert host
        assert 0 <= port <= 65535
    except OptionError as error:
        shown = str(error)
    assert shown.isprintable()


@given(st.one_of(st.just("::1"), st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)), st.integers(0, 65535))
def test_a_valid_address_is_parsed_into_host_and_port(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    assert parse(f"{shown}:{port}") == (host, port)
    assert parse(shown) == (host, 8000)
    assert parse(str(port)) == ("127.0.0.1", port)


@pytest.fixture(scope="module")
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        yield sink


LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"GET /stream HTTP/1.1",
        b"GET /stats.json?token=%ff HTTP/1.0",
        b"POST /../%00 HTTP/9.9",
        b"GET http://[::1 HTTP/1.1",
        b"Host: HERE",
        b"Host: \xff",
        b"Origin: http://HERE",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"",
        b"fff\r\nabc",
        b"\x88\x80\x00\x00\x00\x00",
        b"X: " + b"y" * 9000,
    ]
)
BYTES = st.one_of(
    st.binary(max_size=300), st.lists(st.one_of(LINES, st.binary(max_size=20)), max_size=12).map(b"\r\n".join)
)


@given(BYTES, st.booleans())
@example(b"GET / HTTP/1.1\r\nHost: HERE\r\n\r\n", True)
def test_the_server_answers_any_bytes_or_closes_the_connection(sink: WebSink, sent: bytes, whole: bool) -> None:
    message = sent.replace(b"HERE", urlsplit(sink.url).netloc.encode()) + b"\r\n\r\n" * whole
    with (
        socket.create_connection(endpoint(sink.url), timeout=120) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65536):  # until the server closes the connection
            answer += part
        assert not answer or answer.startswith(b"HTTP/1.")
        assert b"Traceback" not in answer
        assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5"))
    assert get(sink.url)[0] == 200

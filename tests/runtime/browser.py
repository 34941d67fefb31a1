"""Helpers for tests of the page: a simulated run, plain viewers, and a real Chromium driven over DevTools."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import math
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import cv2
import numpy as np
import pytest

from framecast.camera import Frame, Image
from framecast.runtime.predictor import Prediction
from framecast.runtime.score import psnr
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.web import WebSink
from framecast.testing import STAMPS

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
]
START_TIMEOUT = 120.0  # seconds
# What Chromium says of a call that a navigation cut off.
NAVIGATED = ("Inspected target navigated or closed", "Execution context was destroyed")

HEIGHT, WIDTH = 192, 256
HORIZON = 2  # frames ahead
SETTLE = 8

# Counts the pixels of a canvas that are not black, or that are close to a colour.
COUNT = """((id, colour) => {
    const {width, height} = document.getElementById(id);
    const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(document.getElementById(id), 0, 0);
    const data = copy.getImageData(0, 0, width, height).data;
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
        const pixel = [...data.slice(at, at + 3)];
        count += colour ? pixel.every((value, i) => Math.abs(value - colour[i]) < 30) : Math.max(...pixel) > 40;
    }
    return count;
})"""
PREDICTION, COPY = "[95, 211, 196]", "[229, 161, 88]"  # the plot's lines in the dark scheme


def picture(place: float) -> Image:
    """A ball over a smooth ground; ``place`` is the frame number, which may be fractional."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    ground = np.stack([60 + rows / 4, 50 + columns / 5, 40 + (rows + columns) / 8], axis=-1)
    image = ground.astype(np.uint8)
    centre = WIDTH / 2 + 90 * math.sin(place / 15), HEIGHT / 2 + 50 * math.cos(place / 11)
    sixteenths = round(centre[0] * 16), round(centre[1] * 16)
    cv2.circle(image, sixteenths, 26 * 16, (90, 180, 240), cv2.FILLED, cv2.LINE_AA, shift=4)
    return image


def event(index: int) -> Result:
    """A frame, and a prediction that lags the truth by a changing amount, but less than the last frame does."""
    now, lag = picture(index), 0.7 + 0.3 * math.sin(index / 20)
    prediction = Prediction(picture(index + HORIZON - lag), (index + HORIZON) / 30, HORIZON / 30)
    if index < SETTLE:
        return Result(Frame(now, index / 30, index), now, prediction, STAMPS)
    due, late = picture(index - lag), picture(index - HORIZON)
    frame = Frame(now, index / 30, index)
    return Result(frame, now, prediction, STAMPS, due, late, psnr(due, now), psnr(late, now))


def snapshot(**changes: object) -> Mapping[str, object]:
    """Figures of a run, some of which JSON cannot represent."""
    return {
        "source": "synthetic://ball",
        "model": "stip-edge",
        "engine": "onnxruntime (CPU)",
        "ahead_ms": 66.7,
        "frames": 1234,
        "dropped": 5,
        "epochs": 1,
        "resets": 0,
        "fps": np.float32(29.75),
        "latency_ms": {"p50": 12.25, "p90": math.inf, "p99": 18.5, "max": math.nan, "n": 1200},
        "psnr_db": {"prediction": 31.5, "copy_last": 29.125, "n": 1192, "trusted": True, "dis": None},
        "psnr_db_by_ahead": [
            {"ahead_ms": 33.3, "prediction": 33.5, "copy_last": 32.5, "n": 1193},
            {"ahead_ms": 66.7, "prediction": 31.5, "copy_last": 29.125, "n": 1192},
        ],
        "sharpness": {"prediction": 0.914, "copy_last": 1.0},
        "now": None,
        "events": {"repeats": 3, "cuts": 0, "gaps": 0, "copied": 1},
        "warnings": [],
        **changes,
    }


@contextlib.contextmanager
def playing(sink: WebSink) -> Iterator[None]:
    """Show about 30 events a second in a thread."""
    stop = threading.Event()

    def play() -> None:
        index = 0
        while not stop.wait(1 / 30):
            sink.show(event(index))
            index += 1

    player = threading.Thread(target=play)
    player.start()
    try:
        yield
    finally:
        stop.set()
        player.join()


def endpoint(url: str) -> tuple[str, int]:
    """The host and the port of a URL that has both."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, str, Mapping[str, str]]:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as reply:
        return reply.status, await reply.text(), reply.headers


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str, Mapping[str, str]]:
    return asyncio.run(fetch(url, method, **headers))


@contextlib.asynccontextmanager
async def watch(
    url: str, origin: str | None = None, show: str | None = None, host: str | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
    parts = urlsplit(url)
    headers = {"Origin": origin or f"http://{parts.netloc}", "Host": host or parts.netloc}
    query = "&".join([*filter(None, [parts.query]), *([] if show is None else [f"show={show}"])])
    stream = f"{url.partition('?')[0]}stream?{query}"
    async with aiohttp.ClientSession() as session, session.ws_connect(stream, headers=headers) as viewer:
        yield viewer


async def refused(url: str, origin: str | None = None, show: str | None = None) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        async with watch(url, origin, show):
            pass
    return error.value.status


def decode(message: bytes) -> tuple[dict[str, Any], dict[str, Image]]:
    """The header and the pictures of an update."""
    (length,) = struct.unpack_from(">I", message)
    header = json.loads(message[4 : 4 + length])
    at, pictures = 4 + length, {}
    for name, size in header["pictures"].items():
        picture = cv2.imdecode(np.frombuffer(message[at : at + size], np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        pictures[name] = picture.astype(np.uint8)
        at += size
    assert at == len(message)
    return header, pictures


class NavigatedError(Exception):
    """The page went to another address before it answered."""


class Page:
    """One page of the browser.

    Attributes:
        complaints: exceptions, console warnings and errors, and violations of the security policy.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
            elif event["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"):
                self.complaints.append(json.dumps(event["params"]["args"]))
            elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in ("error", "warning"):
                self.complaints.append(event["params"]["entry"]["text"])

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        reply = await asyncio.wait_for(answer, START_TIMEOUT)
        if "error" in reply and reply["error"]["message"].rstrip(".") in NAVIGATED:
            raise NavigatedError(f"{method} {params}: {reply['error']['message']}")
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        reply = await self.call("Page.navigate", url=url)
        assert "errorText" not in reply, reply
        await self.wait_until("document.readyState !== 'loading'")  # before that, document.body may be null

    async def evaluate(self, expression: str) -> Any:
        reply = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def look(self, view: str) -> None:
        """Choose a view, and wait until it is drawn."""
        await self.evaluate(f"document.querySelector('input[value={view}]').click()")
        frames = await self.evaluate("document.body.dataset.frames")
        await self.wait_until(f"document.body.dataset.frames > {int(frames) + 2}")

    async def press(self, key: str) -> None:
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def visible(self) -> list[str]:
        """The names of the visible pictures."""
        names: list[str] = await self.evaluate(
            "[...document.querySelectorAll('figure canvas')].filter((c) => c.checkVisibility()).map((c) => c.id)"
        )
        return names

    async def scheme(self, name: str) -> None:
        """Make the desktop ``light`` or ``dark``."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def text(self, name: str) -> str:
        content: str = await self.evaluate(f"document.getElementById({name!r}).textContent")
        return content

    async def count(self, name: str, colour: str = "null") -> int:
        number: int = await self.evaluate(f"{COUNT}({name!r}, {colour})")
        return number

    async def wait_until(self, expression: str, seconds: float = 120.0) -> None:
        """Wait until ``expression`` holds, on this page or on one that it goes to meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(NavigatedError):
                if await self.evaluate(expression):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"timeout after {seconds} s: {expression}")

    async def resize(self, width: int, height: int, scale: float = 1) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def screenshot(self, path: Path) -> None:
        reply = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(reply["data"]))


@contextlib.asynccontextmanager
async def browse(folder: Path) -> AsyncIterator[Page]:
    """An empty page of a fresh browser whose profile is in ``folder``."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession() as session:
            address = await _target(session, folder / "DevToolsActivePort")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                listener = asyncio.create_task(page.listen())
                yield page
                listener.cancel()
    finally:
        browser.terminate()
        browser.wait()


async def _target(session: aiohttp.ClientSession, ports: Path) -> str:
    """The DevTools address of the browser's page, once the browser is up."""
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, aiohttp.ClientError):
            port = ports.read_text().splitlines()[0]
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                address: str = next(t for t in await reply.json() if t["type"] == "page")["webSocketDebuggerUrl"]
                return address
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{CHROMIUM} did not start within {START_TIMEOUT} s")

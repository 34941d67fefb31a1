"""The page of several cameras: its server, and the grid in a real Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from framecast.runtime.sinks.page.pictures import TILE
from framecast.runtime.sinks.web import WebSink

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import CHROMIUM, NavigatedError, browse, decode, event, get, snapshot, watch  # noqa: TID252

NAMES = ("door", "yard")


def figures(name: str) -> dict[str, object]:
    trouble = {"trouble": None, "silent_s": 0.0, "ended": None}
    return {**snapshot(), **trouble, "source": f"rtsp://{name}"}


def report() -> dict[str, object]:
    total = {"source": "2 cameras", "model": "edge", "engine": "opencv", "fps": 59.6, "ended": None}
    failed = {**figures("yard"), "ended": "error: yard: gone"}
    return {"cameras": {"door": figures("door"), "yard": failed}, "total": total}


@pytest.fixture
def sink() -> Iterator[WebSink]:
    cameras = {name: lambda name=name: figures(name) for name in NAMES}
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=report, cameras=cameras)) as sink:
        yield sink


def test_the_first_page_is_the_grid_and_a_cameras_page_is_the_usual_one(sink: WebSink) -> None:
    assert 'id="grid"' in get(sink.url)[1]
    assert 'id="grid"' in get(f"{sink.url}?camera=nobody")[1]
    assert 'id="split"' in get(f"{sink.url}?camera=door")[1]


def test_each_camera_has_its_figures_and_a_small_picture(sink: WebSink) -> None:
    found = json.loads(get(f"{sink.url}stats.json")[1])
    assert (found["total"], [*found["cameras"]]) == (report()["total"], [*NAMES])
    assert json.loads(get(f"{sink.url}stats.json?camera=yard")[1])["source"] == "rtsp://yard"
    for path in ("stats.json?camera=x", "tile.jpg?camera=x", "tile.jpg", "stream"):
        assert get(f"{sink.url}{path}", Origin=sink.url.rstrip("/"))[0] == 404
    assert get(f"{sink.url}tile.jpg?camera=door")[0] == 204  # none yet
    large = event(0)
    shown = np.zeros((1080, 1920, 3), np.uint8)
    object.__setattr__(large.prediction, "image", shown)
    sink.feed("door").show(large)
    with urlopen(f"{sink.url}tile.jpg?camera=door") as answer:
        small = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
    assert small is not None
    assert small.shape == (270, TILE, 3)
    assert get(f"{sink.url}tile.jpg?camera=yard")[0] == 204


def test_a_token_guards_every_camera() -> None:
    token = "a-token-of-the-owner"
    cameras = {name: lambda name=name: figures(name) for name in NAMES}
    with contextlib.closing(WebSink("0", snapshot=report, cameras=cameras, token=token)) as sink:
        sink.feed("door").show(event(0))
        for path in ("", "stats.json?camera=door", "tile.jpg?camera=door", "?camera=door", "grid.js"):
            with pytest.raises(HTTPError, match="403"):
                urlopen(f"{sink.address}{path}")


def test_a_stream_shows_only_its_camera(sink: WebSink) -> None:
    async def run() -> list[int]:
        got: list[int] = []
        async with watch(f"{sink.url}?camera=yard") as viewer:
            for index in range(3):
                sink.feed("door").show(event(100 + index))
                sink.feed("yard").show(event(index))
                while not (update := decode(await viewer.receive_bytes()))[1]:
                    pass
                got.append(update[0]["index"])
        return got

    assert asyncio.run(run()) == [0, 1, 2]
    ready = json.loads(get(f"{sink.url}ready")[1])
    assert ready == {"ready": True}


def test_ready_names_the_cameras_that_are_not(sink: WebSink) -> None:
    sink.feed("door").show(event(0))
    status, text, _ = get(f"{sink.url}ready")
    assert (status, json.loads(text)["cameras"]) == (503, {"yard": "no prediction yet"})


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")
def test_the_grid_and_one_camera_large(sink: WebSink, tmp_path: Path) -> None:
    async def run() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await page.wait_until("document.querySelectorAll('.tile').length === 2")
            for index, name in enumerate(NAMES):
                sink.feed(name).show(event(index))
            await page.wait_until("document.body.dataset.frames > 2")
            assert await page.evaluate("[...document.querySelectorAll('.state')].map((one) => one.textContent)") == [
                "live",
                "failed",
            ]
            assert await page.evaluate("document.querySelectorAll('.tile')[1].title") == "yard: gone"
            assert await page.text("status-text") == "1 of 2 live"
            assert await page.text("source") == "2 cameras, edge on opencv, 59.6 fps together"
            for width in (400, 2200):
                await page.resize(width, 900)
                assert await page.evaluate("document.documentElement.scrollWidth") == width
            await page.evaluate("document.querySelectorAll('.tile')[1].click(), 0")
            await page.wait_until("document.getElementById('split') && document.body.dataset.frames > 0")
            assert await page.text("camera") == "yard"
            assert await page.evaluate("location.search") == "?camera=yard"
            await page.press("Escape")
            await page.wait_until("document.getElementById('grid') && document.body.dataset.frames > 0")
            assert await page.evaluate("location.search") == ""
            await page.wait_until("document.querySelectorAll('[data-state=live]').length === 1")
            await asyncio.to_thread(sink.close)  # no camera may look as if it were live
            await page.wait_until("document.querySelectorAll('[data-state=waiting] [data-old]').length === 2")

    asyncio.run(run())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")
def test_a_wait_outlasts_a_page_that_goes_elsewhere_meanwhile(sink: WebSink, tmp_path: Path) -> None:
    # The first answer never comes, because the page leaves before.
    there = "location.search === '?camera=yard' || (location.search = '?camera=yard', new Promise(() => {}))"

    async def run() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await page.wait_until("document.querySelectorAll('.tile').length === 2")
            with pytest.raises(NavigatedError):
                await page.evaluate(there)
            await page.wait_until("document.getElementById('split') !== null")
            await page.wait_until(there.replace("yard", "door"))
            with pytest.raises(AssertionError, match=r"timeout after 0\.2 s"):
                await page.wait_until("false", seconds=0.2)

    asyncio.run(run())

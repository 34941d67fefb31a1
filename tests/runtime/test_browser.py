"""The page in a real Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from framecast.runtime.sinks import web
from framecast.runtime.sinks.web import WebSink

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import (  # noqa: TID252
    CHROMIUM,
    COPY,
    PREDICTION,
    Page,
    browse,
    event,
    playing,
    snapshot,
)


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        yield sink


browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")


@browser
def test_the_page(sink: WebSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Path(os.environ.get("FRAMECAST_SCREENSHOTS", tmp_path))

    async def run() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.scheme("dark")
            await page.resize(1280, 900)
            await page.open(sink.url)
            await page.wait_until("document.body?.dataset.status === 'waiting'")
            sink.show(event(0))
            await page.wait_until("document.body.dataset.frames === '1'")

            with playing(sink):
                await page.wait_until("document.body.dataset.frames > 60 && plot.points.length > 60")
                assert await page.evaluate("document.body.dataset.status") == "live"
                assert await page.text("line") == "predicting 67 ms ahead · prediction takes 12 ms"
                figures = ("fps", "latency-p50", "latency-p99", "latency-n", "frames", "dropped", "sharpness", "events")
                expected = ["29.8", "12.3", "18.5", "1,200", "1,234", "5", "91 %", "3 repeats · 1 copied"]
                assert [await page.text(i) for i in figures] == expected
                names = [await page.text(name) for name in ("source", "model", "engine")]
                assert names == ["synthetic://ball", "stip-edge", "onnxruntime (CPU)"]
                assert [await page.text(i) for i in ("psnr-prediction", "psnr-copy")] == ["31.5 dB", "29.1 dB"]
                assert await page.text("gain") == "+2.4 dB"
                assert await page.text("gain-text") == "above copying the last frame, 67 ms ahead"
                assert await page.text("by-ahead") == "Gain in dB by lookahead: 33 ms +1.0 · 67 ms +2.4"
                assert await page.visible() == ["late", "now"]
                assert [await page.count(name) > 100 for name in ("late", "now")] == [True] * 2
                assert await page.count("plot", PREDICTION) > 20
                assert await page.count("plot", COPY) > 20
                await page.screenshot(pictures / "page-1280.png")

                await page.resize(400, 1500, scale=2)
                await page.wait_until("document.getElementById('plot').width > 600")  # sharp on a high-density screen
                assert await page.evaluate("document.documentElement.scrollWidth") == 400
                await page.screenshot(pictures / "page-400.png")

                await page.scheme("light")
                await page.resize(2200, 1300)
                assert await page.evaluate("document.documentElement.scrollWidth") == 2200
                await page.screenshot(pictures / "page-2200.png")

                with monkeypatch.context() as patch:
                    patch.setattr(web, "SEND_TIMEOUT", 0)  # no viewer is that fast, so all are dropped
                    await page.wait_until("document.body.dataset.status === 'reconnecting'")
                await page.wait_until("document.body.dataset.status === 'live'")

            await asyncio.to_thread(sink.close)
            await page.wait_until("document.body.dataset.status === 'ended'")
            assert await page.text("status") == "the run has ended"
            assert await page.count("late") > 100
            assert page.complaints == []

    asyncio.run(run())


@browser
def test_the_views(sink: WebSink, tmp_path: Path) -> None:
    async def wanted(names: set[str]) -> None:
        """Wait until viewers ask for exactly these pictures. The server takes a moment to notice that a viewer left."""
        while set().union(*(viewer.show for viewer in sink.feed("camera1").viewers)) != names:
            await asyncio.sleep(0.02)

    async def run() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await page.wait_until("document.body?.dataset.status === 'waiting'")
            with playing(sink):
                await page.wait_until("document.body.dataset.frames > 20")
                await page.look("errors")
                errors = ["was", "due", "real", "error_was", "error_due"]
                assert await page.visible() == errors
                await wanted(set(errors))
                assert [await page.count(name) > 100 for name in errors] == [True] * 5
                assert re.fullmatch(
                    r"The error of now is (\d\.\d times \w+ than|as large as) that .*", await page.text("verdict")
                )
                assert await page.text("due-tag") == ": 67 ms ahead"

                await page.press("6")
                assert await page.visible() == ["film_due", "film_real"]
                await page.wait_until("document.getElementById('film_due').width === 10 * 160 + 9 * 4")
                assert await page.text("film-tag") == ": 67 ms ahead"
                box = "document.querySelector('#pane-film_real {}').getBoundingClientRect()"
                assert await page.evaluate(f"0 < {box.format('.tag')}.height")
                assert await page.evaluate(f"{box.format('.tag')}.bottom <= {box.format('canvas')}.top")

                for key, names in (("1", ["late"]), ("2", ["now"]), ("4", ["late", "now"]), ("3", ["late", "now"])):
                    await page.press(key)
                    assert await page.visible() == names
                    await page.wait_until("document.body.dataset.status === 'live'")
                frames = int(await page.evaluate("document.body.dataset.frames"))
                await page.wait_until(f"document.body.dataset.frames > {frames + 2}")
                await wanted({"late", "now"})

                # Move the slider by key and by touch.
                split = "document.querySelector('.screens').style.getPropertyValue('--split')"
                await page.press("ArrowLeft")
                assert await page.evaluate(split) == "48%"
                box = await page.evaluate(
                    "JSON.parse(JSON.stringify(document.getElementById('split').getBoundingClientRect()))"
                )
                finger = {"x": box["x"] + box["width"] / 4, "y": box["y"] + box["height"] / 2}
                await page.call("Emulation.setTouchEmulationEnabled", enabled=True)
                await page.call(
                    "Input.dispatchTouchEvent", type="touchStart", touchPoints=[{**finger, "x": finger["x"] + 60}]
                )
                await page.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[finger])
                await page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
                assert abs(float((await page.evaluate(split)).rstrip("%")) - 25) < 1

                assert await page.evaluate("document.getElementById('trust').hidden")
                await page.press("t")
                await page.wait_until("!document.getElementById('trust').hidden")
                await wanted({"late", "now", "trust"})

                # Some phones show only videos in full screen.
                await page.evaluate("Object.defineProperty(document, 'fullscreenEnabled', { value: false }), 0")
                await page.press("f")
                assert await page.evaluate("getComputedStyle(document.getElementById('stage')).position") == "fixed"
                await page.press("Escape")
                assert await page.evaluate("getComputedStyle(document.getElementById('stage')).position") == "static"

                # A reload keeps the view and the history of the score.
                await page.look("beside")
                await page.call("Page.reload")
                await page.wait_until("document.body?.dataset.view === 'beside' && document.body.dataset.frames > 0")
                assert await page.evaluate("plot.points.length") > 20
            assert page.complaints == []

    asyncio.run(run())


@browser
def test_the_page_goes_on_after_an_outage_and_a_lost_connection(sink: WebSink, tmp_path: Path) -> None:
    async def status(page: Page, name: str, text: str) -> None:
        await page.wait_until(f"document.body?.dataset.status === {name!r}")
        assert re.fullmatch(text, await page.text("status"))

    def stand_still() -> None:  # as if the network were gone
        held.set()
        free.wait()

    held, free = threading.Event(), threading.Event()
    figures: dict[str, object] = {}
    sink.feed("camera1")._snapshot = lambda: snapshot(**figures)

    async def run() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await status(page, "waiting", "waiting for frames")
            figures["trouble"] = "no stream from rtsp://camera"
            await status(page, "out", "the camera is out: trying again")
            figures["trouble"] = None
            await status(page, "waiting", "waiting for frames")
            await page.evaluate("RETRY.fill(20), 0")
            sink.show(event(0))
            await status(page, "live", "live")

            pulse = sink.feed("camera1").pulse
            clock = pulse._clock
            pulse._clock = lambda: clock() + 12  # the camera is out
            await status(page, "outage", r"no frame for 1\d s")
            assert await page.count("late") > 100  # the last picture stays
            sink.show(event(1))
            await status(page, "live", "live")

            sink._loop.call_soon_threadsafe(stand_still)
            await asyncio.to_thread(held.wait)
            await page.evaluate("heard -= LOST")
            await status(page, "reconnecting", "connection lost, retrying")
            free.set()
            await status(page, "live", "live")
            assert page.complaints == []

            await asyncio.to_thread(sink.close)
            await status(page, "ended", "the run has ended")
            address = sink.url.removeprefix("http://").removesuffix("/")
            restarted = stack.enter_context(contextlib.closing(WebSink(address, snapshot=snapshot)))
            restarted.show(event(0))
            await status(page, "live", "live")

    with contextlib.ExitStack() as stack:
        asyncio.run(run())


NOW = {"late": 238.0, "error": 3.2, "spread": 9.0, "n": 900}
DIS = {"prediction": 31.0, "copy_last": 29.0, "dis_flow": 30.5, "n": 60}
FEW = {"prediction": 31.5, "copy_last": 29.125, "n": 7, "trusted": False, "dis": DIS}


@browser
def test_a_gain_that_is_not_trusted_is_not_praised(tmp_path: Path) -> None:
    changes: dict[str, object] = {}

    async def run(sink: WebSink) -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await page.wait_until("document.body?.dataset.status === 'waiting'")
            with playing(sink):
                await page.wait_until("document.body.dataset.scored > 0")
                assert await page.evaluate("document.getElementById('gain').className") == "above"
                assert await page.evaluate("document.getElementById('warnings').hidden")

                changes["now"] = NOW
                line = "camera 226 ms late · prediction 12 ms · showing now +3 ms"
                await page.wait_until(f"document.getElementById('line').textContent === {line!r}")
                assert [await page.text(name) for name in ("late-tag", "now-tag")] == [" by 238 ms", ": +3 ms"]

                changes["warnings"] = ["<b>2877</b> of 2937 frames were dropped", "predictions come too late"]
                await page.wait_until("!document.getElementById('warnings').hidden")
                items = await page.evaluate("[...document.querySelectorAll('#warnings li')].map((i) => i.textContent)")
                assert items == changes["warnings"]
                assert await page.text("gain") == "+2.4 dB"
                assert await page.evaluate("document.getElementById('gain').className") == ""  # not green

                changes.update(warnings=[], psnr_db=FEW)
                await page.wait_until("document.body.dataset.scored === '7'")
                assert await page.text("gain") == "–"
                assert await page.text("gain-text") == "too few frames are scored to judge: 7 of 1,234"
                rival = "Over 60 frames, optical flow (DIS) gains +1.5 dB and this model +2.0 dB."
                assert await page.text("dis") == rival

                changes["psnr_db"] = {**FEW, "prediction": 28.0, "n": 1000, "trusted": True}
                await page.wait_until("document.body.dataset.scored === '1000'")
                assert await page.text("gain") == "−1.1 dB"
                assert await page.evaluate("document.getElementById('gain').className") == "below"
            assert page.complaints == []

    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=lambda: snapshot(**changes))) as sink:
        asyncio.run(run(sink))

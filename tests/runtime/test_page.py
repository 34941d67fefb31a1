"""The page: what its updates hold, and the page itself in a real Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.runtime.predictor import Prediction
from framecast.runtime.score import psnr
from framecast.runtime.sinks import web
from framecast.runtime.sinks.page.pictures import Trust
from framecast.runtime.sinks.page.scores import KEPT
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.web import WebSink
from framecast.testing import STAMPS

# Beside this file; pytest's importlib mode puts no folder of tests on the path.
from .browser import (  # noqa: TID252
    CHROMIUM,
    COPY,
    PREDICTION,
    SETTLE,
    browse,
    decode,
    event,
    get,
    playing,
    refused,
    snapshot,
    watch,
)


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        yield sink


# What is sent


async def updates(sink: WebSink, results: list[Result], show: str | None = None) -> list[Any]:
    """What a viewer gets: at once, after each result, and at the end of the run."""
    async with watch(sink.url, show=show) as viewer:
        messages = [await viewer.receive()]  # at once, though nothing has been shown
        for result in results:
            sink.show(result)
            messages.append(await viewer.receive())
        closing = asyncio.create_task(asyncio.to_thread(sink.close))
        messages += [await viewer.receive(), await viewer.receive()]
        await closing
        return messages


EVERYTHING = "late,now,trust,real,due,was,error_due,error_was"


def test_updates_hold_the_pictures_and_their_scores(sink: WebSink) -> None:
    shown = [event(SETTLE - 1), event(SETTLE)]
    first, warming, scored, last, end = asyncio.run(updates(sink, shown, EVERYTHING))
    header, pictures = decode(first.data)
    assert header == {"pictures": {}, "scores": [], "stats": header["stats"]}
    assert header["stats"]["latency_ms"]["p90"] is None

    header, pictures = decode(warming.data)
    assert (header["index"], header["psnr"], header["psnr_copy"]) == (SETTLE - 1, None, None)
    assert header["scores"] == [[round((SETTLE - 1) / 30, 3), None, None]]
    assert set(pictures) == {"late", "now", "real"}  # nothing was due

    truth = event(SETTLE)
    header, pictures = decode(scored.data)
    assert (header["index"], header["time"], header["ahead_ms"]) == (SETTLE, SETTLE / 30, 66.7)
    assert (header["psnr"], header["psnr_copy"]) == (truth.psnr, truth.psnr_copy)
    assert truth.due is not None
    assert truth.late is not None
    assert truth.psnr is not None
    assert truth.psnr_copy is not None
    assert header["scores"] == [[round(SETTLE / 30, 3), round(truth.psnr, 2), round(truth.psnr_copy, 2)]]
    errors = [2 * cv2.absdiff(truth.input, other).mean(axis=2, keepdims=True) for other in (truth.due, truth.late)]
    expected = (truth.input, truth.prediction.image, truth.input, truth.due, truth.late, *errors)
    names = ("late", "now", "real", "due", "was", "error_due", "error_was")
    for name, image in zip(names, expected, strict=True):
        level = np.broadcast_to(image, truth.input.shape).clip(0, 255).astype(np.uint8)
        assert psnr(pictures[name], level) > 28
    assert pictures["trust"].shape == (120, 160)
    assert pictures["trust"].max() > 20  # around the ball
    assert pictures["trust"][:20].max() < 5  # the quiet ground

    header, pictures = decode(last.data)  # the last picture, with the last figures
    assert header["index"] == SETTLE
    assert header["stats"]["frames"] == 1234
    assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1000)


@pytest.mark.parametrize(
    ("show", "names"), [(None, ["late", "now"]), ("late", ["late"]), ("due,real", ["real", "due"])]
)
def test_viewers_get_what_they_want(sink: WebSink, show: str | None, names: list[str]) -> None:
    _, update, _, _ = asyncio.run(updates(sink, [event(SETTLE)], show))
    assert list(decode(update.data)[1]) == names


@pytest.mark.parametrize("show", ["", "frame", "late,late", "late,", "late;now", "../late", "x" * 4000])
def test_what_is_no_picture_is_refused(sink: WebSink, show: str) -> None:
    assert asyncio.run(refused(sink.url, show=show)) == 400


def test_a_picture_is_encoded_once_and_only_if_somebody_wants_it(
    sink: WebSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[int, ...]] = []
    encode = cv2.imencode

    def counted(kind: str, image: Any, options: Any) -> Any:
        encoded.append(image.shape)
        return encode(kind, image, options)

    monkeypatch.setattr(cv2, "imencode", counted)

    async def run() -> None:
        wants = ("late,now", "now", "late")
        async with contextlib.AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(watch(sink.url, show=show)) for show in wants]
            for viewer in viewers:
                await viewer.receive()
            sink.show(event(SETTLE))
            for viewer, show in zip(viewers, wants, strict=True):
                while not (pictures := decode(await viewer.receive_bytes())[1]):
                    pass  # another viewer has joined
                assert list(pictures) == show.split(",")

    sink.show(event(0))
    assert get(sink.url)[0] == 200  # the server has come round since
    assert encoded == []
    sink._newest = None
    asyncio.run(run())
    assert len(encoded) == 2


def test_moments_between_frames_are_for_those_who_watch_now(sink: WebSink) -> None:
    frame = event(SETTLE)
    later = Prediction(np.full_like(frame.input, 200), 1.0, 0.1)
    between = Result(frame.frame, frame.input, later, STAMPS, between=True)

    async def run() -> None:
        async with watch(sink.url, show="late,now,trust") as now, watch(sink.url, show="real,due") as errors:
            sink.show(frame)
            for viewer in (now, errors):
                while "index" not in decode(await viewer.receive_bytes())[0]:
                    pass
            sink.show(between)
            header, pictures = decode(await now.receive_bytes())
            assert header["ahead_ms"] == 100
            assert header["psnr"] == frame.psnr  # of the frame
            assert psnr(pictures["now"], later.image) > 40
            assert psnr(pictures["late"], frame.input) > 28
            assert pictures["trust"].any()
            sink.show(dataclasses.replace(event(SETTLE + 1), prediction=later))
            header, _ = decode(await errors.receive_bytes())
            assert header["index"] == SETTLE + 1

    asyncio.run(run())


def test_large_pictures_are_shrunk(sink: WebSink) -> None:
    large = np.zeros((2160, 3840, 3), np.uint8)
    result = Result(Frame(large, 0.0, 0), large, Prediction(large, 0.1, 0.1), STAMPS, large, large, 30.0, 20.0)
    _, update, _, _ = asyncio.run(updates(sink, [result], EVERYTHING))
    sizes = {name: picture.shape[1::-1] for name, picture in decode(update.data)[1].items()}
    large_ones, small_ones = (
        dict.fromkeys(("late", "now"), (1280, 720)),
        ("real", "due", "was", "error_due", "error_was"),
    )
    assert sizes == {**large_ones, "trust": (160, 90), **dict.fromkeys(small_ones, (640, 360))}


def test_a_page_that_loads_late_gets_the_history(sink: WebSink) -> None:
    count = KEPT + 100
    blank = np.zeros((8, 8, 3), np.uint8)
    for index in range(count):
        result = Result(
            Frame(blank, index / 30, index), blank, Prediction(blank, 1.0, 0.1), STAMPS, blank, blank, 31, 28
        )
        sink.show(result)
        sink.show(dataclasses.replace(result, between=True))

    async def run() -> tuple[list[Any], list[Any]]:
        async with watch(sink.url) as viewer:
            first = decode(await viewer.receive_bytes())[0]["scores"]
            sink.show(event(count))
            return first, decode(await viewer.receive_bytes())[0]["scores"]

    first, second = asyncio.run(run())
    assert [point[0] for point in first] == [round(index / 30, 3) for index in range(100, count)]
    assert first[0][1:] == [31, 28]
    assert [point[0] for point in second] == [round(count / 30, 3)]


def test_the_trust_shade_grows_and_fades() -> None:
    trust, blank = Trust(), np.zeros((90, 160, 3), np.uint8)
    wrong = blank.copy()
    wrong[:, 80:] = 40
    assert trust.take(blank, None) is None
    levels = []
    for index in range(29):
        shade = trust.take(blank, wrong if index < 9 else blank)
        assert shade is not None
        assert not shade[:, :70].any()
        levels.append(int(shade[45, 120]))
    assert levels[:9] == [160] * 9  # 4 times the error
    assert levels[9:] == sorted(levels[9:], reverse=True)
    assert levels[-1] < 10


# In a real browser

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
                assert await page.text("line") == "prediction of the picture 67 ms ahead · made in 12 ms"
                figures = ("fps", "latency-p50", "latency-p99", "latency-n", "frames", "dropped", "sharpness", "events")
                told = ["29.8", "12.3", "18.5", "1,200", "1,234", "5", "91 %", "3 repeated · 1 copied by the guard"]
                assert [await page.text(i) for i in figures] == told
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
                await page.wait_until("document.getElementById('plot').width > 600")  # sharp at two pixels a point
                assert await page.evaluate("document.documentElement.scrollWidth") == 400
                await page.screenshot(pictures / "page-400.png")

                await page.scheme("light")
                await page.resize(2200, 1300)
                assert await page.evaluate("document.documentElement.scrollWidth") == 2200
                await page.screenshot(pictures / "page-2200.png")

                with monkeypatch.context() as patch:
                    patch.setattr(web, "SEND_TIMEOUT", 0)  # no viewer is this fast: all are dropped
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
    def wanted() -> set[str]:
        return set().union(*(viewer.show for viewer in sink._viewers))

    async def run() -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await page.wait_until("document.body?.dataset.status === 'waiting'")
            with playing(sink):
                await page.wait_until("document.body.dataset.frames > 20")
                await page.look("errors")
                errors = ["was", "due", "real", "error_was", "error_due"]
                assert await page.visible() == errors
                assert wanted() == set(errors)
                assert [await page.count(name) > 100 for name in errors] == [True] * 5
                assert re.fullmatch(r"The error of now is \d\.\d times \w+ than that .*", await page.text("verdict"))
                assert await page.text("due-tag") == ": 67 ms ahead"

                for key, names in (("1", ["late"]), ("2", ["now"]), ("4", ["late", "now"]), ("3", ["late", "now"])):
                    await page.press(key)
                    assert await page.visible() == names
                    await page.wait_until("document.body.dataset.status === 'live'")
                frames = int(await page.evaluate("document.body.dataset.frames"))
                await page.wait_until(f"document.body.dataset.frames > {frames + 2}")
                assert wanted() == {"late", "now"}

                # The slider: by key, and by a finger.
                split = "document.querySelector('.screens').style.getPropertyValue('--split')"
                await page.press("ArrowLeft")
                assert await page.evaluate(split) == "48%"
                box = await page.evaluate(
                    "JSON.parse(JSON.stringify(document.getElementById('split').getBoundingClientRect()))"
                )
                finger = {"x": box["x"] + box["width"] / 4, "y": box["y"] + box["height"] / 2}
                await page.call("Input.dispatchMouseEvent", type="mousePressed", button="left", clickCount=1, **finger)
                await page.call("Input.dispatchMouseEvent", type="mouseReleased", button="left", clickCount=1, **finger)
                assert abs(float((await page.evaluate(split)).rstrip("%")) - 25) < 1

                assert await page.evaluate("document.getElementById('trust').hidden")
                await page.press("t")
                await page.wait_until("!document.getElementById('trust').hidden")
                assert wanted() == {"late", "now", "trust"}

                # A phone that fills the screen with videos alone.
                await page.evaluate("Object.defineProperty(document, 'fullscreenEnabled', { value: false }), 0")
                await page.press("f")
                assert await page.evaluate("getComputedStyle(document.getElementById('stage')).position") == "fixed"
                await page.press("Escape")
                assert await page.evaluate("getComputedStyle(document.getElementById('stage')).position") == "static"

                # It comes back as it was left, with the history of the score.
                await page.look("beside")
                await page.call("Page.reload")
                await page.wait_until("document.body?.dataset.view === 'beside' && document.body.dataset.frames > 0")
                assert await page.evaluate("plot.points.length") > 20
            assert page.complaints == []

    asyncio.run(run())


NOW = {"late": 238.0, "error": 3.2, "spread": 9.0, "n": 900}
DIS = {"prediction": 31.0, "copy_last": 29.0, "dis_flow": 30.5, "n": 60}
FEW = {"prediction": 31.5, "copy_last": 29.125, "n": 7, "trusted": False, "dis": DIS}


@browser
def test_nothing_is_praised_that_fails(tmp_path: Path) -> None:
    told: dict[str, object] = {}

    async def run(sink: WebSink) -> None:
        async with browse(tmp_path / "profile") as page:
            await page.open(sink.url)
            await page.wait_until("document.body?.dataset.status === 'waiting'")
            with playing(sink):
                await page.wait_until("document.body.dataset.scored > 0")
                assert await page.evaluate("document.getElementById('gain').className") == "above"
                assert await page.evaluate("document.getElementById('warnings').hidden")

                told["now"] = NOW
                line = "camera 226 ms late · prediction 12 ms · showing now +3 ms"
                await page.wait_until(f"document.getElementById('line').textContent === {line!r}")
                assert [await page.text(name) for name in ("late-tag", "now-tag")] == [" by 238 ms", ": +3 ms"]

                told["warnings"] = ["<b>2877</b> of 2937 frames were dropped", "predictions come too late"]
                await page.wait_until("!document.getElementById('warnings').hidden")
                items = await page.evaluate("[...document.querySelectorAll('#warnings li')].map((i) => i.textContent)")
                assert items == told["warnings"]
                assert await page.text("gain") == "+2.4 dB"
                assert await page.evaluate("document.getElementById('gain').className") == ""  # not green

                told.update(warnings=[], psnr_db=FEW)
                await page.wait_until("document.body.dataset.scored === '7'")
                assert await page.text("gain") == "–"
                assert await page.text("gain-text") == "too few frames are scored to judge: 7 of 1,234"
                rival = "Optical flow (DIS) gains +1.5 dB where this gains +2.0, over 60 frames."
                assert await page.text("dis") == rival

                told["psnr_db"] = {**FEW, "prediction": 28.0, "n": 1000, "trusted": True}
                await page.wait_until("document.body.dataset.scored === '1000'")
                assert await page.text("gain") == "−1.1 dB"
                assert await page.evaluate("document.getElementById('gain').className") == "below"
            assert page.complaints == []

    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=lambda: snapshot(**told))) as sink:
        asyncio.run(run(sink))

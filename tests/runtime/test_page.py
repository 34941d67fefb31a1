"""The updates of the page: their contents, and which viewer gets which."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.runtime.predictor import Prediction
from framecast.runtime.score import psnr
from framecast.runtime.sinks.page.pictures import Trust
from framecast.runtime.sinks.page.scores import KEPT
from framecast.runtime.sinks.picture import fit
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.web import WebSink
from framecast.testing import STAMPS

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import (  # noqa: TID252
    SETTLE,
    decode,
    event,
    get,
    refused,
    snapshot,
    watch,
)


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        yield sink


# The updates


async def updates(sink: WebSink, results: list[Result], show: str | None = None) -> list[Any]:
    """The messages that a viewer gets: on connecting, after each result, and at the end of the run."""
    async with watch(sink.url, show=show) as viewer:
        messages = [await viewer.receive()]  # on connecting, before any result
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
    assert header == {"age_s": None, "pictures": {}, "scores": [], "stats": header["stats"]}
    assert header["stats"]["latency_ms"]["p90"] is None

    header, pictures = decode(warming.data)
    assert (header["index"], header["psnr"], header["psnr_copy"]) == (SETTLE - 1, None, None)
    assert header["scores"] == [[round((SETTLE - 1) / 30, 3), None, None]]
    assert set(pictures) == {"late", "now"}  # nothing has been scored

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
    assert pictures["trust"][:20].max() < 5  # the smooth ground

    header, pictures = decode(last.data)  # the last picture, with the last figures
    assert header["index"] == SETTLE
    assert header["stats"]["frames"] == 1234
    assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1000)


@pytest.mark.parametrize(
    ("show", "names"), [(None, ["late", "now"]), ("late", ["late"]), ("due,real", ["real", "due"])]
)
def test_viewers_get_the_pictures_they_ask_for(sink: WebSink, show: str | None, names: list[str]) -> None:
    _, update, _, _ = asyncio.run(updates(sink, [event(SETTLE)], show))
    assert list(decode(update.data)[1]) == names


def test_the_film_has_the_predictions_of_ten_moments_above_their_real_frames(sink: WebSink) -> None:
    shown = [event(index) for index in range(SETTLE - 1, SETTLE + 12)]
    _, warming, *messages, _, _ = asyncio.run(updates(sink, shown, "film_due,film_real"))
    assert decode(warming.data)[1] == {}
    side, gap = 160, 4
    for last, message in enumerate(messages, start=1):
        pictures = decode(message.data)[1]
        assert list(pictures) == ["film_due", "film_real"]
        for column in range(10):
            index = last - 10 + column + 1  # of the moment, in ``shown``
            for name, picture in pictures.items():
                tile = picture[:, column * (side + gap) :][:, :side]
                if index < 1:
                    assert tile.max() < 40
                    continue
                result = shown[index]
                image = result.input if name == "film_real" else result.due
                assert image is not None
                assert psnr(tile, fit(image, side)) > 28


def test_a_film_can_begin_between_two_moments(sink: WebSink) -> None:
    async def run() -> list[str]:
        sink.show(event(SETTLE))
        async with watch(sink.url, show="late") as first, watch(sink.url, show="film_due") as second:
            await first.receive_bytes()
            return [*decode(await second.receive_bytes())[1]]

    assert asyncio.run(run()) == ["film_due"]


@pytest.mark.parametrize("show", ["", "frame", "late,late", "late,", "late;now", "../late", "x" * 4000])
def test_an_unknown_picture_is_refused(sink: WebSink, show: str) -> None:
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
                    pass  # skip updates without pictures, sent when another viewer joins
                assert list(pictures) == show.split(",")

    sink.show(event(0))
    assert get(sink.url)[0] == 200  # by now the server has handled the result
    assert encoded == []
    sink.feed("camera1")._newest = None
    asyncio.run(run())
    assert len(encoded) == 2


def test_moments_between_frames_are_sent_only_to_viewers_of_now(sink: WebSink) -> None:
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
            sink.show(event(0))  # a frame that is not scored
            header, pictures = decode(await errors.receive_bytes())
            assert header["index"] == 0
            assert frame.due is not None
            assert psnr(pictures["due"], frame.due) > 28  # still from the newest scored frame
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


def test_a_page_that_is_opened_late_gets_the_history(sink: WebSink) -> None:
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
    levels = []
    for index in range(29):
        shade = trust.take(blank, wrong if index < 9 else blank)
        assert not shade[:, :70].any()
        levels.append(int(shade[45, 120]))
    assert levels[:9] == [160] * 9  # 4 times the error
    assert levels[9:] == sorted(levels[9:], reverse=True)
    assert levels[-1] < 10

"""Whole clips: every method is scored on the same frames as in a live run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from framecast.camera import Frame, open_source
from framecast.errors import OptionError, SourceError
from framecast.evaluation import clips as clips_module
from framecast.evaluation.ahead import Ahead
from framecast.evaluation.clips import common_size, evaluate_clips, find_clips
from framecast.evaluation.results import Contender, Results
from framecast.evaluation.rivals import CopyLast, DisFlow, Linear
from framecast.evaluation.tables import notes
from framecast.runtime import Pipeline
from framecast.runtime.convert import to_model_size
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.predictor import Predictor
from framecast.runtime.score import psnr
from framecast.testing import ListSource, ManualClock, TrendEngine

from .conftest import HEIGHT, WIDTH, MakeContender, Moving  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

HORIZON = 3
Write = Callable[[str, list[np.ndarray]], Path]


def figure(results: Results, method: str, metric: str) -> list[float]:
    return results.of(results.clips[0].values, method, metric)


def unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) / 255


@pytest.mark.parametrize("order", ["BGR", "RGB", "GRAY"])
@pytest.mark.parametrize("warmup", [1, 12])
def test_scores_match_a_live_run(
    contender: MakeContender, moving_frames: Moving, write_clip: Write, order: str, warmup: int
) -> None:
    clip = write_clip("clip", moving_frames(26))
    model = contender(order=order, warmup=warmup)
    results = evaluate_clips([model], [str(clip)], ahead=Ahead.in_frames(HORIZON))
    for k in range(1, HORIZON + 1):
        with open_source(clip) as source:
            predictor = contender(order=order, warmup=warmup).predictor
            pipeline = Pipeline(source, predictor, lookahead=Lookahead(frames=k))
            list(pipeline)
        live = pipeline.report()["psnr_db"]
        assert results.clips[0].scored[k - 1] == live["n"] > 0
        assert figure(results, "trend", "psnr")[k - 1] == pytest.approx(
            live["prediction"], abs=6e-4
        )  # the report is rounded
        assert figure(results, "copy-last", "psnr")[k - 1] == pytest.approx(live["copy_last"], abs=6e-4)


@pytest.mark.parametrize("order", ["BGR", "GRAY"])
def test_every_figure_matches_a_plain_recomputation(
    contender: MakeContender, moving_frames: Moving, write_clip: Write, order: str
) -> None:
    frames = moving_frames(25)
    model = contender(order=order)
    results = evaluate_clips([model], [str(write_clip("clip", frames))], ahead=Ahead.in_frames(HORIZON))
    channels = model.predictor.manifest.frame[0]
    seen = [to_model_size(frame, model.predictor.manifest)[..., :channels] for frame in frames]
    due = [t for t in range(8, 25) if not np.array_equal(seen[t], seen[t - 1])]
    assert len(due) < 17  # some repeat
    assert results.clips[0].scored == (len(due),) * HORIZON
    rivals = {rival.name: rival for rival in (CopyLast(), Linear(), DisFlow())}
    assert results.methods == (*rivals, "trend")
    for k in range(1, HORIZON + 1):
        errors: dict[str, list[np.ndarray]] = {}
        for t in due:
            last, before = seen[t - k], seen[max(t - k - 1, 0)]
            for name, rival in rivals.items():
                errors.setdefault(name, []).append(unit(rival.predict(last, before, [k])[0]) - unit(seen[t]))
            values, change = unit(last), unit(last) - unit(before)
            for _ in range(k):
                change = 0.4 * change
                values = values + change
            errors.setdefault("trend", []).append(np.rint(255 * values).clip(0, 255) / 255 - unit(seen[t]))
        psnr = {name: [10 * np.log10(1 / np.mean(d**2)) for d in found] for name, found in errors.items()}
        for name, found in errors.items():
            exact = name != "trend"  # float32 may round a half to the other grey level
            assert figure(results, name, "psnr")[k - 1] == pytest.approx(
                np.mean(psnr[name]), abs=1e-4 if exact else 5e-3
            )
            mse, mae = np.mean([(d**2).sum() for d in found]), np.mean([np.abs(d).sum() for d in found])
            assert figure(results, name, "mse")[k - 1] == pytest.approx(mse, rel=1e-9 if exact else 1e-3)
            assert figure(results, name, "mae")[k - 1] == pytest.approx(mae, rel=1e-9 if exact else 1e-3)
            worse = np.mean(np.array(psnr[name]) < np.array(psnr["copy-last"]))
            assert figure(results, name, "worse_than_copying")[k - 1] == pytest.approx(worse)


def test_models_share_frames(contender: MakeContender, moving_frames: Moving, write_clip: Write) -> None:
    """All models wait for the longest warm-up."""
    clip = str(write_clip("clip", moving_frames(26)))
    alone = evaluate_clips([contender("slow", warmup=14)], [clip], ahead=Ahead.in_frames(2))
    both = evaluate_clips(
        [contender("trend", share=0.1), contender("slow", warmup=14)], [clip], ahead=Ahead.in_frames(2)
    )
    assert both.methods == ("copy-last", "linear", "dis-flow", "trend", "slow")
    assert both.clips[0].scored == alone.clips[0].scored
    assert max(both.clips[0].scored) <= 26 - 14
    for method in alone.methods:
        assert figure(both, method, "psnr") == figure(alone, method, "psnr")


@pytest.mark.parametrize("breaks", ["size", "nan"])
def test_a_broken_stream_starts_over(
    contender: MakeContender, moving_frames: Moving, write_clip: Write, breaks: str
) -> None:
    frames = moving_frames(32)
    if breaks == "size":
        frames[16:] = [frame[:36] for frame in frames[16:]]
    clip = write_clip("clip", frames)
    poison = 16 if breaks == "nan" else 0
    results = evaluate_clips([contender(poison=poison)], [str(clip)], ahead=Ahead.in_frames(1))
    with open_source(clip) as source:
        pipeline = Pipeline(source, contender(poison=poison).predictor)
        list(pipeline)
    live = pipeline.report()["psnr_db"]
    assert results.clips[0].scored[0] == live["n"] < 18
    assert figure(results, "trend", "psnr")[0] == pytest.approx(live["prediction"], abs=6e-4)
    assert results.contenders[0].predictor.resets == (breaks == "nan")


def test_clips_have_equal_weight_and_the_worst_is_named(
    contender: MakeContender, moving_frames: Moving, write_clip: Write
) -> None:
    slow = write_clip("slow", moving_frames(16, step=(1, 0)))
    fast = write_clip("fast", moving_frames(30, step=(2, 2)))
    results = evaluate_clips([contender(share=-0.5)], [str(slow), str(fast)], ahead=Ahead.in_frames(2))
    assert np.allclose(results.mean, (results.clips[0].values + results.clips[1].values) / 2)
    gains = {
        clip.name: results.of(clip.values, "trend", "psnr")[1] - results.of(clip.values, "copy-last", "psnr")[1]
        for clip in results.clips
    }
    worst, gain = results.worst("trend", 1)
    assert gains[worst.name] == gain == min(gains.values()) < 0


def test_the_strip_comes_from_the_middle_of_the_clip(
    contender: MakeContender, moving_frames: Moving, write_clip: Write
) -> None:
    frames = [frame for i, frame in enumerate(moving_frames(70)) if i % 7 != 6]  # none repeats
    model = contender()
    (result,) = evaluate_clips([model], [str(write_clip("clip", frames))], ahead=Ahead.in_frames(HORIZON)).clips
    strip = result.strip
    seen = [to_model_size(frame, model.predictor.manifest) for frame in frames]
    assert strip.labels == ("next frame", "3 frames ahead")
    (place,) = (t for t, image in enumerate(seen) if np.array_equal(image, strip.last))
    assert 18 <= place <= 48
    for truth, step in zip(strip.truths, (1, HORIZON), strict=True):
        assert np.array_equal(truth, seen[place + step])
    assert strip.psnr[3][1] == psnr(strip.predictions[3][1], strip.truths[1])
    assert np.array_equal(strip.predictions[0][0], strip.last)
    assert len(strip.predictions) == len(strip.psnr) == 4


def test_a_bad_clip_among_good_ones_is_skipped_and_named(
    contender: MakeContender, moving_frames: Moving, write_clip: Write, tmp_path: Path
) -> None:
    good, short = write_clip("good", moving_frames(14)), write_clip("short", moving_frames(8))
    still = write_clip("still", moving_frames(1) * 14)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    places = [str(tmp_path / "bad.mp4"), str(short), str(good), str(still)]
    results = evaluate_clips([contender()], places, ahead=Ahead.in_frames(HORIZON))
    assert [clip.name for clip in results.clips] == ["good"]
    assert [Path(place).name for place, _ in results.skipped] == ["bad.mp4", "short", "still"]
    reasons = [reason for _, reason in results.skipped]
    assert "decoded" in reasons[0]
    assert "give a longer clip" in reasons[1]
    assert "repeat" in reasons[2]
    with pytest.raises(SourceError, match=r"none of the 2 clips can be scored: .*bad"):
        evaluate_clips([contender()], places[:2], ahead=Ahead.in_frames(HORIZON))
    with pytest.raises(SourceError, match="give a longer clip"):
        evaluate_clips([contender()], places[1:2], ahead=Ahead.in_frames(HORIZON))


def test_frames(contender: MakeContender, moving_frames: Moving, write_clip: Write) -> None:
    clip = str(write_clip("clip", moving_frames(20)))
    seen: list[tuple[float, str]] = []
    results = evaluate_clips(
        [contender()],
        [clip],
        ahead=Ahead.in_frames(1),
        frames=12,
        advance=lambda share, what: seen.append((share, what)),
    )
    assert results.clips[0].frames == 12
    assert seen[-2:] == [(1.0, "clip: frame 12 of 12"), (1.0, "clip: done")]


def test_progress_advances_with_each_frame(
    contender: MakeContender, moving_frames: Moving, write_clip: Write, tmp_path: Path
) -> None:
    """Each clip counts equally: an image folder, its glob, a video, and a clip that is too short and is skipped."""
    folder = str(write_clip("clip", moving_frames(20)))
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25, (56, 40))
    for frame in moving_frames(10, 1):
        writer.write(frame)
    writer.release()
    shares: list[float] = []
    places = [folder, f"{folder}/*.png", str(video), "synthetic://?size=56x40&frames=2"]
    results = evaluate_clips(
        [contender()], places, ahead=Ahead.in_frames(1), advance=lambda share, what: shares.append(share)
    )
    assert len(results.clips) == 3
    assert shares == pytest.approx(
        [
            *(k / 80 for k in [*range(1, 21), 20]),
            *(0.25 + k / 80 for k in [*range(1, 21), 20]),
            *(0.5 + k / 40 for k in [*range(1, 11), 10]),
            *(0.875, 1.0, 1.0),
        ]
    )


def test_a_fallback_to_copying_is_counted(contender: MakeContender, moving_frames: Moving, write_clip: Write) -> None:
    """A watched model that predicts worse than copying is replaced by the copy; rivals and bare models never are."""
    bad, bare = Predictor(TrendEngine(-3.0)), contender("bare", share=-3.0)
    clip = str(write_clip("clip", moving_frames(40)))
    results = evaluate_clips([Contender("bad", "bad", bad), bare], [clip], ahead=Ahead.in_frames(2))
    share = results.copied("bad")
    assert share is not None
    assert 0.5 < share < 1
    assert results.copied("bare") == results.copied("linear") == 0
    assert [model["copied"] for model in results.to_dict()["models"]] == [share, 0]
    said = notes(results)
    assert any(line.startswith(f"bad fell back to copying for {100 * share:.1f} % of its pictures") for line in said)
    assert "bare never fell back to copying the last frame" in said


def test_a_camera_is_refused(contender: MakeContender, monkeypatch: pytest.MonkeyPatch) -> None:
    live = open_source("synthetic://?frames=20")
    live.live = True
    monkeypatch.setattr(clips_module, "open_source", lambda place: live)
    with pytest.raises(OptionError, match="is a camera: record it first"):
        evaluate_clips([contender()], ["0"], ahead=Ahead.in_frames(1))


def test_models_must_take_the_same_picture(contender: MakeContender, any_size: Contender) -> None:
    both = [contender("a"), contender("b", order="RGB")]
    assert common_size(both) == common_size([any_size, *both]) == (WIDTH, HEIGHT)
    assert common_size(both, (WIDTH, HEIGHT)) == (WIDTH, HEIGHT)
    assert common_size([any_size]) is None
    assert common_size([any_size], (64, 48)) == (64, 48)
    grey = Contender("grey", "grey", contender(order="GRAY").predictor)
    with pytest.raises(OptionError, match=r"grey takes 28×20 grey, a takes 28×20: .*same resolution"):
        common_size([contender("a"), grey])
    with pytest.raises(OptionError, match=r"grey takes 28×20 grey, fade takes any size: .*same resolution"):
        common_size([any_size, grey])
    with pytest.raises(OptionError, match=r"a takes 28×20 only: leave out the size"):
        common_size([any_size, contender("a")], (64, 48))
    with pytest.raises(OptionError, match=r"cannot compare at 64×8: a side must be at least 12 pixels"):
        common_size([any_size], (64, 8))


def test_a_model_of_any_size_is_compared_at_the_clip_s_size(
    any_size: Contender, contender: MakeContender, moving_frames: Moving, write_clip: Write
) -> None:
    """Clips of different sizes share a table; next to a fixed-size model, that model's size is used."""
    frames = moving_frames(24)
    clips = [str(write_clip("whole", frames)), str(write_clip("part", [frame[:30, :44] for frame in frames]))]
    results = evaluate_clips([any_size], clips, ahead=Ahead.in_frames(2))
    assert [clip.size for clip in results.clips] == [(56, 40), (44, 30)]
    assert results.size is None
    assert results.clips[1].strip.last.shape == (30, 44, 3)
    for clip, seen in zip(results.clips, (frames, [frame[:30, :44] for frame in frames]), strict=True):
        for k in (1, 2):
            scores = []
            for t in (t for t in range(8, 24) if not np.array_equal(seen[t], seen[t - 1])):
                last, before = (seen[max(t - k - i, 0)].astype(np.float32) for i in (0, 1))
                scores.append(psnr(np.rint(last + 0.4 * k * (last - before)).clip(0, 255).astype(np.uint8), seen[t]))
            assert results.of(clip.values, "fade", "psnr")[k - 1] == pytest.approx(np.mean(scores), abs=1e-3)
    small = evaluate_clips([any_size], clips, ahead=Ahead.in_frames(1), size=(32, 24))
    assert small.size == (32, 24)
    both = evaluate_clips([any_size, contender(share=0.4)], clips, ahead=Ahead.in_frames(1))
    assert both.size == (WIDTH, HEIGHT)
    for clip in both.clips:  # the two models compute the same
        assert both.of(clip.values, "fade", "psnr") == pytest.approx(both.of(clip.values, "trend", "psnr"), abs=0.02)


def test_a_clip_that_is_too_small_is_skipped(any_size: Contender, moving_frames: Moving, write_clip: Write) -> None:
    tiny = str(write_clip("tiny", [frame[:9, :20] for frame in moving_frames(14)]))
    with pytest.raises(SourceError, match="too small to compare: a side must be at least 12 pixels"):
        evaluate_clips([any_size], [tiny], ahead=Ahead.in_frames(1))


def test_milliseconds_are_scored_at_the_nearest_frame(
    any_size: Contender, contender: MakeContender, moving_frames: Moving, write_clip: Write
) -> None:
    """A folder of images plays at 25 frames a second, so the nearest frames are at multiples of 40 ms."""
    clip = str(write_clip("clip", moving_frames(26)))
    ahead = Ahead.in_seconds([0.01, 0.04, 0.11, 0.24])
    models = [any_size, contender()]
    results = evaluate_clips(models, [clip], ahead=ahead)
    frames = evaluate_clips(models, [clip], ahead=Ahead.in_frames(6))
    assert results.clips[0].ahead_ms == pytest.approx((40, 40, 120, 240))
    assert frames.clips[0].ahead_ms == pytest.approx((40, 80, 120, 160, 200, 240))
    for method in results.methods:
        for metric in results.metrics:
            by_frame = figure(frames, method, metric)
            assert figure(results, method, metric) == [by_frame[0], by_frame[0], by_frame[2], by_frame[5]]
    assert results.clips[0].strip.labels == ("10 ms ahead", "240 ms ahead")


def test_missing_frames_do_not_shift_the_moments(
    any_size: Contender, moving_frames: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fifth frame is missing. Models and rivals still predict exactly 80 ms ahead, which is scored."""
    frames = [frame for i, frame in enumerate(moving_frames(60)) if i % 7 != 6]
    taken = [i for i in range(len(frames)) if i % 5 != 4]
    source = ListSource([Frame(frames[i], i / 25, n) for n, i in enumerate(taken)], name="gaps")
    monkeypatch.setattr(clips_module, "open_source", lambda place: source)
    results = evaluate_clips([any_size], ["gaps"], ahead=Ahead.in_seconds([0.08]))
    assert results.clips[0].ahead_ms == pytest.approx((80,))
    copied, linear = [], []
    for n, i in enumerate(taken):
        if n >= 8 and i - 2 in taken:
            before = taken[taken.index(i - 2) - 1]
            last, earlier = frames[i - 2].astype(np.float64), frames[before].astype(np.float64)
            steps = 2 / (i - 2 - before)
            guess = np.rint(last + steps * (last - earlier)).clip(0, 255).astype(np.uint8)
            copied.append(psnr(frames[i - 2], frames[i]))
            linear.append(psnr(guess, frames[i]))
    assert results.clips[0].scored == (len(copied),)
    assert figure(results, "copy-last", "psnr")[0] == pytest.approx(np.mean(copied))
    assert figure(results, "linear", "psnr")[0] == pytest.approx(np.mean(linear), abs=1e-3)


def test_cost_is_measured_beside_quality(
    any_size: Contender, contender: MakeContender, moving_frames: Moving, write_clip: Write
) -> None:
    """The clock counts network steps: a rollout to the third frame costs three, a motion model none."""

    model = contender()
    trend = model.predictor.engine
    assert isinstance(trend, TrendEngine)

    class Counting(ManualClock):
        def cpu(self) -> float:
            return 1e-3 * cast(TrendEngine, trend).steps

    clip = str(write_clip("clip", moving_frames(26)))
    results = evaluate_clips([model, any_size], [clip], ahead=Ahead.in_frames(3), clock=Counting())
    assert results.cpu_ms("trend") == pytest.approx([1, 2, 3])  # the first needs no extra step
    assert results.cpu_ms("fade") == [0, 0, 0]
    real = evaluate_clips([model, any_size], [clip], ahead=Ahead.in_seconds([0.04, 0.08]))
    for method in real.methods:
        spent, ratio = real.cpu_ms(method), real.cpu_to_dis(method)
        assert spent is not None
        assert ratio is not None
        assert np.isfinite([*spent, *ratio]).all()
        assert min(spent) >= 0
    assert real.cpu_to_dis("dis-flow") == [1, 1]


def test_folders(tmp_path: Path) -> None:
    videos, images, both, empty = (tmp_path / name for name in ("videos", "images", "both", "empty"))
    for folder in (videos, images, both, empty):
        folder.mkdir()
    for path in (
        videos / "b.mp4",
        videos / "a.MKV",
        videos / "notes.txt",
        images / "0.png",
        both / "a.avi",
        both / "0.png",
    ):
        path.touch()
    found = find_clips([str(videos), str(images), "demo", str(videos / "b.mp4")])
    assert found == [str(videos / "a.MKV"), str(videos / "b.mp4"), str(images), "demo"]
    for folder, message in ((both, "both videos and images"), (empty, r"looked for \.avi")):
        with pytest.raises(SourceError, match=message):
            find_clips([str(folder)])
    with pytest.raises(SourceError, match="no clips given"):
        find_clips([])

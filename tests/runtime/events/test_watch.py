"""A watch's events and lookaheads for streams whose events are known."""

from __future__ import annotations

import pickle
from itertools import pairwise

import cv2
import numpy as np
import pytest

from framecast.runtime.events import Watch

from .streams import INTERVAL, kinds, moving, picture, watched  # noqa: TID252

DOUBLED = [k // 2 for k in range(60)]
TRIPLED = [k // 3 for k in range(75)]
EVERY_4TH = [k * 4 // 5 for k in range(100)]
PULLDOWN = [k * 2 // 5 for k in range(100)]  # 24 frames a second shown at 60: alternately two and three times
HALF_RATE = [k // 2 * 2 for k in range(60)]  # a sensor at half the stream's rate
STALLED_5TH = [k - (k % 5 == 4) for k in range(100)]
PATTERNS = {
    "doubled": DOUBLED,
    "tripled": TRIPLED,
    "every 4th": EVERY_4TH,
    "pulldown": PULLDOWN,
    "half rate": HALF_RATE,
    "stalled 5th": STALLED_5TH,
}


def truth(indices: list[int]) -> str:
    return "f" + "".join("n" if b != a else "r" for a, b in pairwise(indices))


@pytest.mark.parametrize("name", PATTERNS)
def test_repeats_in_a_pattern_are_recognised_and_foreseen(name: str) -> None:
    indices = PATTERNS[name]
    events, aheads = watched(moving(indices))
    assert kinds(events)[5:] == truth(indices)[5:]
    settled = len(indices) // 2
    for event, ahead in list(zip(events, aheads, strict=True))[settled:]:
        assert (ahead == 0) == (event.kind == "repeat")  # no lookahead for a repeat


@pytest.mark.parametrize("name", PATTERNS)
def test_a_new_picture_lies_as_far_ahead_as_its_motion_says(name: str) -> None:
    """The velocity (motion divided by ``elapsed``) times ``ahead`` is the next motion, in every pattern."""
    indices = PATTERNS[name]
    events, aheads = watched(moving(indices))
    moved = [b - a for a, b in pairwise(indices)]
    velocity = 0.0
    for k in range(1, len(indices)):
        if events[k].kind != "new":
            continue
        if k > len(indices) * 2 // 3:
            assert velocity * aheads[k] == pytest.approx(moved[k - 1], rel=0.1)
        velocity = moved[k - 1] / events[k].elapsed


def test_ahead_follows_the_pattern_for_any_moment() -> None:
    watch = Watch()
    frames = moving(DOUBLED)
    watched(frames, watch=watch)  # the newest frame is a repeat
    now = (len(frames) - 1) * INTERVAL
    for arrivals, pictures in ((0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (9, 5)):
        for early in (-0.2, 0.0, 0.2):  # near a frame's time: exactly that frame
            ahead = watch.ahead(now + (arrivals + early) * INTERVAL)
            assert ahead == pytest.approx(pictures * 2 * INTERVAL)
    half = watch.ahead(now + 0.5 * INTERVAL)
    assert half == pytest.approx(INTERVAL)  # halfway between two frames


def test_without_repeats_ahead_is_time() -> None:
    watch = Watch()
    frames = moving(range(20))
    events, _ = watched(frames, watch=watch)
    assert kinds(events) == "f" + "n" * 19
    assert all(event.elapsed == pytest.approx(INTERVAL) for event in events[1:])
    assert all(event.image is frame for event, frame in zip(events, frames, strict=True))
    for wait in (-0.1, 0.0, 0.001, 0.017, 0.04, 0.5):
        assert watch.ahead(19 * INTERVAL + wait) == pytest.approx(max(wait, 0.0))
    assert watch.finish(frames[3], 1.0) is frames[3]


def test_a_pattern_of_which_half_is_seen() -> None:
    """Every second frame is lost on the way. The watch predicts only frames that will arrive."""
    indices = [k // 2 for k in range(80)]
    times = [k * 2 * INTERVAL for k in range(80)]
    events, aheads = watched(moving(indices), times)
    for event, ahead in list(zip(events, aheads, strict=True))[40:]:
        assert ahead == pytest.approx(0 if event.kind == "repeat" else 4 * INTERVAL)


@pytest.mark.parametrize("seed", range(4))
def test_random_repeats_are_recognised_but_not_foreseen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    indices = list(range(8))
    for k in range(8, 100):
        indices.append(indices[-1] if rng.random() < 0.3 else k)
    events, aheads = watched(moving(indices))
    assert kinds(events)[5:] == truth(indices)[5:]
    after_new = [a for event, a in zip(events[20:], aheads[21:], strict=False) if event.kind == "new"]
    assert np.mean([a == pytest.approx(INTERVAL) for a in after_new]) > 0.9


def test_motion_follows_time_where_frames_are_missing() -> None:
    shown = [k for k in range(120) if k % 7 not in (3, 4)]
    events, _ = watched(moving(shown), [k * INTERVAL for k in shown])
    assert kinds(events) == "f" + "n" * (len(shown) - 1)
    for k in range(1, len(shown)):
        assert events[k].elapsed == pytest.approx((shown[k] - shown[k - 1]) * INTERVAL)


def test_times_that_jitter_do_not_jitter_the_motion() -> None:
    rng = np.random.default_rng(0)
    times = [(k + rng.uniform(-0.2, 0.2)) * INTERVAL for k in range(60)]
    events, _ = watched(moving(range(60)), times)
    assert kinds(events) == "f" + "n" * 59
    assert all(event.elapsed == pytest.approx(INTERVAL, rel=0.15) for event in events[20:])


def test_a_cut_each_second_is_found_and_is_no_repeat() -> None:
    frames = [image for scene in range(5) for image in moving(range(25), scene=scene)]
    events, _ = watched(frames)
    assert kinds(events) == "f" + "n" * 24 + ("c" + "n" * 24) * 4


def test_fast_motion_is_no_cut() -> None:
    events, _ = watched(moving(range(30), speed=12))
    assert set(kinds(events)[1:]) == {"n"}


def test_a_gap_is_much_longer_than_usual() -> None:
    times = [k * INTERVAL for k in range(40)]
    for lost, kind in ((15, "n"), (17, "g")):
        late = [t + (lost * INTERVAL if k >= 20 else 0.0) for k, t in enumerate(times)]
        events, _ = watched(moving(range(40)), late)
        assert kinds(events) == "f" + "n" * 19 + kind + "n" * 19
    slow = [k * 30.0 for k in range(12)]  # a constant interval of 30 s soon counts as usual
    assert kinds(watched(moving(range(12)), slow)[0]).endswith("nnnnnn")
    uneven = np.cumsum([0.04, 0.2] * 10).tolist()
    assert kinds(watched(moving(range(20)), uneven)[0]).endswith("n" * 16)


def test_a_still_scene_with_noise_has_no_repeats() -> None:
    rng = np.random.default_rng(1)
    still = picture(0).astype(np.float32)
    frames = [np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8) for _ in range(60)]
    events, aheads = watched(frames)
    assert kinds(events) == "f" + "n" * 59
    assert aheads[30] == pytest.approx(INTERVAL)


def test_a_scene_that_stops_is_copied_and_is_no_cadence() -> None:
    stop, go = 30, 60
    indices = [*range(stop), *[stop - 1] * (go - stop), *range(stop, stop + 30)]
    events, aheads = watched(moving(indices))
    assert kinds(events)[:stop] == "f" + "n" * (stop - 1)
    assert "c" not in kinds(events)
    assert all(ahead == 0 for ahead in aheads[stop + 3 : stop + 9])
    assert set(kinds(events)[go:]) == {"n"}
    assert all(ahead == pytest.approx(INTERVAL) for ahead in aheads[go + 3 :])


def test_where_frames_are_dropped_no_more_the_next_one_is_no_repeat() -> None:
    """A slow model took every sixth frame: the frame after the last of them has moved by a sixth of the usual."""
    indices = [*range(0, 120, 6), *range(115, 125)]
    noise = np.random.default_rng(1).integers(0, 256, (4, 12, 3), np.uint8)
    smooth = cv2.resize(noise, (320, 96), interpolation=cv2.INTER_CUBIC)
    events, _ = watched(
        [np.asarray(smooth[:, k : k + 128], np.uint8) for k in indices], [k * INTERVAL for k in indices]
    )
    assert kinds(events) == "f" + "n" * (len(indices) - 1)


def test_a_nearly_still_opening_is_not_taken_for_repeats() -> None:
    positions = np.cumsum([0] * 8 + [1] * 10 + [3] * 30)
    rng = np.random.default_rng(2)
    frames = [np.clip(picture(int(p)) + rng.normal(0, 1.5, (120, 160, 3)), 0, 255).astype(np.uint8) for p in positions]
    assert set(kinds(watched(frames)[0])[1:]) == {"n"}


def test_equal_frames_are_repeats_from_the_start() -> None:
    still = picture(0)
    events, aheads = watched([still.copy() for _ in range(30)])
    assert kinds(events) == "f" + "r" * 29
    assert all(ahead == 0 for ahead in aheads[4:])


def test_a_pattern_survives_a_pause_in_the_motion() -> None:
    indices = [k // 2 for k in range(40)] + [19] * 6 + [20 + k // 2 for k in range(30)]
    events, _ = watched(moving(indices))
    assert kinds(events)[5:] == truth(indices)[5:]


def test_reset_forgets_the_stream() -> None:
    frames = moving(EVERY_4TH)
    watch = Watch()
    before = watched(frames, watch=watch)
    watch.reset()
    after = watched(moving([0, *range(200, 215)]), watch=watch)
    assert kinds(after[0]) == "f" + "c" + "n" * 14 or kinds(after[0]) == "f" + "n" * 15
    watch.reset()
    again = watched(frames, watch=watch)
    assert (kinds(again[0]), again[1]) == (kinds(before[0]), before[1])


def test_two_streams_do_not_meet() -> None:
    streams = moving(DOUBLED), moving(range(60), scene=1)
    alone = [watched(frames) for frames in streams]
    watches = Watch(), Watch()
    for k in range(60):
        for frames, watch, (events, _) in zip(streams, watches, alone, strict=True):
            event = watch.see(frames[k], k * INTERVAL, INTERVAL)
            assert (event.kind, event.elapsed) == (events[k].kind, events[k].elapsed)


def test_pictures_of_any_size_and_content() -> None:
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (2, 3), (7, 900), (900, 7)):
        for frames in (
            [np.full((*shape, 3), k * 5 % 256, np.uint8) for k in range(30)],
            [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(30)],
        ):
            watch = Watch()
            for k, frame in enumerate(frames):
                event = watch.see(frame, k * INTERVAL, INTERVAL)
                assert np.isfinite([event.elapsed, watch.ahead(k * INTERVAL + 1)]).all()
                assert watch.finish(event.image, (k + 3) * INTERVAL).shape == frame.shape


def test_a_frame_of_another_size_begins_a_new_stream() -> None:
    watch = Watch()
    watched(moving(range(10)), watch=watch)
    assert watch.see(np.zeros((60, 160, 3), np.uint8), 1.0, INTERVAL).kind == "first"


def test_memory_is_bounded() -> None:
    watch = Watch()
    frames = moving(range(20))
    sizes = []
    for k in range(300):
        watch.see(frames[k % 20], k * INTERVAL, INTERVAL)
        watch.ahead(k * INTERVAL + 4)
        if k in (149, 299):
            sizes.append(len(pickle.dumps(watch)))
    assert sizes[1] <= sizes[0] * 1.02


def test_what_slows_down_moves_on() -> None:
    """A pan that gradually slows from 6 pixels a frame to half a pixel, and then keeps that speed."""
    speeds = [6.0] * 30 + [6.0 * 0.85**k for k in range(16)] + [0.5] * 20
    places = np.cumsum([0.0, *speeds])
    base = picture(0)
    rows, columns = np.mgrid[: base.shape[0], : base.shape[1]].astype(np.float32)
    watch, found = Watch(), []
    for k, place in enumerate(places):
        shifted = cv2.remap(base, columns + np.float32(place), rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
        found.append(watch.see(np.asarray(shifted, np.uint8), k * INTERVAL, INTERVAL).kind)
    assert found.count("repeat") <= 2

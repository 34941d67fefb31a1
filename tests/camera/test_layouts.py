"""Data sets by the layout of their folders, on small made-up trees."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.camera import open_source
from framecast.camera.layouts import LAYOUTS, Clip, centre, find_in_layout
from framecast.cli.complete import LAYOUTS_HELP, complete_layouts
from framecast.errors import OptionError, SourceError

KTH = "boxing/person{}_boxing_d1_uncomp.avi"
KITTI = "2011_09_26/2011_09_26_drive_{}_sync/image_{}/data/0000000000.png"
TREES: dict[str, tuple[Iterable[str], list[str], list[str]]] = {
    "kth": (
        [*(KTH.format(n) for n in ("01", "16", "17", "25")), "walking/person20_walking_d4_uncomp/image_0001.png"],
        [KTH.format("01"), KTH.format("16")],
        [KTH.format("17"), KTH.format("25"), "walking/person20_walking_d4_uncomp"],
    ),
    "ucf-sports": (
        # As published: a folder for each clip, with images, a video of them, or both; boxes in gt.
        [
            *("ucf action/Diving-Side/001/1-0001.png", "ucf action/Diving-Side/001/gt/1.txt"),
            *("ucf action/Diving-Side/005/a.avi", "ucf action/Diving-Side/005/jpeg/1.png"),
            *("ucf action/Golf-Swing-Back/010/jpeg/1.png", "ucf action/Walk-Front/022/x.avi"),
        ],
        ["ucf action/Diving-Side/001", "ucf action/Walk-Front/022/x.avi"],
        ["ucf action/Diving-Side/005/a.avi", "ucf action/Golf-Swing-Back/010/jpeg"],
    ),
    "human36m": (
        [
            *("S1/Videos/Directions 1.54138969.mp4", "S1/Videos/_ALL.54138969.mp4", "S8/Waiting.60457274.mp4"),
            *("S9/Videos/Directions.54138969.mp4", "S11/Videos/Walking.60457274.mp4", "S10/Walking.60457274.mp4"),
        ],
        ["S1/Videos/Directions 1.54138969.mp4", "S8/Waiting.60457274.mp4"],
        ["S11/Videos/Walking.60457274.mp4", "S9/Videos/Directions.54138969.mp4"],
    ),
    "sjtu4k": (
        ["Campfire_Party.mp4/1.png", "Wood_3840x2160_30fps.mp4", "Traffic_Flow.mp4", "Traffic_Building.mp4/77.png"],
        ["Campfire_Party.mp4", "Wood_3840x2160_30fps.mp4"],
        ["Traffic_Building.mp4", "Traffic_Flow.mp4"],
    ),
    "kitti-caltech": (
        [
            *(KITTI.format(*drive) for drive in (("0001", "03"), ("0001", "02"), ("0104", "03"), ("0005", "03"))),
            *("set06/V000.avi", "set10/V011/0.png", "set05/V000.avi"),
        ],
        [KITTI.format("0001", "03").rpartition("/")[0]],
        ["set06/V000.avi", "set10/V011"],
    ),
}


def test_every_layout_has_a_tree() -> None:
    assert TREES.keys() == LAYOUTS.keys()
    assert all(name in LAYOUTS_HELP for name in LAYOUTS)
    assert complete_layouts("k") == ["kth", "kitti-caltech"]


@pytest.mark.parametrize("name", TREES)
def test_clips_to_train_and_to_test_with(name: str, tmp_path: Path) -> None:
    files, train, test = TREES[name]
    for file in files:
        path = tmp_path / "Data set" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = tmp_path / "Data set"
    layout = LAYOUTS[name]
    for part, wanted, use in ((layout.train, train, False), (layout.test, test, True)):
        found = find_in_layout(folder, name, test=use)
        assert [clip.name for clip in found] == wanted
        assert {(clip.every, clip.crop) for clip in found} == {(part.every, layout.crop)}
        assert [clip.path for clip in found] == [folder / one for one in wanted]
        assert part.clips.fullmatch(part.example)


def test_one_action_of_a_data_set_will_do(tmp_path: Path) -> None:
    (tmp_path / "Kicking-Side" / "005").mkdir(parents=True)
    (tmp_path / "Kicking-Side" / "005" / "1.png").touch()
    (clip,) = find_in_layout(tmp_path / "Kicking-Side", "ucf-sports", test=True)
    assert clip.name == "005"


def test_another_layout_is_one_line_that_names_what_was_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.avi").touch()
    with pytest.raises(SourceError, match=r"no clip to test with in .*: none of the 1 clips .* boxing/person17_boxing"):
        find_in_layout(tmp_path, "kth", test=True)
    with pytest.raises(SourceError, match=r"no clip to train with in .* boxing/person01_boxing"):
        find_in_layout(tmp_path, "kth", test=False)
    with pytest.raises(SourceError, match=r"a\.avi is not a folder: give the folder of kth"):
        find_in_layout(tmp_path / "a.avi", "kth", test=True)
    with pytest.raises(OptionError, match="no layout 'bair': there are kth, ucf-sports"):
        find_in_layout(tmp_path, "bair", test=True)


def test_frames_are_left_out_and_cut_around_the_centre(tmp_path: Path) -> None:
    for index in range(7):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 60, 3), index, np.uint8))
    frames = list(Clip("a", tmp_path, every=3, crop=True).frames((32, 16)))
    assert [(frame.shape, frame[0, 0, 0]) for frame in frames] == [((20, 40, 3), 0), ((20, 40, 3), 3), ((20, 40, 3), 6)]
    assert [frame.shape for frame in Clip("a", tmp_path, every=6).frames((32, 16))] == [(20, 60, 3)] * 2
    ramp = np.arange(60, dtype=np.uint8)[None, :, None].repeat(20, 0)
    assert (centre(ramp, (1, 1))[0, :, 0] == np.arange(20, 40)).all()
    assert centre(ramp, (60, 1)).shape == (1, 60, 1)


def test_a_camera_is_no_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("synthetic://?frames=20")
    source.live = True
    monkeypatch.setattr("framecast.camera.layouts.open_source", lambda place: source)
    with pytest.raises(OptionError, match="camera: record it first"):
        next(Clip("live", "0").frames((8, 8)))

"""The graphs of edge are the OpenCV form, stage by stage, given the same flow."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.camera.source import Image
from framecast.models.edge_graph import Edge, EdgeConfig
from framecast.models.mixing import products, updated, weights
from framecast.runtime.motion import Motion, Seen, learn, motion, trajectory
from framecast.runtime.motion.lattice import Lattice

SIZE = (426, 320)  # no multiple of the lattice's cells
STEP = 0.04  # seconds


def scene(count: int, seed: int = 0) -> list[Image]:
    """Frames of a smooth picture that turns, zooms and gains speed, with a little noise."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    coarse = rng.integers(0, 256, (height // 10, width // 10, 3)).astype(np.uint8)
    wide = cv2.GaussianBlur(cv2.resize(coarse, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC), (0, 0), 3)
    frames = []
    for i in range(count):
        turn = cv2.getRotationMatrix2D((float(width), float(height)), 0.5 * i, 1 + 0.004 * i)
        turn[:, 2] += (-width / 2 + 1.5 * i + 0.1 * i * i, -height / 2 - 1.0 * i)
        frame = cv2.warpAffine(wide, turn, SIZE, flags=cv2.INTER_LINEAR).astype(np.float32)
        frames.append((frame + rng.normal(0, 2, frame.shape)).clip(0, 255).astype(np.uint8))
    return frames


def tensor(image: NDArray[np.generic]) -> Tensor:
    """A picture [H, W, C] of 0 to 255 as [1, C, H, W] of 0 to 1."""
    values = np.asarray(image, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values[..., :3].transpose(2, 0, 1)[None] / 255))


def planes(values: NDArray[np.generic]) -> Tensor:
    """[h, w, C] as [1, C, h, w]."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(values, np.float32).transpose(2, 0, 1)[None]))


def back(values: Tensor) -> NDArray[np.float32]:
    """[1, C, h, w] as [h, w, C]."""
    return values[0].permute(1, 2, 0).numpy()


def time(seconds: float) -> Tensor:
    return torch.full((1, 1), seconds)


@pytest.fixture(autouse=True)
def _inference(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(motion, "SMALL", 0)  # the mixture of large pictures
    with torch.inference_mode():
        yield


@pytest.fixture
def opencv() -> Motion:
    width, height = SIZE
    return Motion(width, height)


@pytest.fixture
def graphs() -> Edge:
    width, height = SIZE
    return Edge(EdgeConfig(height, width, reach=4)).eval()


def seen_of(opencv: Motion, frames: list[Image], ahead: float = STEP) -> Seen:
    seen = None
    for frame in frames:
        seen = opencv.perceive(seen, frame, STEP)
        opencv.render(seen, ahead)
    assert seen is not None
    return seen


def test_trajectories_are_the_same(opencv: Motion, graphs: Edge) -> None:
    field = seen_of(opencv, scene(4)).moments[0].motion
    assert field is not None
    for ahead in (0.5 * STEP, STEP, 4 * STEP):
        wanted = trajectory.displacement(field.velocity, ahead, opencv.lattice.grid, field.elapsed)
        extra = trajectory.gained(field, ahead, opencv.lattice.grid + wanted)
        given = planes(field.velocity), planes(field.acceleration), time(field.elapsed), time(ahead)
        found, more = graphs.trajectories(*given)
        assert np.abs(back(found[:, :, 0]) - wanted).max() < 0.02  # OpenCV reads between pixels in steps of 1/32
        assert np.abs(back(more[:, :, 0]) - extra).max() < 0.02  # OpenCV reads between pixels in steps of 1/32


def test_samples_are_the_same(opencv: Motion, graphs: Edge) -> None:
    moment = seen_of(opencv, scene(4)).moments[0]
    assert moment.motion is not None
    wanted = opencv._mixture.told(moment, moment.motion, STEP)
    pictures = tensor(moment.picture), tensor(moment.blurred), tensor(moment.filtered)
    field = planes(moment.motion.velocity), planes(moment.motion.acceleration)
    told = graphs.samples(pictures, *graphs.trajectories(*field, time(STEP), time(STEP)))
    error = np.abs(255 * told[0, :, :, 0].permute(0, 2, 3, 1).numpy() - wanted)
    print("told", error.max(axis=(1,2,3)), error.mean(axis=(1,2,3)))
    came = opencv._mixture.sampled(moment.picture)
    assert np.abs(255 * back(graphs.samples.taken(tensor(moment.picture))) - came).max() < 1e-3


def test_chain(opencv: Motion, graphs: Edge, monkeypatch) -> None:
    frames = scene(12)
    flows = []
    real = opencv._flow
    def spied(now, before):
        flows.append(real(now, before)); return flows[-1]
    opencv._flow = spied
    class Told(torch.nn.Module):
        def forward(self, *_): return planes(flows[-1]) if flows else torch.zeros(1,2,*reversed(opencv.lattice.coarse))
    graphs.flow = Told()
    seen = None; state = graphs.init_state()
    for i, frame in enumerate(frames):
        seen = opencv.perceive(seen, frame, STEP)
        fields, written = graphs.perceive(tensor(frame), torch.tensor([STEP]), state)
        new = {n: written[n] for n in graphs.state_shapes}
        for name in graphs.histories:
            values = [written[name], *graphs.past(state, name)[:-1]]
            new |= {f"{name}.{age}": v for age, v in enumerate(values)}
        state = new
        m = seen.moments[0]
        out = [i]
        out.append(("filt", np.abs(255*back(written["filtered"])-m.filtered[...,:3]).max(), np.abs(255*back(written["filtered"])-m.filtered[...,:3]).mean()))
        if m.motion is not None:
            out.append(("vel", np.abs(back(written["velocity"])-m.motion.velocity).max()))
            out.append(("acc", np.abs(back(fields["acceleration"])-m.motion.acceleration).max()/ (np.abs(m.motion.acceleration).max()+1e-9)))
        for j,k in enumerate(graphs.horizons):
            if k in seen.statistics:
                a=seen.statistics[k]; b=written["statistics"][0,j].numpy()
                out.append(("stat",k,np.abs(a-b).max(), np.abs(a).max()))
                w=opencv._weights(seen,k); out.append(("w",k,np.abs(w-fields["weights"][0,j].permute(1,2,0).numpy()).max(), np.abs(w).max()))
        for ahead in (0.0, 0.5*STEP, STEP,1.5*STEP, 2*STEP,4*STEP):
            pic=opencv.render(seen,ahead)
            got=graphs.render({**fields, **graphs.carried(written)}, torch.tensor([ahead]))
            d=np.abs(np.rint(255*back(got))-pic)
            out.append(("pic",ahead/STEP,d.max(),(d>1).mean(),d.mean()))
        print(*out,sep="\n   ")

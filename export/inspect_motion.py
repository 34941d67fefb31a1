"""``framecast inspect`` for the model of motion: the flow, the mixture of guesses, and the gain of each guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import DEFAULT_FPS, Frame, Image, Source, open_source
from framecast.errors import SinkError, SourceError
from framecast.export import inspect_pictures as pictures
from framecast.files import check_writable, write
from framecast.graph.manifest import Manifest, read_json
from framecast.runtime.motion import Motion
from framecast.runtime.report import to_json, versions
from framecast.runtime.score import psnr

FILES = ("motion.png", "weights.png", "inspect.json")
ROWS = 4  # moments to show
SHOWN = 4  # number of guesses to draw as maps of weights, the largest gains first
SETTLED = 8  # number of frames to skip at the start, while the mixture has not converged

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame, and the values inside the model after it.

    Attributes:
        frame: the real frame.
        prediction: prediction of the next frame, uint8 [H, W, 3] BGR.
        psnr: PSNR of the prediction in dB.
        flow: [h, w, 2], in pixels per second.
        weights: weights of each guess, [rows, columns].
    """

    frame: Frame
    prediction: Image
    psnr: float
    flow: Floats
    weights: dict[str, Floats]


@dataclass(eq=False)
class Course:
    """The values inside the model over a clip.

    Attributes:
        source: name of the clip.
        interval: seconds between its frames.
        frames: number of frames seen.
        moments: some of the frames whose prediction was scored, evenly spread.
        earned: for each guess and each scored frame, two values in dB: its gain over constant velocity if it is the
            only guess, and the loss if only this guess is left out. The entry "all" has the gain of all guesses.
    """

    source: str
    interval: float
    frames: int = 0
    moments: list[Moment] = field(default_factory=list)
    earned: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def worth(self, name: str) -> tuple[float, float]:
        """Return the means over frames of a guess's two values in :attr:`earned`, in dB."""
        alone, without = np.mean(self.earned[name], axis=0).tolist()
        return alone, without

    @property
    def ranked(self) -> list[str]:
        """The guesses, sorted by their gain alone, largest first."""
        return sorted((name for name in self.earned if name != "all"), key=lambda name: -self.worth(name)[0])


def watch(source: Source, frames: int) -> Course:
    """Predict up to ``frames`` frames of a clip, one frame ahead.

    Raises:
        SourceError: the source was lost, or has too few frames.
    """
    interval = 1 / (source.fps or DEFAULT_FPS)
    found, seen = Course(source.name, interval), None
    motion: Motion | None = None
    before: tuple[Frame, Image, dict[str, Floats], dict[str, tuple[float, float]]] | None = None
    stride = 1
    for count, frame in enumerate(islice(source, frames)):
        height, width = frame.image.shape[:2]
        motion = motion or Motion(width, height)
        seen = motion.perceive(seen, frame.image, interval)
        if before is not None and count >= SETTLED:
            last, prediction, fields, earned = before
            for name, gain in earned.items():
                found.earned.setdefault(name, []).append(gain)
            if (count - SETTLED) % stride == 0:
                flow = fields.pop("flow")
                found.moments.append(Moment(last, prediction, psnr(prediction, frame.image), flow, fields))
                if len(found.moments) == 4 * ROWS:  # enough to spread the rows evenly
                    found.moments, stride = found.moments[::2], 2 * stride
        before = frame, motion.render(seen, interval), motion.fields(seen, interval), motion.earned(seen, interval)
        found.frames += 1
    if not found.moments:
        raise SourceError(f"cannot inspect {source.name}: it has {found.frames} frames; give at least {SETTLED + 2}")
    chosen = np.linspace(0, len(found.moments) - 1, min(ROWS, len(found.moments))).round().astype(int)
    found.moments = [found.moments[i] for i in chosen]
    return found


def inspect(artifact: Path, source: str, folder: Path, frames: int) -> list[str]:
    """Inspect the model of motion over a clip, and write pictures and figures; return a report, line by line.

    Raises:
        ArtifactError: the file is not a manifest.
        SourceError: the source cannot be opened, was lost, or has too few frames.
        SinkError: the folder cannot be written.
    """
    manifest = read_json(artifact)
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"cannot write into {folder}: it is a file; give a folder with --output")
    with open_source(source) as opened:
        for name in FILES:
            check_writable(folder / name)
        found = watch(opened, frames)
    write(folder / "motion.png", pictures.png(draw(found, manifest)))
    write(folder / "weights.png", pictures.png(_weights(found, manifest)))
    write(folder / "inspect.json", f"{to_json(figures(found, manifest), indent=2)}\n".encode())
    gain = f"all guesses together gain {found.worth('all')[0]:.2f} dB over constant velocity"
    best = found.ranked[0]
    return [*(f"wrote {folder / name}" for name in FILES), f"{gain}; {best} alone {found.worth(best)[0]:.2f} dB"]


def draw(found: Course, manifest: Manifest) -> Image:
    """Draw a row per moment: frame, prediction, flow, and the weights of the guesses with the largest gain."""
    moments = found.moments
    times = [f"frame {m.frame.index}, {m.frame.time:.2f} s" for m in moments]
    fastest = max(float(np.percentile(np.linalg.norm(m.flow, axis=2), 99)) for m in moments)
    columns = [
        pictures.Column("input", "", [m.frame.image for m in moments], times),
        pictures.Column(
            "prediction", "next frame", [m.prediction for m in moments], [f"{m.psnr:.1f} dB" for m in moments]
        ),
        pictures.Column(
            "motion: colour is direction",
            f"full colour: {fastest:.0f} pixels/s",
            [flow_image(m.flow, fastest) for m in moments],
            [f"mean {float(np.linalg.norm(m.flow, axis=2).mean()):.0f} pixels/s" for m in moments],
        ),
    ]
    height, width = moments[0].frame.image.shape[:2]
    for name in found.ranked[:SHOWN]:
        maps = [m.weights[name] for m in moments]
        columns.append(pictures.maps(f"{name}: {found.worth(name)[0]:+.2f} dB alone", maps, (width, height)))
    return pictures.grid(
        columns, (width, height), f"{manifest.config} on {found.source}: motion, and weights of guesses"
    )


def flow_image(flow: Floats, fastest: float) -> Image:
    """Draw a flow [h, w, 2] as colours, uint8 [h, w, 3] BGR: the hue is the direction, the saturation the speed.

    Source: Baker et al., "A database and evaluation methodology for optical flow" (2011).
    """
    speed, angle = cv2.cartToPolar(np.ascontiguousarray(flow[..., 0]), np.ascontiguousarray(flow[..., 1]))
    hsv = np.full((*flow.shape[:2], 3), 255, np.uint8)
    hsv[..., 0] = np.rint(angle * (90 / np.pi)) % 180
    hsv[..., 1] = np.clip(np.rint(speed * (255 / max(fastest, 1e-6))), 0, 255)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)  # type: ignore[return-value]


def _weights(found: Course, manifest: Manifest) -> Image:
    """Draw each guess's mean weight at the moments shown, and its gain over the clip."""
    rows = [("all together", f"{found.worth('all')[0]:+.2f} dB", "", *("" for _ in found.moments))]
    for name in found.ranked:
        alone, without = found.worth(name)
        means = (f"{float(m.weights[name].mean()):+.2f}" for m in found.moments)
        rows.append((name, f"{alone:+.2f} dB", f"{-without:+.2f} dB", *means))
    head = ("guess", "gain over constant velocity", "without it", *(f"frame {m.frame.index}" for m in found.moments))
    return pictures.text_table(head, rows, f"{manifest.config} on {found.source}: mean weight of each guess")


def figures(found: Course, manifest: Manifest) -> dict[str, object]:
    """Return the numbers behind the pictures, for JSON."""
    return {
        "model": manifest.config,
        "source": found.source,
        "frames": found.frames,
        "interval_ms": 1e3 * found.interval,
        "earned_db": {
            name: dict(zip(("alone", "lost_without"), found.worth(name), strict=True)) for name in found.earned
        },
        "moments": [
            {
                "frame": m.frame.index,
                "time": m.frame.time,
                "psnr_db": m.psnr,
                "speed": float(np.linalg.norm(m.flow, axis=2).mean()),
                "weights": {name: float(weights.mean()) for name, weights in m.weights.items()},
            }
            for m in found.moments
        ],
        "versions": versions("opencv", cv2.__version__),
    }

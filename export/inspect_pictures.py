"""Pictures of ``framecast inspect``: heat maps beside frames, and tables of weights. Every picture is uint8 BGR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.export.inspection import Inspection
from framecast.runtime.engines.engine import Tensor
from framecast.runtime.sinks.picture import CAPTION, caption

WIDTH = 1800  # maximum width of a picture in pixels
TILE = (176, 256)  # minimum and maximum width of a tile: a caption must fit, and more pixels show no more detail
GAP = 4
CELL = (64, 30)  # width and height of a table's cell
LABEL = 70  # width of a table's row labels
CHANNELS = 3  # number of an encoder's channels to show beside the mean
TITLES = {
    "update": "update gate Z",
    "trend": "trend gate R",
    "forget": "forget gate F",
    "temporal fusion": "fusion over time",
    "spatial fusion": "fusion over layers",
    "temporal attention": "TAM: over time",
    "spatial attention": "SAM: over layers",
    "cell attention": "EIFAG: over time, mean over elements",
}
_LEAST = 1e-3  # minimum range of a colour scale: a smaller range would show only rounding errors
_BACK = (24, 20, 18)  # the background of captions


@dataclass(frozen=True, eq=False)
class Column:
    """A column of tiles.

    Attributes:
        title: content of the tiles.
        scale: range of values that the colours show.
        tiles: pictures at the model's size, [h, w, 3].
        captions: one caption per tile.
    """

    title: str
    scale: str
    tiles: Sequence[Image]
    captions: Sequence[str]


@dataclass(frozen=True, eq=False)
class Table:
    """The weights of one kind of attention.

    Attributes:
        title: name of the attention.
        slots: meaning of the columns.
        first: number of the first column.
        rows: weights of each layer by slot; some layers may have fewer slots than others.
        course: weights of the last layer at each step, [N, slots].
    """

    title: str
    slots: str
    first: int
    rows: Sequence[Sequence[float]]
    course: NDArray[np.float64]


def gates(found: Inspection) -> Image | None:
    """Draw a row per moment: frame, prediction, and the gates of the first, the middle and the last layer."""
    taps = found.taps("gates")
    if not taps:
        return None
    last = taps[-1].layer
    columns = _frames(found)
    for tap in taps:
        if tap.layer in (1, (last + 1) // 2, last):
            maps = [moment.maps[tap].mean(axis=0) for moment in found.moments]
            columns.append(_maps(found, f"layer {tap.layer}: {TITLES[tap.name]}", maps))
    return grid(columns, found.manifest.size, f"{_heading(found)}: gates, mean over channels")


def features(found: Inspection) -> Image | None:
    """Draw a row per moment: the frame, and each encoder's mean and its channels that vary most over a picture."""
    taps = found.taps("features")
    columns = _frames(found)[:1]
    for tap in taps:
        values = np.stack([moment.maps[tap] for moment in found.moments])  # [rows, C, h, w]
        columns.append(_maps(found, f"{tap.name}: mean", list(values.mean(axis=1))))
        strongest = np.argsort(-values.std(axis=(2, 3)).mean(axis=0), kind="stable")[:CHANNELS]
        columns += [_maps(found, f"{tap.name}: channel {c}", list(values[:, c])) for c in strongest]
    return grid(columns, found.manifest.size, f"{_heading(found)}: encoded features") if taps else None


def attention(found: Inspection) -> Image | None:
    """Draw a table per kind of attention, layers by slots, and below it the weights of its last layer over time."""
    taps = found.taps("attention")
    drawn = []
    for name in dict.fromkeys(tap.name for tap in taps):
        own = [tap for tap in taps if tap.name == name]
        down = name == "spatial attention"
        rows = [found.average(tap) for tap in own]
        course = np.array(found.courses[own[-1]])
        drawn.append(Table(TITLES[name], "layers down" if down else "steps back", 0 if down else 1, rows, course))
    return tables(drawn, f"{_heading(found)}: frames {found.settled} to {found.frames - 1}") if drawn else None


def _heading(found: Inspection) -> str:
    return f"{found.manifest.config} ({'trained' if found.manifest.trained else 'random'} weights) on {found.source}"


def _frames(found: Inspection) -> list[Column]:
    times = [f"frame {moment.index}, {moment.time:.2f} s" for moment in found.moments]
    predicted = [f"for frame {moment.index + 1}" for moment in found.moments]
    return [
        Column("input", "", [moment.input for moment in found.moments], times),
        Column("prediction", "", [moment.prediction for moment in found.moments], predicted),
    ]


def _maps(found: Inspection, title: str, maps: list[Tensor]) -> Column:
    """Draw maps, [h, w] over the network's whole frame, with one colour scale."""
    low, high = float(np.min(maps)), float(np.max(maps))
    frame = found.manifest.frame[2], found.manifest.frame[1]
    width, height = found.manifest.size
    tiles = [_scaled(_heat(values, low, high), frame)[:height, :width] for values in maps]  # without the padding
    return Column(title, f"{low:.3f} to {high:.3f}", tiles, [f"mean {values.mean():.3f}" for values in maps])


def maps(title: str, values: Sequence[NDArray[np.float32]], size: tuple[int, int]) -> Column:
    """Draw maps [rows, columns] over a whole picture of ``size`` (width, height), with one colour scale."""
    low, high = float(np.min(values)), float(np.max(values))
    tiles = [_scaled(_heat(one, low, high), size) for one in values]
    return Column(title, f"{low:.2f} to {high:.2f}", tiles, [f"mean {one.mean():.2f}" for one in values])


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], heading: str) -> Image:
    """Draw a table of texts under a heading."""
    wide = [max(LABEL, 14 + 7 * max(map(len, column))) for column in zip(head, *rows, strict=True)]
    lines = [np.hstack([caption(w, text) for w, text in zip(wide, row, strict=True)]) for row in (head, *rows)]
    return _below([caption(max(sum(wide), 14 + 7 * len(heading)), heading), *lines])


def grid(columns: Sequence[Column], size: tuple[int, int], heading: str) -> Image:
    """Draw columns side by side under a heading. Each column has its own colour scale; the legend says so.

    ``size`` is the (width, height) of the tiles' pictures.
    """
    width, height = size
    wide = min(max(width, TILE[0]), TILE[1], (WIDTH - GAP) // len(columns) - GAP)
    tile = wide, max(1, round(wide * height / width))
    parts = [_column(column, tile) for column in columns]
    body = _beside(parts)
    legend = _legend("from the smallest to the largest value of each column; see its title")
    return _below([caption(body.shape[1], heading), body, legend])


def _column(column: Column, size: tuple[int, int]) -> Image:
    parts = [caption(size[0], column.title), caption(size[0], column.scale)]
    for tile, text in zip(column.tiles, column.captions, strict=True):
        parts += [_scaled(tile, size), caption(size[0], text)]
    return _below(parts)


def tables(shown: Sequence[Table], heading: str) -> Image:
    """Draw tables side by side under a heading."""
    body = _beside([_table(table) for table in shown])
    legend = _legend("from 0 to twice an equal share per slot, or more; a layer's weights sum to 1")
    return _below([caption(body.shape[1], heading), body, legend])


def _table(table: Table) -> Image:
    slots = max(len(row) for row in table.rows)
    wide = LABEL + max(slots, 5) * CELL[0]
    names = [caption(CELL[0], str(table.first + slot)) for slot in range(slots)]
    parts = [caption(wide, table.title), np.hstack([caption(LABEL, table.slots), *names])]
    for layer, row in enumerate(table.rows, start=1):
        label = _framed(caption(LABEL, f"layer {layer}"), 0, 0, CELL[1] - CAPTION - 4, top=4)
        parts.append(np.hstack([label, *(_cell(value, 2 / len(row)) for value in row)]))
    steps, slots = table.course.shape
    strip = _scaled(_heat(table.course.T, 0, 2 / slots), (wide - LABEL, CAPTION * slots))
    names = [caption(LABEL, str(table.first + slot)) for slot in range(slots)]
    ends = f"layer {len(table.rows)} over the clip, frames 0 to {steps - 1}"
    parts += [caption(wide, ""), caption(wide, ends), np.hstack([np.vstack(names), strip])]
    return _below(parts)


def _cell(value: float, full: float) -> Image:
    cell = _scaled(_heat(np.array([[value]]), 0, full), CELL)
    ink = (20, 20, 20) if value > 0.6 * full else (235, 235, 235)
    text = f"{value:.3f}"
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    place = (CELL[0] - width) // 2, (CELL[1] + height) // 2
    cv2.putText(cell, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)
    cell[-1:], cell[:, -1:] = _BACK, _BACK
    return cell


def _heat(values: NDArray[Any], low: float, high: float) -> Image:
    """Convert values [h, w] to colours, uint8 [h, w, 3]."""
    scaled = np.clip(np.rint((values - low) * (255 / max(high - low, _LEAST))), 0, 255).astype(np.uint8)
    heat: Image = cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS)  # type: ignore[assignment]
    return heat


def _scaled(picture: Image, size: tuple[int, int]) -> Image:
    """Resize to ``size`` (width, height). Enlarged pixels stay squares."""
    shrinks = size[0] < picture.shape[1]
    scaled: Image = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)  # type: ignore[assignment]
    return scaled


def _legend(text: str) -> Image:
    """Draw a bar of all colours with a text that explains its ends."""
    ramp = _scaled(_heat(np.linspace(0, 1, 256)[None], 0, 1), (256, CAPTION - 10))
    return np.hstack([_framed(ramp, 6, 0, 5, top=5), caption(WIDTH // 3, text)])


def _beside(parts: Sequence[Image]) -> Image:
    """Join pictures side by side with a gap around each, padded to the height of the tallest."""
    tall = max(len(part) for part in parts)
    return np.hstack([_framed(part, GAP if i == 0 else 0, GAP, tall - len(part)) for i, part in enumerate(parts)])


def _below(parts: Sequence[Image]) -> Image:
    """Join pictures vertically, padded to the width of the widest."""
    wide = max(part.shape[1] for part in parts)
    return np.vstack([_framed(part, 0, wide - part.shape[1], 0) for part in parts])


def _framed(part: Image, left: int, right: int, bottom: int, *, top: int = 0) -> Image:
    framed: Image = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_CONSTANT, value=_BACK)  # type: ignore[assignment]
    return framed


def png(picture: Image) -> bytes:
    """Encode a picture as a PNG file."""
    return cv2.imencode(".png", picture)[1].tobytes()

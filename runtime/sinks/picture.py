"""Pictures of a result: captions, error images, and the layouts of windows, recordings and strips."""

from __future__ import annotations

import cv2
import numpy as np

from framecast.camera import Image
from framecast.runtime.sinks.sink import Result

GAIN = 2  # makes errors visible; the page's index.html names the same factor
CAPTION = 24  # height of a caption in pixels
LEGIBLE = 320  # width of the longest caption in pixels
RECORDED = 640  # the longest side of a picture in a recording, pixels
WINDOWED = 960  # the same in a window
CONCEALED, LAST = ": no frame came, concealed", ": no frame comes, this is the last one"
GAP = 4  # pixels between pictures; even, because videos need even sizes
_BACK, _INK, _SOFT = (24, 20, 18), (225, 222, 220), (160, 150, 146)  # BGR


def error_image(real: Image, guess: Image) -> Image:
    """|real − guess|, averaged over the three channels, times 2, saturated: a grey picture, uint8 [h, w, 3]."""
    mean = cv2.transform(cv2.absdiff(real, guess), np.full((1, 3), GAIN / 3, np.float32))
    return cv2.cvtColor(mean, cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]


def fit(image: Image, longest: int) -> Image:
    """Shrink a picture so that its longer side is at most ``longest`` pixels. Returns a smaller one unchanged."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # INTER_AREA takes four times as long as INTER_LINEAR, which is as good down to half the size.
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR)  # type: ignore[return-value]


def enlarged(image: Image, least: int) -> Image:
    """Enlarge a picture by the smallest whole factor that makes it at least ``least`` pixels wide."""
    factor = -(-least // image.shape[1])
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def letterboxed(image: Image, shape: tuple[int, ...]) -> Image:
    """The picture, resized to fit and centred on a canvas of ``shape`` (height, width, 3)."""
    if image.shape == shape:
        return image
    scale = min(shape[0] / image.shape[0], shape[1] / image.shape[1])
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    canvas = np.full(shape, _BACK, np.uint8)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas[top : top + height, left : left + width] = resized
    return canvas


def caption(width: int, text: str, *, soft: bool = False, height: int = CAPTION) -> Image:
    """A bar of text, uint8 [height, width, 3]. Text that is too long for the bar is written smaller."""
    bar = np.full((height, width, 3), _BACK, np.uint8)
    size = 0.018 * height
    (needed, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    size *= min(1.0, (width - 10) / max(needed, 1))
    place = (6, round(height * 0.69))
    cv2.putText(bar, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, _SOFT if soft else _INK, 1, cv2.LINE_AA)
    return bar


def beside(images: list[Image]) -> Image:
    """Pictures of the same height side by side, with gaps."""
    gap = np.full((images[0].shape[0], GAP, 3), _BACK, np.uint8)
    parts = [part for image in images for part in (image, gap)]
    return np.hstack(parts[:-1])


def _captioned(image: Image, text: str) -> Image:
    return np.vstack([caption(image.shape[1], text), image])


def _shown(image: Image, longest: int) -> Image:
    return enlarged(fit(image, longest), LEGIBLE)


def ahead_text(result: Result) -> str:
    """The lookahead as text: "150 ms"."""
    return f"{1e3 * result.prediction.ahead:.0f} ms"


def now_and_late(result: Result) -> Image:
    """The layout of a window: the newest real frame, and beside it the prediction made from it.

    Both are enlarged by a whole factor if they are small, and shrunk if they are large.
    """
    late, now = (_shown(image, WINDOWED) for image in (result.input, result.prediction.image))
    time = "" if result.concealed else f", {result.elapsed:.2f} s"  # a concealed result has the missing frame's time
    said = f": predicted {ahead_text(result)} ahead{CONCEALED * result.concealed}"
    captions = f"late: the newest frame{time}", f"now{LAST if result.last else said}"
    return beside([_captioned(*pair) for pair in zip((late, now), captions, strict=True)])


def scored_moment(result: Result) -> Image:
    """The layout of a recording: late picture and prediction, below them the real frame and the error.

    Without a prediction for this moment, all but the real frame stay black. Of a concealed moment the real frame and
    the error stay black. Small pictures are enlarged by a whole factor, large ones are shrunk.
    """
    ahead = ahead_text(result)
    real = _shown(result.input, RECORDED)
    late = due = error = np.zeros_like(real)
    texts = ["late", "now", f"real frame, {result.elapsed:.2f} s", f"error of now x{GAIN}"]
    if result.concealed:
        late, due = _shown(result.input, RECORDED), _shown(result.prediction.image, RECORDED)
        real = np.zeros_like(real)
        texts[1:] = [texts[1] + (LAST if result.last else CONCEALED), f"no frame at {result.elapsed:.2f} s", ""]
    elif result.due is None or result.late is None:
        texts[1] += ": warming up"
    else:
        late, due = _shown(result.late, RECORDED), _shown(result.due, RECORDED)
        error = error_image(real, due)
        texts[0] += f": the newest frame, {ahead} before   {result.psnr_copy:.1f} dB"
        texts[1] += f": predicted {ahead} ahead   {result.psnr:.1f} dB"
    tiles = [_captioned(*pair) for pair in zip((late, due, real, error), texts, strict=True)]
    return np.vstack([beside(tiles[:2]), beside(tiles[2:])])

"""Results as one self-contained page with tables, curves and pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

import cv2

from framecast.camera import Image
from framecast.evaluation.metrics import METRICS
from framecast.evaluation.plots import curves
from framecast.evaluation.results import ClipResult, Results
from framecast.evaluation.tables import notes, provenance, tables, titles
from framecast.html import document
from framecast.tables import to_html

QUALITY = 95  # JPEG quality of the pictures
SMALL = 128  # pixels: narrower pictures show their pixels as squares
LARGE = 640  # pixels: wider pictures are shrunk, or the page could reach hundreds of megabytes


def page(results: Results) -> str:
    """Return the whole HTML document. It loads no external resources."""
    names = " and ".join(contender.title for contender in results.contenders)
    count = len(results.clips)
    what = f"{count} clip{'s' * (count != 1)}"
    if results.given is not None:
        what = f"{sum(clip.frames for clip in results.clips)} sequences"
    heads = "".join(f"<p>{escape(line)}</p>" for line in (*provenance(results), *notes(results)))
    plots = "".join(curves(results, metric) for metric in ("psnr", "ssim"))
    meanings = "".join(
        f"<dt>{escape(METRICS[name].title)}</dt><dd>{escape(METRICS[name].meaning)}</dd>" for name in results.metrics
    )
    strips = "".join(_strip(results, clip) for clip in results.clips)
    return document(
        f"framecast eval: {names}",
        f"{names}, on {what}",
        f"{heads}\n{''.join(map(to_html, tables(results)))}\n"
        f"<h2>By lookahead</h2><div class='plots'>{plots}</div>\n"
        f"<h2>Pictures of one moment</h2>\n{strips}\n<h2>What the figures mean</h2><dl>{meanings}</dl>\n",
    )


def _strip(results: Results, clip: ClipResult) -> str:
    """Return the last frame, then one column for the ground truth and for each method, with a row per moment."""
    strip = clip.strip
    two = " two" * (len(strip.labels) == 2)
    columns = [_figure(strip.last, "last frame", " class='tall'" if two else "")]
    for truth, label in zip(strip.truths, strip.labels, strict=True):
        columns.append(_figure(truth, f"ground truth, {label}"))
    columns += _predictions(results, clip)
    return f"<h3>{escape(clip.name)}</h3><div class='strip{two}'>{''.join(columns)}</div>\n"


def _predictions(results: Results, clip: ClipResult) -> Iterator[str]:
    for title, images, scores in zip(titles(results), clip.strip.predictions, clip.strip.psnr, strict=True):
        for image, score, label in zip(images, scores, clip.strip.labels, strict=True):
            yield _figure(image, f"{title}, {label}: {score:.1f} dB")


def _figure(image: Image, caption: str, attributes: str = "") -> str:
    if image.shape[1] > LARGE:
        image = cv2.resize(image, (LARGE, LARGE * image.shape[0] // image.shape[1]), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    data = base64.b64encode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()).decode()
    small = " class='small'" * (image.shape[1] < SMALL)
    return (
        f"<figure{attributes}><img{small} alt='{escape(caption)}' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )

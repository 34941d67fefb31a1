"""Results as one page that needs nothing else: tables, curves and pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

import cv2

from framecast.camera import Image
from framecast.evaluation.metrics import METRICS
from framecast.evaluation.plots import curves
from framecast.evaluation.results import ClipResult, Results
from framecast.evaluation.tables import Table, notes, provenance, tables, titles

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --back: #fff; --soft: #5f6771; --line: #d9dde2; --strong: #f1f4f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --back: #14171b; --soft: #98a1ac; --line: #2e343b; --strong: #1f242a } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem; max-width: 76rem; color: var(--ink); background: var(--back);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
p, li, figcaption { color: var(--soft) } p { margin: .2rem 0 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { font-weight: 600 }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back) }
tr.mean td { font-weight: 600; background: var(--strong) }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem }
.plots svg { width: 100%; height: auto } svg text { font-family: inherit !important }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(9rem, 1fr); gap: .5rem; overflow-x: auto;
  padding-bottom: .4rem }
.strip.two { grid-template-rows: auto auto }
figure { margin: 0 } figure.tall { grid-row: span 2; align-self: start }
img { display: block; width: 100%; border-radius: 3px; image-rendering: auto } img.small { image-rendering: pixelated }
figcaption { font-size: .8rem; line-height: 1.3; padding: .2rem 0 .3rem }
dt { font-weight: 600; margin-top: .4rem } dd { margin: 0; color: var(--soft) }
"""
QUALITY = 95  # of the pictures' JPEG
SMALL = 128  # pixels: narrower pictures are shown with their pixels as squares


def page(results: Results) -> str:
    """The whole HTML document; it loads nothing from anywhere."""
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
        f"{heads}\n{''.join(map(table_html, tables(results)))}\n"
        f"<h2>By steps ahead</h2><div class='plots'>{plots}</div>\n"
        f"<h2>Pictures of one moment</h2>\n{strips}\n<h2>What the figures are</h2><dl>{meanings}</dl>\n",
    )


def document(title: str, heading: str, body: str) -> str:
    """A whole HTML document around a body; title and heading are text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(heading)}</h1>\n{body}</body></html>\n"
    )


def table_html(table: Table) -> str:
    """A table under its title; rows of means stand out."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr{' class=mean' * row[0].startswith('mean ')}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    return f"<h2>{escape(table.title)}</h2><div class='scroll'><table><tr>{head}</tr>{rows}</table></div>\n"


def _strip(results: Results, clip: ClipResult) -> str:
    """The last frame, then a column a method: truth and predictions, a row a step ahead."""
    strip = clip.strip
    two = " two" * (len(strip.steps) == 2)
    columns = [_figure(strip.last, "last frame", " class='tall'" if two else "")]
    for truth, step in zip(strip.truths, strip.steps, strict=True):
        columns.append(_figure(truth, f"what came, {step} ahead"))
    columns += _predictions(results, clip)
    return f"<h3>{escape(clip.name)}</h3><div class='strip{two}'>{''.join(columns)}</div>\n"


def _predictions(results: Results, clip: ClipResult) -> Iterator[str]:
    for title, images, scores in zip(titles(results), clip.strip.predictions, clip.strip.psnr, strict=True):
        for image, score, step in zip(images, scores, clip.strip.steps, strict=True):
            yield _figure(image, f"{title}, {step} ahead: {score:.1f} dB")


def _figure(image: Image, caption: str, attributes: str = "") -> str:
    data = base64.b64encode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()).decode()
    small = " class='small'" * (image.shape[1] < SMALL)
    return (
        f"<figure{attributes}><img{small} alt='{escape(caption)}' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )

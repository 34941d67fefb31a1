"""The template of all HTML pages that framecast writes: one file, no external resources, light or dark."""

from __future__ import annotations

from html import escape

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


def document(title: str, heading: str, body: str) -> str:
    """A complete HTML document around a body. Title and heading are plain text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(heading)}</h1>\n{body}</body></html>\n"
    )

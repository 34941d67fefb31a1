"""``framecast models``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framecast.cli.checks import check_ending

if TYPE_CHECKING:
    from framecast.models.configs import Entry


def models(
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the list as JSON.")] = None,
) -> None:
    """List the models. Those that are ready to run come first.

    A model whose frame is "any" predicts at the camera's own size. It has no weights and learns from the stream.

    GMAC: billions of multiply-accumulates in one step. As published: GMAC of the authors' code for the same frame, and
    in brackets the number of input frames. State: size of the state that a step reads, in float32.
    """
    from framecast import terminal
    from framecast.files import check_writable, write
    from framecast.runtime.report import to_json

    check_ending("--json", json, ".json")
    if json is not None:
        check_writable(json)
    listed = _listed()
    columns = ("name", "next frame, dB", "frame", "parameters", "GMAC", "state", "as published")
    terminal.table("framecast models", columns, [_row(one) for one in listed])
    print("Next frame: PSNR on five held-out clips (in brackets: copying the last frame).")
    print("The small networks know only Moving MNIST: errors in docs/moving-mnist.md.")
    print("Models with – have no weights yet: train or import weights, then export them.")
    if json is not None:
        write(json, f"{to_json(listed, indent=2)}\n".encode())
        print(f"wrote {json}")


def _listed() -> list[dict[str, Any]]:
    """All models: first the shipped ones, with the quality that their artifacts state, then other configurations."""
    from framecast.models.configs import CONFIGS
    from framecast.runtime.engines import open_engine
    from framecast.runtime.shipped import shipped

    paths, listed = shipped(), []
    for name in [*paths, *(name for name in CONFIGS if name not in paths)]:
        quality = None
        if name in paths:
            with open_engine(paths[name]) as engine:
                quality = engine.manifest.quality
        listed.append(
            {
                "name": name,
                "ships": name in paths,
                "path": str(paths[name]) if name in paths else None,
                "psnr_db": quality and {"prediction": quality.prediction, "copy_last": quality.copy_last},
                **_size(CONFIGS.get(name)),
            }
        )
    return listed


def _size(entry: Entry | None) -> dict[str, Any]:
    """A model's frame size and cost. A model of motion has no configuration, takes any size, and has no weights."""
    if entry is None:
        unknown = ("width", "height", "gmacs", "state_bytes", "published_gmacs", "published_window")
        return {"channels": 3, "is_picture": True, "parameters": 0, **dict.fromkeys(unknown)}
    height, width = entry.data.visible or (entry.data.height, entry.data.width)
    return {
        "width": width,
        "height": height,
        "channels": entry.data.channels,
        "is_picture": entry.data.is_picture,
        "parameters": entry.parameters,
        "gmacs": entry.gmacs,
        "state_bytes": entry.state_bytes,
        "published_gmacs": entry.window_gmacs,
        "published_window": entry.window,
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    quality, published = one["psnr_db"], one["published_gmacs"]
    score = f"{quality['prediction']:.2f} ({quality['copy_last']:.2f})" if quality else "see below"
    first = (one["name"], score if one["ships"] else "–")
    if one["width"] is None:
        return (*first, "any", "none", "–", "–", "–")
    return (
        *first,
        f"{one['width']}×{one['height']}×{one['channels']}",
        f"{one['parameters'] / 1e6:.2f} M",
        f"{one['gmacs']:.2f}",
        f"{one['state_bytes'] / 1e6:.2f} MB",
        "–" if published is None else f"{published:.1f} ({one['published_window']})",
    )

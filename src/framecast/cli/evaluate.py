"""``framecast eval``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framecast.cli.checks import check_ending, check_numbers, check_outputs, durations, picture_size
from framecast.cli.complete import LAYOUTS_HELP, complete_layouts, complete_models
from framecast.cli.extras import needs_extra
from framecast.cli.model_ref import MODEL_HELP, ModelRef
from framecast.cli.progress import progress
from framecast.errors import OptionError

if TYPE_CHECKING:
    from framecast.runtime.engines import Engine
    from framecast.runtime.predictor import Predictor


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=complete_models)],
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIP...",
            help="Videos, folders of videos or images, demo; or .npy files of sequences, uint8 [T, N, H, W] or "
            "[T, N, H, W, 3], or 'mnist://IDX_FILE?seed=0': Moving MNIST's 10,000 test sequences of that seed, or "
            "TaxiBJ's dataset.npz: its test sequences; or with --layout, the folder of a data set.",
        ),
    ],
    horizon: Annotated[
        int | None, typer.Option(metavar="N", help="Clips: score 1 to N frames ahead (default: 5).")
    ] = None,
    ahead: Annotated[
        str | None,
        typer.Option(metavar="TIME,…", help="Clips: score these moments instead, such as 40ms,100ms,0.2s ahead."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Clips: compare all methods at this size (default: the models' size; if they take any, the clip's).",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Another model for the same tables. Repeatable.", autocompletion=complete_models
        ),
    ] = None,
    rival: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Clips: your own baseline. FUNCTION(last, before, ahead) returns one picture per moment. Repeatable.",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with tables, curves and pictures.")
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads of a step. 0: one per core.")] = 0,
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="Clips: use up to N frames of each (default: all).")
    ] = None,
    given: Annotated[
        int | None,
        typer.Option(metavar="N", help="Sequences: give the model the first N frames (default: 10, TaxiBJ: 4)."),
    ] = None,
    predict: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Sequences: predict N frames (default: all others). With --given, clips are cut into sequences.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Sequences: the folders hold this data set; use its clips for tests. {LAYOUTS_HELP}",
            autocompletion=complete_layouts,
        ),
    ] = None,
    sequences: Annotated[
        int | None, typer.Option(metavar="N", help="Sequences: use up to N of each file or clip (default: all).")
    ] = None,
) -> None:
    """Score models on whole clips or on test sequences.

    On clips, models are compared with copying the last frame, linear extrapolation and optical flow; on sequences, with
    the first two. For clips a table also gives the cost: CPU milliseconds of a step and its pictures.
    """
    from framecast import terminal
    from framecast.evaluation.evaluate import evaluate as score
    from framecast.evaluation.evaluate import look_up, open_contender
    from framecast.evaluation.rivals import standard
    from framecast.evaluation.tables import notes, tables
    from framecast.files import check_writable, write
    from framecast.runtime.engines import choose
    from framecast.runtime.report import to_json
    from framecast.runtime.shipped import labels

    check_numbers(horizon=horizon, frames=frames, given=given, predict=predict, sequences=sequences)
    rivals = dict(map(_rival, rival)) if rival else None
    options: dict[str, Any] = {
        "horizon": horizon,
        "ahead": None if ahead is None else durations("--ahead", ahead),
        "size": None if size is None else picture_size("--size", size),
        "rivals": rivals,
        "frames": frames,
        "given": given,
        "predict": predict,
        "layout": layout,
        "sequences": sequences,
    }
    places, of_sequences = look_up(clips, **options)
    outputs = [path for path in (json, html) if path is not None]
    for place in (*places, model, *(also or [])):
        check_outputs(place, outputs)
    check_ending("--json", json, ".json")
    check_ending("--html", html, ".html")
    if html is not None:
        with needs_extra("--html", "eval"):
            import matplotlib  # noqa: F401 (fails here, before the work)
    for path in outputs:
        check_writable(path)
    choose("auto", threads)
    refs = [ModelRef.resolve(name, traffic=of_sequences) for name in dict.fromkeys((model, *(also or [])))]
    taken = {*(rival.name for rival in standard()), *(rivals or {})}
    names = labels([ref.given for ref in refs], taken)
    with ExitStack() as stack:
        models: dict[str, str | Predictor | Engine] = {}
        for name, ref in zip(names, refs, strict=True):
            if ref.path is not None:
                models[name] = ref.given
            else:
                with ref.artifact() as path:
                    models[name] = open_contender(stack, path, threads)
        show = stack.enter_context(progress())
        results = score(
            models,
            places,
            **options,
            threads=threads,
            advance=show,
        )
    if json is not None:
        write(json, f"{to_json(results.to_dict(), indent=2)}\n".encode())
    if html is not None:
        from framecast.evaluation.page import page

        write(html, page(results).encode())
    for table in tables(results):
        terminal.table(table.title, table.columns, table.rows)
    for line in notes(results):
        print(line)
    for path in outputs:
        print(f"wrote {path}")


def _rival(text: str) -> tuple[str, Callable[..., Sequence[Any]]]:
    """Load the function that ``FILE.py:FUNCTION`` or ``package.module:FUNCTION`` names. Returns its name too."""
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise OptionError(f"--rival {text}: give a file and a function in it, such as mine.py:predict")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location("framecast_rival", place)
            assert spec is not None  # noqa: S101 (its name ends in .py)
            assert spec.loader is not None  # noqa: S101 (likewise)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, "")
            module = importlib.import_module(place)
    except Exception as error:  # the user's code may raise anything
        raise OptionError(f"--rival {text}: {place} cannot be loaded ({type(error).__name__}: {error})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise OptionError(f"--rival {text}: {place} has no function {name}")
    return name, function

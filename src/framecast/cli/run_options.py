"""The checks of ``framecast run``'s options, before anything is opened: each alone, then those that depend on others.

The command and its configuration file share them (``config_file.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framecast.cli.checks import (
    amount,
    check_clips,
    check_ending,
    check_numbers,
    check_outputs,
    duration,
    patience,
    period,
)
from framecast.cli.logs import check_form
from framecast.cli.model_ref import ModelRef
from framecast.cli.secret import address
from framecast.errors import OptionError
from framecast.redact import redact

# Options are named as the command's parameters: camera_delay.
Given = Mapping[str, Any]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _lookahead(name: str, text: str) -> None:
    from framecast.runtime.lookahead import Lookahead

    seconds = duration(_flag(name), text)
    if name == "ahead":
        Lookahead(seconds=seconds)
    elif name == "max_ahead":
        Lookahead(most=seconds)
    elif name == "camera_delay":
        Lookahead(now=True, camera_delay=seconds)
    else:
        Lookahead(now=True, display_delay=seconds)


def _engine(name: str, value: str) -> None:
    from framecast.runtime.engines import choose

    choose(value)


def _threads(name: str, value: int) -> None:
    from framecast.runtime.engines import choose

    choose("auto", value)


def _refresh(name: str, value: float) -> None:
    from framecast.runtime.pipeline import check_refresh

    check_refresh(value)


def _serve(name: str, value: str) -> None:
    from framecast.runtime.sinks.address import parse

    parse(value)


def _host(name: str, value: str) -> None:
    from framecast.runtime.sinks.access import check_host

    check_host(value)


def _record(name: str, value: str) -> None:
    from framecast.runtime.outputs import check_recording_options

    check_recording_options([Path(value)])


def _segment(name: str, value: str) -> None:
    from framecast.runtime.sinks.video import check_segments

    check_segments(period(_flag(name), value), None)


def _keep(name: str, value: str) -> None:
    from framecast.runtime.sinks.video import check_segments

    check_segments(60.0, amount(_flag(name), value))


def _out(name: str, value: str) -> None:
    from framecast.runtime.sinks.out import check_out

    check_out(value)


def _count(name: str, value: int) -> None:
    check_numbers(**{name: value})


def _patience(name: str, value: str) -> None:
    patience(_flag(name), value)


def _batch_wait(name: str, value: str) -> None:
    if (seconds := duration(_flag(name), value)) > 1:
        raise OptionError(f"{_flag(name)} must be 0 to 1 s, not {seconds:g} s")


def _name(name: str, value: str) -> None:
    from framecast.runtime.fleet import check_name

    check_name(value)


# The check of each option's value, or of each value if it can be given several times.
CHECKS: dict[str, Callable[[str, Any], object]] = {
    "model": lambda name, value: ModelRef.resolve(value),
    "engine": _engine,
    **dict.fromkeys(("ahead", "camera_delay", "display_delay", "max_ahead"), _lookahead),
    **dict.fromkeys(("horizon", "frames"), _count),
    **dict.fromkeys(("conceal", "timeout", "stall", "step_limit"), _patience),
    "refresh": _refresh,
    "serve": _serve,
    "host": _host,
    "record": _record,
    "segment": _segment,
    "keep": _keep,
    "out": _out,
    "json": lambda name, value: check_ending(_flag(name), Path(value), ".json"),
    "threads": _threads,
    "log": lambda name, value: check_form(value),
    "batch_wait": _batch_wait,
    "name": _name,
}


def _source(name: str, value: str) -> None:
    from framecast.camera import check_camera, is_camera

    try:
        uri = address(value)
    except OptionError:  # the variable or the file may be there only for the service
        return
    if is_camera(uri):
        check_camera(uri)
    else:
        check_clips(uri)


def check_option(name: str, value: Any, *, strict: bool = False) -> None:
    """Check one option's value on its own. None stands for an option that is not given.

    Args:
        name: of the command's parameter.
        value: as given.
        strict: check the source as well: a camera's address, and that a file can be opened. A run does that by itself.

    Raises:
        SourceError: the source has a mistake, or is not there.
        OptionError: the value is out of range.
        ArtifactError: there is no such model.
        SinkError: an output is not there.
    """
    check = _source if strict and name == "source" else CHECKS.get(name)
    if check is not None and value is not None:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            check(name, one)


def lookahead(given: Given) -> Any:
    """The lookahead that the options ask for, as a :class:`framecast.runtime.lookahead.Lookahead`.

    Raises:
        OptionError: two options exclude each other.
    """
    from framecast.runtime.lookahead import Lookahead

    return Lookahead(
        frames=given["horizon"],
        seconds=None if given["ahead"] is None else duration("--ahead", given["ahead"]),
        now=given["now"],
        camera_delay=duration("--camera-delay", given["camera_delay"]),
        display_delay=duration("--display-delay", given["display_delay"]),
        most=duration("--max-ahead", given["max_ahead"]),
    )


def _page(given: Given) -> None:
    for name in ("token_file", "host"):
        if given["serve"] is None and given[name]:
            raise OptionError(f"{_flag(name)} is for the page: give --serve as well")


def _outputs(given: Given) -> None:
    paths = [*(given["record"] or []), *filter(None, [given["json"]])]
    check_outputs(given["source"] or os.devnull, [Path(path) for path in paths])


def _sent(given: Given) -> None:
    addresses = given["out"] or []
    for place, one in enumerate(addresses):
        if one in addresses[:place]:
            raise OptionError(f"--out names {redact(one)} twice: leave one out")


def _recordings(given: Given) -> None:
    from framecast.runtime.outputs import check_recording_options

    segment, keep = given["segment"], given["keep"]
    check_recording_options(
        [Path(path) for path in given["record"] or []],
        None if segment is None else period("--segment", segment),
        None if keep is None else amount("--keep", keep),
    )


# The checks of options that depend on each other, each with the options that may be to blame.
TOGETHER: tuple[tuple[tuple[str, ...], Callable[[Given], object]], ...] = (
    (("ahead", "horizon", "now"), lambda given: lookahead({**given, "camera_delay": "0", "display_delay": "0"})),
    (("camera_delay",), lambda given: lookahead({**given, "display_delay": "0"})),
    (("display_delay",), lookahead),
    (("token_file", "host"), _page),
    (("json", "record"), _outputs),
    (("out",), _sent),
    (("segment",), lambda given: _recordings({**given, "keep": None})),
    (("keep",), _recordings),
)

"""What a user types: addresses of sources, configuration files, and whole command lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import sys
from pathlib import Path
from unittest import mock

import typer

from framecast.camera import open_source
from framecast.cli import COMMANDS, main
from framecast.cli.config import check_file, example_file
from framecast.errors import FramecastError, OptionError

from .kind import Kind, only
from .media import image
from .mutate import NUMBERS, ODD_TEXT, damaged, words

# No host here ever leaves this machine; port 9 is closed.
SOURCES = (
    *(
        "rtsp://user:pw@127.0.0.1:9/cam?x=1",
        "http://127.0.0.1:9/stream.mjpg",
        "https://127.0.0.1:9/",
        "-",
        "demo",
        "999",
    ),
    *(
        "v4l2:///dev/video99?size=1280x720&fps=60&format=mjpg",
        "csi://0?size=1280x720&fps=30&flip=0",
        "rtmp://127.0.0.1:9/a",
    ),
    *("synthetic://?size=32x24&fps=30&frames=3&seed=1", "file:///none/clip.mp4", "frames/*.png", "img_%04d.png?fps=10"),
    "mnist://?digits=2&size=64x64&fps=10&frames=3&scene=2&seed=1",
    *("frames/?fps=10", "~nobody/a.mp4", "concat:a.mp4|b.mp4", "udp://127.0.0.1:9?timeout=1", "srt://127.0.0.1:9"),
)
KEPT = ("127.0.0.1:9",)  # a host is never changed: no name is asked for
COMMAND_LINES = (
    *(
        "run synthetic://?size=64x48&frames=2&fps=60 --ahead 50ms --quiet",
        "run none.mp4 --model edge --frames 2 --horizon 2",
    ),
    *("run demo --frames 1 --engine opencv --threads 1", "run none.mp4 --record a.mp4 --segment 1min --keep 2"),
    *("run pictures --fps 60 --frames 3 --refresh 30 --camera-delay 20ms", "eval pictures --model edge --ahead 40ms"),
    *(
        "models --json",
        "export stip-edge -o a.onnx",
        "inspect edge",
        "doctor",
        "parity none.onnx",
        "quantize none.onnx",
    ),
    *("eval none.mp4 --model edge", "bench edge --frames 1", "train none --config stip-edge", "split none.onnx"),
    *(
        "delay none --camera 99",
        "moving-mnist none -o a",
        "import-checkpoint none.pth --config stip-ucf",
        "build none.onnx",
    ),
)


class Sources(Kind):
    """Addresses of sources."""

    inputs = 300
    longest = 100_000

    def __init__(self, folder: Path) -> None:
        self.place = folder

    def make(self, chance: random.Random, folder: Path) -> None:
        text = chance.choice(SOURCES)
        host = next((host for host in KEPT if host in text), None)
        if host is None:
            text = words(text, chance)
        else:
            before, after = text.split(host)
            text = before + host + "/" + words(after, chance)
        (folder / "source").write_bytes(text.encode("utf-8", "surrogatepass"))

    def attempt(self, folder: Path) -> None:
        text = only(folder).read_bytes().decode("utf-8", "surrogatepass")
        os.chdir(self.place)
        with open_source(text, timeout=1.0, stall=1.0) as source:
            for _ in range(3):
                source.read()


class Configurations(Kind):
    """Configuration files, checked as ``framecast config --check`` does."""

    inputs = 1000

    def __init__(self, folder: Path) -> None:
        example = example_file()
        several = re.sub(r"(?m)^# (?=\[\[camera\]\]$|[\w-]+ = )", "", example.replace("\nsource = ", "\n#source = "))
        self.whole = (example, re.sub(r"(?m)^#(?=\S+ = )", "", example), several)

    def make(self, chance: random.Random, folder: Path) -> None:
        text = chance.choice(self.whole)
        data = damaged(text.encode(), chance) if chance.randrange(2) else words(text, chance).encode("utf-8", "replace")
        (folder / "box.toml").write_bytes(data)

    def attempt(self, folder: Path) -> None:
        path, err = only(folder), io.StringIO()
        try:
            with contextlib.redirect_stderr(err):
                check_file(str(path))
        except typer.Exit:
            lines = err.getvalue().splitlines()
            assert lines
            assert all(line.startswith(f"{path}:") and line.isprintable() for line in lines), lines
            raise OptionError(lines[0]) from None


class Commands(Kind):
    """Command lines. Only such with sources that end are made: what they do is bounded."""

    inputs = 200
    longest = 100_000

    def __init__(self, folder: Path) -> None:
        self.place = folder
        (folder / "pictures").mkdir()
        for number in range(4):
            (folder / "pictures" / f"{number}.png").write_bytes(image("a.png"))

    def make(self, chance: random.Random, folder: Path) -> None:
        given = chance.choice(COMMAND_LINES).split()
        for _ in range(chance.choice((1, 1, 2))):
            at = chance.randrange(1, len(given)) if len(given) > 1 else 0
            match chance.randrange(6):
                case 0:
                    given[at] = words(given[at], chance)
                case 1:
                    given[at] = str(chance.choice(NUMBERS))
                case 2:
                    given.insert(
                        at + 1, chance.choice((*ODD_TEXT, *COMMANDS, "--help", "--", "-o", "--threads", "--ahead"))
                    )
                case 3:
                    given.append(given[at])
                case 4:
                    given[at] = chance.choice(ODD_TEXT)
                case _:
                    del given[at]
                    given = given or ["--help"]
        (folder / "arguments").write_text(json.dumps([word.replace("\0", "") for word in given]))

    def attempt(self, folder: Path) -> None:
        given = json.loads(only(folder).read_text())
        out, err = io.StringIO(), io.StringIO()
        os.chdir(self.place)
        with (
            mock.patch.object(sys, "argv", ["framecast", *given]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        assert code in (0, 1, 2), code
        said = err.getvalue()
        assert "Traceback" not in said
        assert "unexpected" not in said, said
        if code:
            raise FramecastError(said.rstrip("\n").rpartition("\n")[2])

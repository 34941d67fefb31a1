"""Every command and every block of Python in the documents runs, in the order of its page, at a small size.

A page's commands run in a folder that holds only the files that the page assumes (``FILES``). ``adapted`` changes a
command as little as possible, to make it short and to replace cameras. ``NOT_RUN`` lists commands that cannot run here,
with the reason; their options are still checked. The test fails for a new command that does not run.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import framecast
from framecast.camera import open_source
from framecast.cli import COMMANDS, app
from framecast.cli.usage import DEFAULT_ADDRESS, with_address

from .clips import write_clip, write_clips, write_digits, write_flows  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .conftest import Run  # noqa: TID252 (likewise)

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(framecast.__file__).parent / "assets"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# Beginnings of indented blocks that are not commands.
NO_COMMANDS = ("options:", "fields[t], state[t] = ", "shown: now ")

# Commands that cannot run in a test: a pattern that matches them, and the reason.
NOT_RUN = {
    r"sudo ": "changes the system, or needs Docker; tests/test_guest.py runs those that make a service",
    r"(echo|printf|openssl) .*'\|' sudo ": "changes the system; tests/test_guest.py runs those that make a service",
    r"systemctl ": "needs systemd; tests/test_guest.py has one in a virtual machine",
    r"(pip install|python3 -m venv|git clone) ": "installs: make run, make test and make release-check do",
    r"(cd|\.|export) ": "changes the reader's shell",
    r"make ": "CI runs it, or it runs commands that the pages name",
    r"curl .*/(live|ready|metrics|stats\.json)": "tests/runtime/test_health.py and test_web.py ask for it",
    r"framecast run 0 --serve 127\.0\.0\.1:8000 --host": "tests/test_cli_secret.py runs it on a free port",
    r"(rpicam-vid|ffmpeg) .*framecast run -": "needs a camera; tests/camera/test_network.py pipes a stream in",
    r"framecast run .*--out ": "needs a receiver; tests/runtime/test_out.py has them",
    r"framecast build ": "needs a GPU; tests/export builds on a simulated one",
    r"framecast run .*--engine tensorrt": "needs a GPU",
    r"framecast run .*--engine server:": "needs a model server: tests/runtime/test_triton.py runs it with one",
    r"framecast run 0 --show": "needs a display; tests/runtime/test_window.py has a virtual one",
    r"framecast run SOURCE \[options\]": "a placeholder",
    r"framecast run rtsp://cam:secret@10\.0\.0\.9/live": "there is no such camera: tests/test_cli.py checks the error",
    r"python benchmarks/": "minutes, a download or a GPU; tests/test_now.py and tests/test_gpu_*.py run them",
    r"python examples/": "tests/test_examples.py runs it",
}
# Commands that take seconds and test little more than others do; 'make test-slow' runs their pages in full.
SLOW = {
    "framecast bench all",
    "framecast bench edge --stream --fps 10 --cameras",
    "framecast eval edge clips/ --also mine.onnx",
    "framecast eval own.onnx clips/ --also edge",
    "framecast export stau-mnist -o stau.onnx",
    "framecast bench all --json all.json --html all.html",
    "framecast export edge --set height=1080 --set width=1920 -o edge.onnx",
    "framecast export mau-mnist --weights mau-mnist.safetensors -o mau.onnx",
    "framecast export stau-mnist --weights runs/stau/weights.safetensors -o stau.onnx",
    "framecast export stau-mnist --weights stau-mnist.safetensors -o stau.onnx",
    "framecast export stip-edge --weights runs/mine/weights.safetensors -o mine.onnx",
    "framecast quantize stip-edge --calibration clips/",
    "framecast run demo --model stau-mnist",
    "framecast train astm-kth KTH/ --layout kth --output runs/kth --val KTH/",
}

# Options to append to each command, to make it short. If an option occurs twice, the last value wins.
SHORT = {
    "run": "--frames 12",
    "eval": "--frames 18",
    "bench": "--duration 0 --iterations 2 --warmup 0 --cold-starts 0",
    "export": "--frames 3",
    "train": "--updates 2 --batch 1 --device cpu",
    "quantize": "--frames 4",
    "parity": "--frames 3",
    "inspect": "--frames 10",
    "moving-mnist": "--sequences 2",
    "delay": "--duration 12",
}
SMALL = "--set hidden=4 --set layers=2"  # the networks of Moving MNIST
SMALL_TAU = "--set hidden_spatial=4 --set hidden_temporal=8 --set translator_layers=2"
SMALL_EDGE = "--set height=48 --set width=64 --set hidden=8 --set layers=1"  # stip-edge


def shell(text: str) -> Iterator[str]:
    """The commands of a page's indented blocks. In a transcript, only lines that begin with ``$`` are commands."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?<=\n\n)(?: {4}.*\n)+", outside.replace("\\\n", " ") + "\n"):
        lines = [line.strip() for line in block.splitlines()]
        if lines[0].startswith("$ "):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        if not lines[0].startswith(NO_COMMANDS):
            yield from (command for line in lines for command in split(line))


def split(line: str) -> list[str]:
    """The commands of a line, without its comment."""
    if line.startswith("framecast run SOURCE [options]"):
        return [line]
    return [part.strip() for part in shlex.join(shlex.split(line, comments=True)).split("'&&'")]


def from_docstring(text: str) -> Iterator[str]:
    """The commands in an example's docstring, one per line. Two spaces end a command."""
    for line in re.findall(r"^(?:framecast|python) .*$", text.split('"""')[1], re.MULTILINE):
        yield from split(line.split("  ")[0])


def commands(page: Path) -> list[str]:
    return list(from_docstring(page.read_text()) if page.suffix == ".py" else shell(page.read_text()))


def reason(command: str) -> str | None:
    """The row of ``NOT_RUN`` for a command."""
    return next((row for row in NOT_RUN if re.match(row, command)), None)


def check_unrun(command: str) -> None:
    """Check a command as far as possible without running it."""
    found = re.search(r"(?:^|[ /])framecast (?=(\S+))(.*)$", command)
    if found and found[1] in COMMANDS:  # also inside docker run
        if "[options]" not in command:
            name, *words = with_address(shlex.split(found[2].partition(" '|' ")[0]), DEFAULT_ADDRESS)
            parse(name, words)
    elif command.startswith("make "):
        assert re.search(rf"^{re.escape(command.split()[1])}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
    elif command.startswith("python "):
        _, script, *words = shlex.split(command)
        text = (ROOT / script).read_text()
        assert [w for w in words if w.startswith("--") and f'"{w}"' not in text] == [], command


def parse(name: str, words: list[str]) -> None:
    """Read the words as the command line does; a usage error fails the test."""
    group: Any = typer.main.get_command(app)
    group.commands[name].make_context(name, words)


def adapted(command: str, camera: str) -> list[object]:
    """The words of a framecast command, changed only to make it short and to replace its camera."""
    _, name, *words = shlex.split(command)
    out: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if name != "delay" and (word == "0" or word.startswith("rtsp://")):
            word = camera
        elif before == "--serve" and re.fullmatch(r"[\d.]+", word):
            word = f"{word}:0"  # any free port
        elif before == "--size":
            word = "96x64"
        elif before == "--set" and word.startswith(("height=", "width=")):
            word = "height=64" if word.startswith("height=") else "width=96"
        out.append(word)
        if word == "--serve" and words[words.index(word) + 1 :][:1] != ["0.0.0.0"]:
            out.append("127.0.0.1:0")
    if name == "train":
        out = re.sub(r"--minutes \S+", "", shlex.join(out)).split()
    extra = SHORT.get(name, "")
    if name == "eval" and any(
        word.endswith((".npy", ".npz")) or word.startswith("mnist:") or word in ("--given", "--layout")
        for word in words
    ):
        extra = "--sequences 2"
    if name == "bench" and ("--stream" in words or "--single-stream" in words):
        extra = "--duration 0.5 --warmup 0 --cold-starts 0"
    if name == "export" and "edge" in words:
        extra += " --set reach=2"
    elif name in ("export", "train", "import-checkpoint") and "--weights" not in words:
        small = {"stip-edge": SMALL_EDGE, "tau-taxibj": SMALL_TAU}
        extra += f" {next((small[word] for word in words if word in small), SMALL)}"
    return [name, *out, *extra.split()]


def export_mau(path: Path, run: Run) -> None:
    """Copy a kept artifact, the same for all pages, because an export takes seconds."""
    from .exported import kept  # noqa: TID252

    with kept("documents.onnx") as shared:
        if not shared.exists():
            code, _, err = run("export", "mau-mnist", "-o", shared, *SMALL.split(), "--frames", 3)
            assert code == 0, err
        shutil.copy(shared, path)


def write_sequences(path: Path, run: Run) -> None:
    np.save(path, np.random.default_rng(1).integers(0, 256, (20, 2, 64, 64), np.uint8))


def write_checkpoint(path: Path, run: Run) -> None:
    """Write a checkpoint in the form that the authors of MAU and STAU used."""
    import torch

    from framecast.models.configs import build

    from .models.clipwise import random_weights  # noqa: TID252
    from .models.test_stau import released_shapes  # noqa: TID252

    config = build("mau-mnist", {"hidden": 4, "layers": 2}).config
    torch.save({"net_param": random_weights(released_shapes(config))}, path)  # type: ignore[arg-type]


def write_rival(path: Path, run: Run) -> None:
    path.write_text("def predict(last, before, ahead):\n    return [last for _ in ahead]\n")


def write_folder(path: Path, run: Run) -> None:
    write_clips(path, (96, 64), seed=len(path.name), **{f"{path.name}{i}": 24 for i in range(2)})


def write_kth(path: Path, run: Run) -> None:
    (path / "boxing").mkdir(parents=True)
    for person in ("01", "17"):
        write_clip(path / "boxing" / f"person{person}_boxing_d1_uncomp.avi", 30, int(person), (80, 60))


def write_one(path: Path, run: Run) -> None:
    write_folder(path.with_suffix(".folder"), run)
    shutil.copy(next(path.with_suffix(".folder").iterdir()), path)


# Files that the pages assume, by their names there.
FILES: dict[str, Callable[[Path, Run], object]] = {
    **dict.fromkeys(("clips/", "VIDEOS/", "OTHER_VIDEOS/"), write_folder),
    "KTH/": write_kth,
    "clip.mp4": write_one,
    "mine.py": write_rival,
    **dict.fromkeys(("mine.onnx", "own.onnx"), lambda path, run: shutil.copy(ASSETS / "stip-edge.onnx", path)),
    **dict.fromkeys(("mau.onnx", "stau.onnx"), export_mau),
    "mnist_test_seq.npy": write_sequences,
    "dataset.npz": lambda path, run: write_flows(path),
    "mnist.ckpt": write_checkpoint,
    "train-images-idx3-ubyte.gz": lambda path, run: write_digits(path),
    "t10k-images-idx3-ubyte.gz": lambda path, run: write_digits(path, seed=9),
    "examples/": lambda path, run: shutil.copytree(ROOT / "examples", path),
}


def furnish(text: str, run: Run) -> None:
    """Create the files that a text uses but does not create, in the working folder."""
    for name, make in FILES.items():
        if re.search(rf"(?:(?<![\w/.])|(?<=mnist://)){re.escape(name)}", text) and f"-o {name}" not in text:
            make(Path(name), run)


def measure_delay(run: Run, words: list[object], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """``framecast delay`` with a simulated camera and window."""
    from .runtime.blinking import Camera, window  # noqa: TID252
    from .test_cli_delay import Window, see  # noqa: TID252

    random = np.random.default_rng(1)
    changes = window(random, 20)
    with monkeypatch.context() as patched:
        see(patched, Window(list(changes)), Camera(0.187).frames(random, changes, 20))
        return run(*words)


@pytest.fixture
def camera(request: pytest.FixtureRequest, tmp_path: Path, run: Run) -> Callable[[str], str]:
    """A source to replace a command's camera: the tests' RTSP server for ``rtsp://…`` if it runs, otherwise a file."""

    def source(command: str) -> str:
        if "rtsp://" in command:
            try:
                return str(request.getfixturevalue("rtsp_server").url)
            except pytest.skip.Exception:
                pass
        clip = tmp_path / "camera.avi"
        if not clip.exists():
            write_one(clip, run)
        return str(clip)

    return source


def run_all(chosen: list[str], run: Run, camera: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    furnish("\n".join(chosen), run)
    for command in chosen:
        assert command.startswith("framecast "), f"{command}: run it here, or name it in NOT_RUN with a reason"
        command, _, target = command.partition(" '>' ")
        words = adapted(command, camera(command))
        code, out, err = measure_delay(run, words, monkeypatch) if words[0] == "delay" else run(*words)
        if target:
            Path(target).write_text(out)
        assert code == 0, (command, words, out, err)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: page.name)
@pytest.mark.usefixtures("exports_once")
def test_commands_run(
    page: Path, run: Run, camera: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    unrun = [command for command in commands(page) if reason(command)]
    for command in unrun:
        check_unrun(command)
    chosen = [command for command in dict.fromkeys(commands(page)) if command not in unrun and command not in SLOW]
    run_all(chosen, run, camera, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in (*PAGES, *EXAMPLES) if SLOW & {*commands(page)}], ids=lambda p: p.name
)
@pytest.mark.usefixtures("exports_once")
def test_pages_with_slow_commands_run_in_full(
    page: Path, run: Run, camera: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run_all([command for command in commands(page) if not reason(command)], run, camera, monkeypatch)


def test_tables_have_no_idle_rows() -> None:
    every = [command for page in (*PAGES, *EXAMPLES) for command in commands(page)]
    assert set(NOT_RUN) == {reason(command) for command in every} - {None}
    assert set(every) >= SLOW
    assert len({command for command in every if reason(command) is None}) > 50


def test_a_new_command_fails_where_it_cannot_run() -> None:
    text = "Text\n\n    framecast run demo --frames 3 \\\n        --json a.json   # why\n    ls clips/\n\nMore\n"
    assert list(shell(text)) == ["framecast run demo --frames 3 --json a.json", "ls clips/"]
    assert reason("ls clips/") is None
    with pytest.raises(Exception, match="--precison"):
        parse("build", ["stip-edge", "--precison", "fp32"])


BLOCKS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_python_runs(code: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(code, run)
    with open_source("synthetic://?size=96x64&frames=8") as source:
        frames = [(frame.image, frame.time) for frame in source]
    shown: list[object] = []
    code = code.replace("rtsp://camera/stream", "synthetic://?size=96x64&frames=8")
    exec(code, {"framecast": framecast, "frames": frames, "show": shown.append})
    assert ("show(" in code) == bool(shown)

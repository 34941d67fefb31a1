"""Which part may import which; the links that make the rooms one package; the length of files.

All imports count: at the top, inside functions (lazy), and under ``TYPE_CHECKING``, which is a dependency, too.
``importlib.import_module`` counts if its argument is a literal. ``LAZY_ALLOWED`` lists exceptions for imports inside
functions, such as torch in the torch engine and in LPIPS.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "framecast"
ROOMS = ("bench", "camera", "evaluation", "export", "graph", "kernels", "models", "runtime", "training")
FOLDERS = ("cli", "testing")  # folders of the package that are not rooms
MAX_LINES = 400

# What each part may import from framecast besides itself and the version: whole parts, or packages in them.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "clock": set(),
    "backoff": {"clock"},
    "redact": set(),
    "notice": set(),
    "tables": set(),
    "html": set(),
    "drawing": set(),
    "parsing": set(),
    "files": {"errors", "redact"},
    "camera": {"errors", "clock", "backoff", "redact"},
    "graph": {"errors", "files", "parsing"},
    "runtime": {"errors", "clock", "backoff", "redact", "notice", "files", "parsing", "camera", "graph"},
    "testing": {"errors", "clock", "camera", "graph", "runtime"},
    "evaluation": {"errors", "clock", "redact", "files", "tables", "html", "drawing", "camera", "graph", "runtime"},
    "bench": {
        "errors",
        "clock",
        "redact",
        "files",
        "tables",
        "html",
        "drawing",
        "camera",
        "graph",
        "runtime",
        "testing",
    },
    "kernels": {"errors"},
    "models": {"errors", "kernels", "runtime.motion"},
    "export": {"errors", "redact", "files", "parsing", "camera", "graph", "runtime", "kernels", "models"},
    "training": {"errors", "redact", "files", "parsing", "camera", "graph", "runtime", "kernels", "models"},
}
MAY_IMPORT_ALL = {"__init__", "__main__", "cli", "terminal"}
FREE = {"__version__"}
# Libraries for training and export. A machine that only predicts does not have them.
TORCH = {"torch", "torchvision", "triton", "lpips", "onnx", "onnxscript", "safetensors"}
NO_TORCH = {
    "errors",
    "clock",
    "backoff",
    "redact",
    "notice",
    "files",
    "tables",
    "html",
    "drawing",
    "parsing",
    "camera",
    "graph",
    "runtime",
}
NO_TORCH |= {"testing", "evaluation", "bench"}
ONNX = {"graph"}  # edits ONNX graphs
LAZY_ALLOWED = {
    "runtime/engines/torch.py": {"torch", "framecast.export", "framecast.kernels"},
    "runtime/engines/torch_pictures.py": {"torch"},
    "runtime/engines/torch_precision.py": {"torch"},
    "runtime/engines/onnxruntime_cuda.py": {"onnx"},
    "runtime/engines/openvino.py": {"onnx"},
    "evaluation/perceptual.py": {"torch", "torchvision", "lpips"},
}


@dataclass(frozen=True)
class Import:
    """One imported name in full, such as ``framecast.camera.Frame`` for ``from framecast.camera import Frame``."""

    name: str
    line: int
    lazy: bool  # inside a function
    relative: bool = False


def imports(source: str) -> Iterator[Import]:
    """Every import in a module, at any level."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                for alias in child.names:
                    yield Import(f"{child.module or ''}.{alias.name}", child.lineno, lazy, child.level > 0)
            elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(("import_module", "__import__")):
                names = [a.value for a in child.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                yield from (Import(name, child.lineno, lazy) for name in names)
            yield from walk(child, lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    yield from walk(ast.parse(source), lazy=False)


def allowed(name: str, known: set[str]) -> bool:
    """Whether a name within framecast, such as ``runtime.motion.lattice.Lattice``, is in one of the ``known`` parts."""
    return any(f"{name}.".startswith(f"{part}.") for part in known)


def violations(path: str, source: str) -> list[str]:
    """The imports of a module that break the rules.

    Args:
        path: the module's path within the package: ``camera/source.py``, ``cli/run.py``.
        source: its source code.
    """
    part = path.partition("/")[0].removesuffix(".py")
    if part not in MAY_IMPORT and part not in MAY_IMPORT_ALL:
        return [f"{path}: a new part: list in MAY_IMPORT what it may import"]
    found = []
    for item in imports(source):
        top, _, rest = item.name.partition(".")
        known = rest.partition(".")[0]
        if item.lazy and {top, f"{top}.{known}"} & LAZY_ALLOWED.get(path, set()):
            continue
        if item.relative:
            reason = "a relative import"
        elif top in ROOMS:
            reason = "a bare folder name"
        elif part in NO_TORCH and top in TORCH - ({"onnx"} if part in ONNX else set()):
            reason = f"{part} must work without it"
        elif top == "framecast" and part in MAY_IMPORT and not allowed(rest, MAY_IMPORT[part] | {part} | FREE):
            reason = f"{part} may not import it"
        else:
            continue
        found.append(f"{path}:{item.line} imports {item.name}: {reason}")
    return found


def modules() -> dict[str, Path]:
    """Every module of the package, by its path within it."""
    files = {path.name: path for path in PACKAGE.glob("*.py")}
    for folder in FOLDERS:
        files |= {path.relative_to(PACKAGE).as_posix(): path for path in (PACKAGE / folder).glob("*.py")}
    for room in ROOMS:
        files |= {path.relative_to(ROOT).as_posix(): path for path in (ROOT / room).rglob("*.py")}
    return files


def test_every_module_keeps_the_rules() -> None:
    files = modules()
    assert {path.partition("/")[0] for path in files if "/" in path} == {*ROOMS, *FOLDERS}
    assert [line for path, file in files.items() for line in violations(path, file.read_text())] == []


def cycle(known: dict[str, set[str]]) -> list[str]:
    """The names along an import cycle; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(known.get(name, ())):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(known) if (found := walk(name, []))), [])


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_parts_and_modules_have_no_import_cycle() -> None:
    assert cycle(MAY_IMPORT) == []
    files = modules()
    names = {f"framecast.{path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}" for path in files}
    known: dict[str, set[str]] = {}
    for path, file in files.items():
        name = f"framecast.{path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"
        found = set()
        for item in imports(file.read_text()):
            # ``framecast/__init__.py`` refers to every room, but imports them only on first use.
            imported = item.name if item.name in names else item.name.rpartition(".")[0]
            if imported in names and not (item.lazy and path in LAZY_ALLOWED):
                found.add(imported)
        known[name] = found - {name}
    assert len(known) > 150
    assert cycle(known) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_tests_and_benchmarks_import_the_package_by_its_name(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        found = [item for item in imports(file.read_text()) if not item.relative]
        bare = [item for item in found if item.name.partition(".")[0] in ROOMS]
        assert not bare, file


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("camera/file.py", "from framecast.runtime.score import psnr", "camera may not import it"),
        ("camera/file.py", "import framecast.models", "camera may not import it"),
        ("camera/file.py", "import framecast", "camera may not import it"),
        ("camera/file.py", "from framecast import load", "camera may not import it"),
        ("camera/file.py", "from .source import Source", "a relative import"),
        ("camera/file.py", "import camera.source", "a bare folder name"),
        ("camera/file.py", "import torch", "camera must work without it"),
        ("runtime/predictor.py", "from torch import nn", "runtime must work without it"),
        ("runtime/predictor.py", "def f():\n    import torch.nn", "runtime must work without it"),
        (
            "runtime/predictor.py",
            "def f():\n    if True:\n        from framecast.export import onnx",
            "may not import it",
        ),
        (
            "runtime/sinks/sink.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from framecast.training import data",
            "runtime may not import it",
        ),
        (
            "runtime/manifest.py",
            "import importlib as i\ni.import_module('framecast.models')",
            "may not import it",
        ),
        ("runtime/engines/torch.py", "import torch", "runtime must work without it"),
        ("runtime/engines/torch.py", "def f():\n    from framecast.training import data", "may not import it"),
        ("runtime/engines/onnxruntime.py", "def f():\n    import torch", "runtime must work without it"),
        ("runtime/engines/tensorrt/library.py", "def f():\n    import onnx", "runtime must work without it"),
        ("runtime/engines/tensorrt/cache.py", "from framecast.export import onnx", "runtime may not import it"),
        ("runtime/engines/openvino.py", "def f():\n    from framecast.export import onnx", "runtime may not import it"),
        ("graph/split.py", "from framecast.runtime import engines", "graph may not import it"),
        ("graph/split.py", "import torch", "graph must work without it"),
        ("evaluation/clips.py", "from framecast.bench import steps", "evaluation may not import it"),
        ("evaluation/perceptual.py", "import lpips", "evaluation must work without it"),
        ("evaluation/perceptual.py", "def f():\n    from framecast.models import stip", "evaluation may not import it"),
        ("evaluation/metrics.py", "def f():\n    import torch", "evaluation must work without it"),
        ("models/stip.py", "from framecast.runtime.score import psnr", "models may not import it"),
        ("models/edge.py", "from framecast.runtime import motion_blur", "models may not import it"),
        ("kernels/gates/kernel.py", "from framecast.models import blocks", "kernels may not import it"),
        ("export/onnx.py", "from framecast.training.data import decode", "export may not import it"),
        ("export/onnx.py", "from framecast.cli import main", "export may not import it"),
        ("errors.py", "from framecast.camera import Frame", "errors may not import it"),
        ("helpers.py", "", "a new part"),
        ("cli/run.py", "def f():\n    from models import stip", "a bare folder name"),
    ],
)
def test_a_violation_is_found(path: str, source: str, reason: str) -> None:
    (found,) = violations(path, source)
    assert reason in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "camera/file.py",
            "import cv2\nfrom framecast.camera.source import Frame\nimport framecast.errors",
        ),
        ("runtime/predictor.py", "from framecast.camera import Frame\nfrom framecast.runtime import score"),
        ("runtime/report.py", "from framecast import __version__"),
        (
            "runtime/engines/torch.py",
            "def f():\n    import torch\n    from framecast.export.load_network import load_network",
        ),
        ("runtime/engines/onnxruntime.py", "import onnxruntime"),
        ("runtime/engines/tensorrt/library.py", "def f():\n    import tensorrt_rtx"),
        ("evaluation/perceptual.py", "def f():\n    import torch\n    import lpips"),
        ("evaluation/plots.py", "import matplotlib\nfrom framecast.runtime.score import psnr"),
        ("models/stip.py", "import torch\nfrom framecast.kernels.stgru_gates.operator import stgru_gates"),
        ("models/edge.py", "from framecast.runtime.motion.lattice import Lattice"),
        (
            "export/onnx.py",
            "import onnx\nimport framecast.models.step\nfrom framecast.graph import manifest",
        ),
        ("cli/run.py", "import framecast\ndef f():\n    from framecast.export import onnx\n    import torch"),
    ],
)
def test_an_allowed_import_is_no_violation(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_a_relative_link_to_the_root_folder(room: str) -> None:
    link = PACKAGE / room
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{room}"
    assert link.resolve() == ROOT / room
    assert (link / "__init__.py").is_file()


def test_the_import_root_has_no_other_folder() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {*ROOMS, *FOLDERS, "assets"}


def test_no_source_file_is_too_long() -> None:
    suffixes = {".py", ".js", ".css", ".html", ".sh"}
    folders = (*ROOMS, "src", "tests", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    assert len(files) > len(ROOMS)
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}

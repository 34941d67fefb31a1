"""The modules that an import loads, each time in a fresh interpreter; and the public API."""

from __future__ import annotations

import importlib.metadata
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import framecast

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "cv2", "onnxruntime", "onnx", "aiohttp")
API = {
    "load",
    "open",
    "run",
    "run_cameras",
    "Frame",
    "Source",
    "Result",
    "Sink",
    "evaluate",
    "benchmark",
    "Predictor",
    "Prediction",
    "Stream",
    "FramecastError",
    "SourceError",
    "FrameError",
    "ArtifactError",
    "Camera",
    "EngineError",
    "ExportError",
    "SinkError",
    "OptionError",
    "__version__",
}
HELP = """
import sys
from framecast.cli import main
sys.argv = ["framecast", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running the code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(room: str) -> list[str]:
    """The full name of every module of a room, found without importing any."""
    names = [f"framecast.{room}"]
    for module in pkgutil.iter_modules([str(ROOT / room)]):
        names += modules_of(f"{room}/{module.name}") if module.ispkg else [f"framecast.{room}.{module.name}"]
    return [name.replace("/", ".") for name in names]


def test_import_loads_no_heavy_library() -> None:
    assert loaded_by("import framecast") & set(HEAVY) == set()


def test_help_loads_no_heavy_library() -> None:
    assert loaded_by(HELP) & {*HEAVY, "tomllib", "tomli"} == set()


def test_the_table_of_configurations_needs_no_torch() -> None:
    code = "from framecast.models.configs import CONFIGS\nassert CONFIGS"
    assert loaded_by(code) & set(HEAVY) == set()


def test_no_module_of_camera_or_runtime_loads_torch() -> None:
    modules = modules_of("camera") + modules_of("runtime")
    assert {"framecast.camera.source", "framecast.runtime.sinks.sink"} <= set(modules)
    # The torch engine may load torch; it is imported only on request.
    modules = [name for name in modules if name != "framecast.runtime.engines.torch"]
    loaded = loaded_by("".join(f"import {name}\n" for name in modules))
    assert loaded & {"torch", "onnx", "onnxscript", "triton"} == set()


def test_the_public_api_is_exactly_this() -> None:
    assert set(framecast.__all__) == API
    assert len(framecast.__all__) == len(API)
    for name in framecast.__all__:
        assert getattr(framecast, name) is not None
        assert name in dir(framecast)


def test_the_version_is_the_one_in_pyproject() -> None:
    assert f'version = "{framecast.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert importlib.metadata.version("framecast") == framecast.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(framecast, "no_such_name")

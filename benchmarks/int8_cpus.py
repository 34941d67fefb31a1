"""int8 on several kinds of CPU: which schemes give identical integers on all, what they cost in dB, and their speed.

``python benchmarks/int8_cpus.py --calibration CLIPS [MODEL…]`` prints

- for each scheme and CPU, how many single integer layers match a computation in 64-bit integers;
- for each model and CPU, how many int8 layers in ONNX Runtime match this CPU's on the same inputs, and how far the
  predictions are from this CPU's (float32 differences between the layers may change a rounding to int8);
- on this CPU, the change of the next frame's PSNR against float32, and the speed of a live step relative to float32,
  measured alternately: in ONNX Runtime, in OpenVINO, and in OpenVINO without VNNI (ONEDNN_MAX_CPU_ISA=AVX2, not
  emulated).

QEMU's user mode emulates the other CPUs (``apt-get install qemu-user``), so it gives no speeds. Haswell has AVX2 but no
VNNI; Nehalem has neither. ``--python NAME=COMMAND`` adds another Python with numpy and onnxruntime, such as an ARM one:
``qemu-aarch64 -L ROOT -cpu cortex-a72 ROOT/usr/bin/python3.11``, where ROOT has Debian's arm64 packages. Bind-mount
an ARM CPU's text over /proc/cpuinfo, which ONNX Runtime reads.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _int8_layers import cut, write
from _machine import header, script

from framecast.bench.machine import busy, describe
from framecast.bench.steps import live_step, measure
from framecast.bench.summary import ratio
from framecast.camera import Image, open_source
from framecast.evaluation.clips import find_clips
from framecast.evaluation.parity import drift
from framecast.runtime.convert import to_input
from framecast.runtime.cpu import int8
from framecast.runtime.engines import open_engine
from framecast.runtime.engines.engine import state_buffers
from framecast.runtime.shipped import find
from framecast.runtime.stepper import Stepper

CHILD = Path(__file__).with_name("_int8_child.py")
HERE = "this CPU"


def main() -> None:
    """Print all three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["stip-edge"], metavar="MODEL")
    parser.add_argument("--calibration", nargs="+", required=True, help="clips, or folders of them")
    parser.add_argument("--frames", type=int, default=32, help="frames per clip to calibrate on (default: 32)")
    parser.add_argument("--schemes", nargs="+", default=["u8s8", "u8s7", "s8s8", "u8u8"], help="(default: all)")
    parser.add_argument("--check", nargs="+", default=["demo"], help="clips, or folders of them, that measure dB")
    parser.add_argument(
        "--checked", type=int, default=100, help="frames per such clip (default: 100); 0: no dB, no speed"
    )
    parser.add_argument("--cpus", nargs="*", default=["Haswell"], help="QEMU's names of x86-64 CPUs (default: Haswell)")
    parser.add_argument("--python", nargs="*", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--steps", type=int, default=8, help="steps of a rollout on the emulated CPUs (default: 8)")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="seconds of samples per case (default: 4); 0: no speed"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", help=argparse.SUPPRESS)  # runs one part in a separate process
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        print(json.dumps(in_engine(args)))
        return
    print(f"{header()}\nint8      {int8().instructions}")
    if warning := busy(describe({})):
        print(f"WARNING   {warning}")
    pythons = {HERE: [sys.executable]}
    pythons |= {f"QEMU {cpu}": ["qemu-x86_64", "-cpu", cpu, sys.executable] for cpu in args.cpus}
    pythons |= {name: shlex.split(command) for name, _, command in (one.partition("=") for one in args.python)}
    with tempfile.TemporaryDirectory(prefix="framecast-") as name:
        folder = Path(name)
        layers(folder / "layers", pythons)
        args.folder = folder / "artifacts"
        for model in args.models:
            predictions(model, args, pythons)


def layers(folder: Path, pythons: dict[str, list[str]]) -> None:
    """Print how many single layers of each scheme are exact on each CPU."""
    folder.mkdir()
    expected = write(folder)
    schemes = list(dict.fromkeys(name.partition("-")[0] for name in expected))
    print("\nONNX Runtime, single integer layers: exact/all")
    print(f"{'':24s}" + "".join(f"{scheme:>10s}" for scheme in schemes), flush=True)
    for cpu, command in pythons.items():
        found = on(command, folder)
        cells = []
        for scheme in schemes:
            names = [name for name in expected if name.startswith(f"{scheme}-")]
            cells.append(f"{sum(np.array_equal(found[n], expected[n]) for n in names)}/{len(names)}")
        print(f"{cpu:24s}" + "".join(f"{cell:>10s}" for cell in cells), flush=True)


def predictions(model: str, args: argparse.Namespace, pythons: dict[str, list[str]]) -> None:
    """Print a model's part: its predictions on each CPU, and its quality and speed on this one."""
    from framecast.export.quantize import quantize

    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir()
    clips = find_clips(args.calibration)
    (args.folder / "float32.onnx").write_bytes(find(model).read_bytes())
    for scheme in args.schemes:
        frames = (pictures(clip, args.frames) for clip in clips)
        done, count = quantize(find(model), args.folder / f"{scheme}.onnx", frames, "clips", scheme=scheme)
    names = ["float32", *args.schemes]
    print(f"\n{model}: {done} of {count} layers in int8, calibrated on {args.frames} frames of {len(clips)} clips")
    across(names, args, pythons)
    if not args.checked:
        return
    checked = f"{args.checked} frames of {', '.join(args.check)}"
    print(f"dB of the next frame against float32, mean (worst clip) over {checked};")
    print(f"times as fast as float32 in the same engine, {args.threads} thread(s) of {HERE}")
    print(f"{'':8s}" + "".join(f"{engine:>44s}" for engine in ENGINES))
    parts = {engine: part(args, model, engine) for engine in ENGINES}
    for name in names:
        cells = []
        for found in parts.values():
            changes, speed = found["psnr"][name], found["speed"].get(name)
            cell = f"{np.mean(changes):+.3f} dB ({min(changes):+.3f})"
            cells.append(cell + (f"  {speed[0]:.2f} ({speed[1]:.2f} … {speed[2]:.2f})" if speed else ""))
        print(f"{name:8s}" + "".join(f"{cell:>44s}" for cell in cells), flush=True)


def across(names: list[str], args: argparse.Namespace, pythons: dict[str, list[str]]) -> None:
    """Print how far each CPU's int8 layers and predictions are from this CPU's."""
    if len(pythons) == 1:
        return
    expected: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        inputs = seen(args.folder / f"{name}.onnx", args.steps)
        np.savez(args.folder / f"{name}.npz", frames=np.stack([step["frame"] for step in inputs]))
        if name != "float32":
            (args.folder / name).mkdir(exist_ok=True)
            expected[name] = cut(args.folder / f"{name}.onnx", inputs[-1], args.folder / name)
    print(f"ONNX Runtime, int8 layers with their inputs of step {args.steps}: identical to {HERE}/all")
    print(f"{'':24s}" + "".join(f"{name:>20s}" for name in args.schemes), flush=True)
    others = list(pythons.items())[1:]
    for cpu, command in others:
        cells = []
        for name, wanted in expected.items():
            found = on(command, args.folder / name)
            cells.append(f"{sum(np.array_equal(found[label], value) for label, value in wanted.items())}/{len(wanted)}")
        print(f"{cpu:24s}" + "".join(f"{cell:>20s}" for cell in cells), flush=True)
    print(f"ONNX Runtime, predictions of {args.steps} steps compared with {HERE}: largest and mean difference")
    print(f"{'':24s}" + "".join(f"{name:>20s}" for name in names), flush=True)
    reference = on(pythons[HERE], args.folder)
    for cpu, command in others:
        found = on(command, args.folder)
        errors = [np.abs(found[name] - reference[name]) for name in names]
        print(f"{cpu:24s}" + "".join(f"{e.max():>11.1e}{e.mean():>9.1e}" for e in errors), flush=True)


def seen(artifact: Path, steps: int) -> list[dict[str, np.ndarray]]:
    """Return the inputs of an artifact's first steps on the demo clip."""
    found = []
    with open_engine(artifact) as engine:
        stepper = Stepper(engine)
        for image in pictures("demo", steps):
            frame, state = to_input(image, engine.manifest), state_buffers(engine.manifest, stepper.state)
            found.append({"frame": frame, **{name: tensor.copy() for name, tensor in state.items()}})
            stepper.step(frame)
    return found


ENGINES = {
    "ONNX Runtime": ("onnxruntime", {}),
    "OpenVINO": ("openvino", {}),
    "OpenVINO, AVX2": ("openvino", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
}


def part(args: argparse.Namespace, model: str, engine: str) -> dict[str, Any]:
    """Run :func:`in_engine` in a separate process, because oneDNN reads its environment only once."""
    name, environment = ENGINES[engine]
    command = [sys.executable, __file__, model, "--engine", name, "--folder", str(args.folder), "--calibration", "-"]
    command += ["--check", *args.check, "--schemes", *args.schemes]
    for option in ("checked", "seconds", "threads"):
        command += [f"--{option}", str(getattr(args, option))]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_engine(args: argparse.Namespace) -> dict[str, Any]:
    """Return each artifact's change of PSNR per clip in dB, and its speed relative to float32, by name."""
    names = ["float32", *args.schemes]
    psnr: dict[str, list[float]] = {}
    for name in names:
        with (
            open_engine(args.folder / "float32.onnx", "onnxruntime", threads=args.threads) as whole,
            open_engine(args.folder / f"{name}.onnx", args.engine, threads=args.threads) as engine,
        ):
            clips = find_clips(args.check) if args.check != ["demo"] else args.check
            psnr[name] = [drift(whole, engine, pictures(clip, args.checked)).psnr_change for clip in clips]
    speed = {}
    if args.seconds:
        frames = pictures("demo", 40)
        opened = [open_engine(args.folder / f"{name}.onnx", args.engine, threads=args.threads) for name in names]
        cases = [live_step(name, engine, frames) for name, engine in zip(names, opened, strict=True)]
        rounds = [series.by_round() for series in measure(cases, duration=args.seconds)]
        for name, one in zip(names, rounds, strict=True):
            found = ratio(rounds[0], one)
            speed[name] = (found.median, found.low, found.high)
    return {"psnr": psnr, "speed": speed}


def on(command: list[str], folder: Path) -> dict[str, np.ndarray]:
    """Run a folder's graphs with another Python."""
    output = folder / "found.npz"
    done = subprocess.run([*command, CHILD, folder, output], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    found = dict(np.load(output))
    output.unlink()
    return found


def pictures(clip: str, count: int) -> list[Image]:
    """Return the first frames of a clip."""
    with open_source(clip) as source:
        return [frame.image for frame in islice(source, count)]


if __name__ == "__main__":
    script(main)

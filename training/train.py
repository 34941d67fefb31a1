"""Train a network on a folder of videos: ``python -m framecast.training.train VIDEOS --out RUN``.

Truncated back-propagation with the state carried over long streams: a state that has only ever seen short clips drifts
when it is left running. The schedule is in minutes of wall time, so that it fits the machine at hand; with
``--updates`` it is in updates, so that it can be repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import queue
import threading
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from framecast.models.configs import build
from framecast.models.step import State, StepModel
from framecast.training.data import decode, stream, videos
from framecast.training.evaluate import evaluate_folder

FLOOR = (1 / 255) ** 2  # of the log-MSE: errors below one grey level count for little

Chunk = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # [T+1, B, H, W, 3] frames, [T+1, B] where a stream starts


def chunks(args: argparse.Namespace, size: tuple[int, int]) -> queue.Queue[Chunk]:
    """A queue that a thread fills; each chunk begins with the last frame of the one before."""
    print(f"decoding {len(videos(args.videos))} videos into {args.cache}", flush=True)
    clips = [decode(video, args.cache) for video in videos(args.videos)]
    streams = [stream(clips, size, np.random.default_rng([args.seed, b])) for b in range(args.batch)]
    out: queue.Queue[Chunk] = queue.Queue(4)

    def fill() -> None:
        last = [next(s) for s in streams]
        while True:
            rows = [last] + [[next(s) for s in streams] for _ in range(args.unroll)]
            last = rows[-1]
            out.put((np.array([[f for f, _ in r] for r in rows]), np.array([[n for _, n in r] for r in rows])))

    threading.Thread(target=fill, daemon=True).start()
    return out


def loss_over(model: StepModel, frames: Tensor, starts: Tensor, state: State) -> tuple[Tensor, State]:
    """Log-MSE of each next frame over a chunk; where a stream starts, nothing is foreseen, and the state is reset."""
    total = frames.new_zeros(())
    for t in range(len(frames) - 1):
        keep = (~starts[t]).float()
        state = {name: value * keep.view(-1, *[1] * (value.dim() - 1)) for name, value in state.items()}
        prediction, state = model.step(frames[t], state)
        mse = (prediction[:, 0].float() - frames[t + 1]).square().mean(dim=(1, 2, 3))
        total = total + ((~starts[t + 1]) * torch.log(mse + FLOOR)).mean()
    return total / (len(frames) - 1), {name: value.detach() for name, value in state.items()}


def main() -> None:
    """Train, keeping an average of the weights; evaluate and save it every few minutes."""
    args = _arguments()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(args.model).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-4)
    source = chunks(args, (model.frame_shape[2], model.frame_shape[1]))
    args.out.mkdir(parents=True, exist_ok=True)
    state = model.init_state(args.batch)
    begun, recorded, said, updates, running = time.monotonic(), 0.0, 0.0, 0, math.nan
    while True:
        elapsed = (time.monotonic() - begun) / 60
        done = updates / args.updates if args.updates else elapsed / args.minutes
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (updates + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done))
        images, starts = source.get()
        frames = torch.from_numpy(images).to(device).permute(0, 1, 4, 2, 3).float() / 255
        with torch.autocast(device.type, torch.bfloat16):
            loss, state = loss_over(model, frames, torch.from_numpy(starts).to(device), state)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not norm.isfinite():
            print(
                f"update {updates}: the gradient is not finite (loss {loss.item()}): skipped, streams start anew",
                flush=True,
            )
            state = model.init_state(args.batch)
            continue
        optimizer.step()
        average.update_parameters(model)
        updates += 1
        running = loss.item() if math.isnan(running) else 0.995 * running + 0.005 * loss.item()
        if elapsed - said > 0.5 or updates == 1:
            said = elapsed
            print(f"{elapsed:6.1f} min  {updates:6d} updates  log-MSE {running:.4f}", flush=True)
        if elapsed - recorded > args.every:
            recorded = elapsed
            record(args, average, updates, elapsed)
    record(args, average, updates, elapsed)
    print(f"next: framecast export {args.model} --weights {args.out / 'weights.safetensors'} -o mine.onnx")


def record(args: argparse.Namespace, average: AveragedModel, updates: int, minutes: float) -> None:
    """Save the averaged weights with what is known of them, scored if there are clips to score them on."""
    model = average.module
    assert isinstance(model, StepModel)  # noqa: S101 (what was averaged)
    made = (
        f"{args.videos.name}: {len(videos(args.videos))} clips, {updates} updates of {args.batch}x{args.unroll} frames"
    )
    metadata = {"config": args.model, "weights": made, "licence": args.licence}
    line: dict[str, object] = {"minutes": round(minutes, 1), "updates": updates}
    weights = args.out / "weights.safetensors"
    save_model(model, str(weights), metadata)
    if args.val:
        quality = dataclasses.asdict(evaluate_folder(model, args.val))
        metadata["quality"] = json.dumps(quality)
        line["quality"] = quality
        save_model(model, str(weights), metadata)
    print(json.dumps(line), flush=True)
    with (args.out / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("videos", type=Path, help="a folder of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights.safetensors and log.jsonl")
    parser.add_argument("--val", type=Path, help="a folder of other videos, to score on")
    parser.add_argument("--model", default="stip-edge", help="a configuration's name")
    parser.add_argument("--cache", type=Path, default=Path("runs/frames"), help="decoded frames: 350 kB each")
    parser.add_argument("--minutes", type=float, default=70, help="of wall time")
    parser.add_argument("--updates", type=int, help="in place of minutes")
    parser.add_argument("--every", type=float, default=15, help="minutes between records")
    parser.add_argument("--batch", type=int, default=4, help="streams side by side")
    parser.add_argument("--unroll", type=int, default=4, help="steps that a gradient reaches back")
    parser.add_argument("--lr", type=float, default=6e-4, help="of AdamW, at its height")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the streams")
    parser.add_argument("--licence", default="unknown", help="of the weights: what the videos allow")
    args = parser.parse_args()
    for folder in (args.videos, args.val):
        if folder is not None and not (folder.is_dir() and videos(folder)):
            parser.error(f"no videos in {folder}: give a folder that holds some")
    return args


if __name__ == "__main__":
    main()

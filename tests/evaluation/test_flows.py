"""TaxiBJ's test sequences: scored as floats, with OpenSTL's figures, and shown with both channels side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

import framecast
from framecast.errors import EngineError, OptionError, SourceError
from framecast.evaluation.evaluate import look_up
from framecast.evaluation.page import page
from framecast.evaluation.sequences import evaluate_sequences
from framecast.evaluation.tables import notes, tables

from ..clips import write_flows  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .conftest import MakeContender  # noqa: TID252 (likewise)

SIZE = (32, 32)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("most", [0.02, 1.0])
def test_every_figure_matches_a_plain_recomputation(
    contender: MakeContender, tmp_path: Path, kind: type, most: float
) -> None:
    """With traffic of up to ±0.02, figures of grey levels would be far off."""
    path = write_flows(tmp_path / "dataset.npz", test=3, most=most, kind=kind)
    model = contender(order="NONE", outputs=2, size=SIZE)
    results = evaluate_sequences([model], [str(path)])
    assert (results.given, len(results.ahead), results.clips[0].frames, results.size) == (4, 4, 3, SIZE)
    with np.load(path) as arrays:
        given, truth = (((arrays[name].astype(np.float64) + 1) / 2) for name in ("X_test", "Y_test"))  # [N, 4, C, H, W]
    values = list(given.swapaxes(0, 1))
    while len(values) < 8:  # the model's prediction, twice two frames
        change = 0.4 * (values[-1] - values[-2])
        values += [values[-1] + change, values[-1] + 2 * change]
    step = given[:, 3] - given[:, 2]
    guesses = {
        "trend": np.stack(values[4:], axis=1),
        "copy-last": np.repeat(given[:, 3:], 4, axis=1),
        "linear": np.stack([given[:, 3] + k * step for k in range(1, 5)], axis=1).clip(0, 1),
    }
    assert guesses["trend"].max() > 1 or most < 1  # MSE and MAE are not clipped
    for method, guess in guesses.items():
        error, clipped = guess - truth, guess.clip(0, 1) - truth
        similar = [
            [
                [
                    structural_similarity(g.clip(0, 1), t, channel_axis=0, data_range=data_range)
                    for g, t in zip(guess[:, k], truth[:, k], strict=True)
                ]
                for k in range(4)
            ]
            for data_range in (1, 2)
        ]
        for metric, expected in (
            ("mse", (error**2).sum((2, 3, 4)).mean(0)),
            ("mae", np.abs(error).sum((2, 3, 4)).mean(0)),
            ("mse_clipped", (clipped**2).sum((2, 3, 4)).mean(0)),
            ("mae_clipped", np.abs(clipped).sum((2, 3, 4)).mean(0)),
            ("psnr", (-10 * np.log10((clipped**2).mean((2, 3, 4)))).mean(0)),
            ("ssim", np.mean(similar[0], axis=1)),
            ("ssim_published", np.mean(similar[1], axis=1)),
        ):
            found = results.of(results.mean, method, metric)
            assert found == pytest.approx(list(expected), rel=2e-4, abs=1e-5), (method, metric)


def test_both_channels_are_shown(contender: MakeContender, tmp_path: Path) -> None:
    path = write_flows(tmp_path / "dataset.npz", most=0.02)
    results = evaluate_sequences([contender(order="NONE", size=SIZE)], [str(path)])
    with np.load(path) as arrays:
        last, truth = (arrays["X_test"][1, 3] + 1) / 2, (arrays["Y_test"][1, 0] + 1) / 2
    strip = results.clips[0].strip
    assert np.array_equal(strip.last[..., 0], np.rint(np.hstack(list(last)) * 255))
    assert np.array_equal(strip.truths[0][..., 2], np.rint(np.hstack(list(truth)) * 255))
    assert {image.shape for row in strip.predictions for image in row} == {(32, 64, 3)}
    assert strip.psnr[0][0] == pytest.approx(-10 * np.log10(np.mean((last - truth) ** 2)), abs=1e-3)  # of the floats
    assert "LPIPS is left out: traffic is not a picture" in notes(results)
    shown = page(results)
    assert "compared at 32×32, 2 channels" in shown
    assert shown.count("<img") == 1 + 2 * 4
    small = results.of(results.mean, "copy-last", "mse")[0]
    assert small < 1
    assert tables(results)[1].rows[0][1] == f"{small:.4f}"  # papers' figures are about 0.3


def test_protocols_within_the_file(contender: MakeContender, tmp_path: Path) -> None:
    path = str(write_flows(tmp_path / "dataset.npz"))
    model = contender(order="NONE", size=SIZE)
    found = evaluate_sequences([model], [path], given=6, limit=2)
    assert (len(found.ahead), found.clips[0].frames) == (2, 2)
    assert len(evaluate_sequences([model], [path], given=2, predict=3).ahead) == 3
    for given, predict, message in (
        (None, 5, "cannot predict 5 frames after 4: the sequences have 8 frames"),
        (6, 4, "cannot predict 4 frames after 6: the sequences have 8 frames"),
        (8, None, "--given must be 1 to 7, not 8"),
    ):
        with pytest.raises(OptionError, match=message):
            evaluate_sequences([model], [path], given=given, predict=predict)


def test_bad_use(contender: MakeContender, tmp_path: Path) -> None:
    path, short = write_flows(tmp_path / "dataset.npz"), tmp_path / "short.npy"
    np.save(short, np.zeros((8, 2, 32, 32), np.uint8))
    flows, grey = contender("flows", order="NONE", size=SIZE), contender("grey", order="GRAY", size=SIZE)
    for model, place, message in (
        (grey, path, r"grey takes 32×32 GRAY, .*dataset\.npz holds 32×32 with 2 channels of traffic: .* of that size"),
        (flows, short, r"flows takes 32×32 with 2 channels of traffic, .*short\.npy holds 32×32 GRAY"),
        (contender("flows", order="NONE", size=(16, 32)), path, "flows takes 32×16 with 2 channels of traffic"),
        (contender("slow", order="NONE", size=SIZE, warmup=6), path, "slow needs 6 frames .*: use --given 6"),
    ):
        with pytest.raises(OptionError, match=message):
            evaluate_sequences([model], [str(place)], given=None if place == path else 4)
    with pytest.raises(OptionError, match="cannot evaluate flows on clips: its channels are not a picture"):
        framecast.evaluate({"flows": flows.engine}, "synthetic://?size=64x48&frames=14")
    with pytest.raises(OptionError, match="cannot evaluate flows on clips: its channels are not a picture"):
        framecast.evaluate({"flows": flows.engine}, "synthetic://?size=64x48&frames=14", given=4, predict=2)
    with pytest.raises(OptionError, match=r"clips and sequences \(.npy, .npz, mnist://\) are scored differently"):
        look_up(
            [path, "demo"], horizon=None, ahead=None, size=None, rivals=None, frames=None, given=None, predict=None,
            layout=None, sequences=None,
        )  # fmt: skip
    with pytest.raises(EngineError, match="not finite 2 frames ahead"):
        evaluate_sequences([contender(order="NONE", size=SIZE, poison=5)], [str(path)])
    with pytest.raises(SourceError, match=r"cannot read .*none\.npz as TaxiBJ: No such file"):
        evaluate_sequences([flows], [str(tmp_path / "none.npz")])

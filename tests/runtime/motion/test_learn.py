from __future__ import annotations

import numpy as np

from framecast.runtime.motion import learn


def test_products_are_means_of_each_block() -> None:
    told = np.random.default_rng(0).normal(0, 1, (3, 8, 12, 3)).astype(np.float32)
    found = learn.products(told, 2, 3)
    for row in range(2):
        for column in range(3):
            block = told[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4].reshape(3, -1).astype(np.float64)
            np.testing.assert_allclose(found[row * 3 + column], block @ block.T / block.shape[1], rtol=1e-5, atol=1e-6)


def test_least_squares_as_in_float64() -> None:
    noise = np.random.default_rng(1)
    guesses = noise.normal(0, 5, (4, 6, 200))
    truth = (guesses * noise.normal(0, 1, (4, 6, 1))).sum(axis=1, keepdims=True) + noise.normal(0, 1, (4, 1, 200))
    rows = np.concatenate([guesses, truth], axis=1)
    statistics = rows @ rows.transpose(0, 2, 1) / 200
    prior, firmness = noise.normal(0, 1, 6), np.diag(noise.uniform(0.1, 1, 6))
    found = learn.solved(statistics.astype(np.float32), prior.astype(np.float32), firmness.astype(np.float32))
    root = np.sqrt(firmness)
    for block in range(4):  # stacked: the firmness acts as additional observations
        a = np.concatenate([guesses[block].T / np.sqrt(200), root])
        b = np.concatenate([truth[block, 0] / np.sqrt(200), root @ prior])
        np.testing.assert_allclose(found[block], np.linalg.lstsq(a, b, rcond=None)[0], rtol=1e-3, atol=1e-3)


def test_guesses_that_are_all_the_same_keep_the_prior() -> None:
    prior = np.array([0.3, 0.0], np.float32)
    found = learn.weights(np.zeros((6, 3, 3), np.float32), prior, [0, 1])
    np.testing.assert_allclose(found, np.tile(prior, (6, 1)), atol=1e-6)


def test_what_is_not_local_has_one_weight() -> None:
    rows = np.random.default_rng(2).normal(0, 3, (5, 4, 50)).astype(np.float32)
    found = learn.weights(np.matmul(rows, rows.transpose(0, 2, 1)) / 50, np.zeros(3, np.float32), [0, 2])
    assert np.ptp(found[:, 1]) == 0
    assert np.ptp(found[:, 0]) > 0


def test_a_frame_that_nobody_could_foresee_counts_little() -> None:
    usual, cut = np.full((2, 2, 2), 4, np.float32), np.full((2, 2, 2), 4e4, np.float32)
    after = learn.updated(learn.updated(None, usual), cut)
    assert after.max() < 2


def test_flashes_leave_a_system_that_can_be_solved() -> None:
    """Black and white frames alternate. float32 loses the firmness beside the large products; all guesses are equal."""
    flash = np.full((1, 3, 8, 8, 3), 255.0, np.float32)
    statistics = learn.products(np.concatenate([flash[0], flash[0][:1]]), 2, 2) * np.float32(1e9)
    prior = np.array([0.3, 0, 0], np.float32)
    found = learn.weights(statistics, prior, [0, 1, 2])
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= learn.LARGEST
    assert np.array_equal(
        learn.solved(np.zeros((2, 4, 4), np.float32), prior, np.zeros((3, 3), np.float32)), [prior] * 2
    )

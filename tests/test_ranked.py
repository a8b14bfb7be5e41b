"""Medians and quantiles against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from hwr.ranked import median, quantile


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 7), (64, 301), (63, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_medians_and_quantiles_are_those_of_numpy(shape, dtype):
    rng = np.random.default_rng(0)
    for values in (rng.integers(0, 256, shape).astype(dtype), rng.integers(0, 3, shape).astype(dtype)):
        before = values.copy()
        for axis in (None, 0, 1):
            want = np.median(values, axis=axis).astype(np.float32)
            assert median(values, axis).dtype == np.float32
            assert np.array_equal(median(values, axis), want)
        for share in (0.0, 0.25, 0.5, 0.995, 1.0):
            assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-6)
        assert np.array_equal(values, before)


@pytest.mark.parametrize("values", [[0.0], [-3.5, 1e6], [0.1] * 9, [1e-30, 0.0, -1e-30], list(range(-700, 5000, 3))])
def test_values_far_apart_alike_or_next_to_each_other(values):
    found = np.array(values, np.float32)
    assert median(found) == np.median(found)
    assert quantile(found, 0.995) == pytest.approx(np.quantile(found, 0.995), rel=1e-6)

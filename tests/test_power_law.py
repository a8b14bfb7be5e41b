"""Power laws are found where they are, and what they say of labels never seen is said with its doubt."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from hwr.power_law import Need, PowerLaw, fit, needed, shown

SIZES = (20, 50, 200, 1000, 4000)


def errors(law: PowerLaw, seeds: int, noise: float, seed: int = 0) -> dict[int, list[float]]:
    rng = np.random.default_rng(seed)
    return {n: list(law(n) * np.exp(noise * rng.normal(size=seeds))) for n in SIZES}


@pytest.mark.parametrize(
    ("a", "b", "c"), [(3, 0.6, 0.02), (1, 0.3, 0), (2, 0.5, 0.1), (50, 1.5, 0.01), (5, 4.0, 0.001), (0.9, 0, 0)]
)
@pytest.mark.parametrize("sizes", [(50, 200, 1000), (10, 20, 50, 100, 5000)])
def test_exact_points_give_the_law_back(a: float, b: float, c: float, sizes: tuple[int, ...]) -> None:
    law = PowerLaw(a, b, c)
    found = fit({n: [float(law(n))] for n in sizes})
    assert found is not None
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-5, abs=1e-9)
    assert found.off < 1e-6


def test_noise_gives_about_the_law_and_a_need_that_covers_the_truth() -> None:
    law = PowerLaw(2.0, 0.5, 0.02)
    covered = 0
    for seed in range(20):
        runs = errors(law, 5, 0.05, seed)
        found, need = fit(runs), needed(runs, 0.06)
        assert found is not None
        assert need is not None
        assert need.low is not None
        assert need.high is not None
        assert found(500) == pytest.approx(law(500), rel=0.1)
        assert need.low <= need.labels <= need.high
        covered += need.low <= law.labels(0.06) <= need.high
    assert covered >= 15  # of 95 %, from five seeds a size


def test_the_best_of_all_curves_not_of_some() -> None:
    """No other curve near or far has smaller squares."""
    runs = errors(PowerLaw(2.0, 0.5, 0.02), 3, 0.2)
    found = fit(runs)
    assert found is not None

    def loss(law: PowerLaw) -> float:
        return sum((np.log(error) - np.log(float(law(n)))) ** 2 for n, each in runs.items() for error in each)

    rng = np.random.default_rng(0)
    for _ in range(2000):
        factor = np.exp(rng.choice([0.01, 0.1, 0.5]) * rng.normal(size=3))
        assert loss(found) <= loss(PowerLaw(found.a * factor[0], found.b * factor[1], found.c * factor[2])) + 1e-12


def test_every_run_counts_once() -> None:
    once = {50: [0.5], 200: [0.3], 1000: [0.1], 2000: [0.2]}
    even, thrice, uneven = fit(once), fit({n: each * 3 for n, each in once.items()}), fit({**once, 2000: [0.2] * 9})
    assert even is not None
    assert thrice is not None
    assert uneven is not None
    assert even(2000) == pytest.approx(thrice(2000))
    assert abs(np.log(uneven(2000) / 0.2)) < abs(np.log(thrice(2000) / 0.2))


@pytest.mark.parametrize("sizes", [(), (50,), (50, 200)])
def test_two_sizes_are_no_curve(sizes: tuple[int, ...]) -> None:
    runs = {n: [0.1, 0.2] for n in sizes}
    assert fit(runs) is None
    assert needed(runs, 0.05) is None


def test_one_seed_has_no_interval() -> None:
    assert needed({50: [0.5], 200: [0.25], 800: [0.125]}, 0.0625) == Need(pytest.approx(3200), None, None)


def test_what_is_never_reached() -> None:
    runs = errors(PowerLaw(2.0, 0.5, 0.1), 3, 0.01)
    assert needed(runs, 0.05) == Need(inf, inf, inf)
    worse = {50: [0.5, 0.4], 200: [0.6, 0.5], 1000: [0.9, 0.8]}  # more labels, more errors: no curve rises
    law = fit(worse)
    assert law is not None
    assert law.b == 0
    assert law.labels(0.05) == inf


def test_no_error_at_all_counts_as_half_of_one() -> None:
    runs = {50: [0.1, 0.2], 200: [0.0, 0.01], 1000: [0.0, 0.0]}
    law = fit(runs, floor=0.001)
    assert law is not None
    assert law(1000) == pytest.approx(0.001, rel=0.5)


@pytest.mark.parametrize(
    ("labels", "text"),
    [(3.2, "3"), (47.3, "47"), (346, "350"), (2944, "2,900"), (1166570.4, "1,200,000")],
)
def test_shown(labels: float, text: str) -> None:
    assert shown(labels) == text

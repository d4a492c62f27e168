"""Statistics of the comparison on plain arrays, whose law is known."""

from __future__ import annotations

import _synthetic as synthetic
import numpy as np
import pytest
from scipy import special, stats

from validation.comparison import statistics


def table_of(values: list[np.ndarray], dimensions) -> statistics.Data:
    counts = np.array([len(x) for x in values])
    return statistics.Data(
        np.array(dimensions),
        counts,
        np.array([x.mean(axis=0) for x in values]),
        np.array([x.var(axis=0, ddof=1) / len(x) for x in values]),
        values,
    )


# Estimates.


@pytest.mark.parametrize(("dimensions", "terms"), [((50, 100), 1), ((50, 100, 200), 1), ((25, 50, 100, 400), 2)])
def test_polynomials_in_1_over_d_are_extrapolated_exactly(dimensions, terms):
    d = np.array(dimensions, dtype=float)
    design = statistics.Design.of(np.array(dimensions), np.arange(5, 5 + len(d)), terms)
    means = 0.7 - 3.0 / d + (40.0 / d**2 if terms == 2 else 0.0)
    assert design.limit @ means == pytest.approx(0.7, abs=1e-12)
    assert design.slopes[0] @ means == pytest.approx(-3.0, abs=1e-9)
    assert design.limit.sum() == pytest.approx(1.0, abs=1e-12)


def test_weights_of_the_fit_are_replicas_times_dimension():
    d, counts = np.array([40, 90, 250]), np.array([30, 10, 5])
    means = np.array([1.3, 0.9, 1.1])
    design = statistics.Design.of(d, counts, 1)
    slope, limit = np.polyfit(1.0 / d, means, 1, w=np.sqrt(d * counts))
    assert design.limit @ means == pytest.approx(limit, rel=1e-10)
    assert design.slopes[0] @ means == pytest.approx(slope, rel=1e-10)


def test_normal_score_has_the_probability_of_student():
    t, dof = np.array([-7.0, -1.0, 0.0, 0.5, 4.0, 30.0]), np.array([3.0, 1.0, 9.0, 2.5, 7.0, 12.0])
    expected = -special.ndtri(stats.t.sf(t, dof))
    assert statistics._normal_score(t, dof) == pytest.approx(expected, rel=1e-8, abs=1e-12)
    z = statistics._normal_score(np.array([4.0, 4.0, 4.0]), np.array([9.0, 1e12, np.inf]))
    # Student's law with 1e6 degrees of freedom stands for the normal one.
    assert z[0] < 3.1 and z[1] == pytest.approx(4.0, rel=1e-5) and z[2] == pytest.approx(4.0, rel=1e-5)


def test_normal_score_far_out_is_finite_increasing_and_continuous():
    t = np.geomspace(1.0, 1e8, 400)
    z = statistics._normal_score(t, np.full(400, 60.0))
    assert np.isfinite(z).all() and (np.diff(z) > 0.0).all()
    assert np.diff(z).max() < 0.3
    for t, dof in ((1e4, 40.0), (50.0, 400.0), (28.0, 1e5)):  # where both ways work
        far = statistics._far_score(np.array([t]), np.array([dof]))
        assert far == pytest.approx(-special.ndtri(special.stdtr(dof, -t)), rel=1e-9)
    assert statistics._normal_score(np.array([-500.0]), np.array([np.inf]))[0] == -500.0


# p-values.


def null_reports(random, count, replicas, dimensions, memory, power=0.5):
    """Family-wise, normality and misfit p-values of data for which the theory is right."""
    rows, curves, result = 40, 2, []
    theory = statistics.Theory(np.zeros(rows), np.zeros(rows), np.repeat(np.arange(curves), rows // curves))
    for _ in range(count):
        values = []
        for d, r in zip(dimensions, replicas, strict=True):
            noise = synthetic.correlated(random, (r, curves, rows // curves), memory).reshape(r, rows)
            values.append(noise / d**power + np.linspace(2.0, -1.0, rows) / d)
        data = table_of(values, dimensions)
        design = statistics.Design.of(data.dimensions, data.counts, min(len(dimensions) - 1, 1))
        z = statistics.limit_scores(data, design, theory).z
        drawn = statistics.null_scores(data, design, theory, 120)
        check = statistics.check_normality(z, drawn)
        misfit = statistics._misfit_p_value(data, design, 120) if len(dimensions) > 2 else 0.5
        result.append((statistics.family_p_value(z, drawn), check.p_value, check.mean_square_p_value, misfit))
    return np.array(result)


@pytest.mark.parametrize(
    ("replicas", "dimensions", "memory", "power"),
    [
        ((8,), (100,), 0.95, 0.5),
        pytest.param((8, 8), (50, 100), 0.95, 0.5, marks=pytest.mark.slow),
        pytest.param((8, 8, 8), (50, 100, 200), 0.95, 0.5, marks=pytest.mark.slow),
        ((8, 8, 8), (50, 100, 200), 0.3, 0.5),
        ((20, 12, 6), (50, 100, 200), 0.95, 0.5),
        ((10, 10), (50, 200), 0.95, 0.0),  # variances that do not depend on d, against the assumption
    ],
)
def test_p_values_are_uniform_when_the_theory_is_right(replicas, dimensions, memory, power):
    p = null_reports(np.random.default_rng(11), 250, replicas, dimensions, memory, power)
    family, distance, square, misfit = p.T
    # 250 reports: the standard error of a rate of 5 % is 1.4 %, of 50 % it is 3.2 %.
    assert 0.015 <= np.mean(family <= 0.05) <= 0.085
    assert np.mean(distance <= 0.05) <= 0.1 and np.mean(square <= 0.05) <= 0.1 and np.mean(misfit <= 0.05) <= 0.1
    for column in (family, distance, square):
        assert 0.39 <= np.mean(column <= 0.5) <= 0.61

"""Comparison of theory and simulation on synthetic data, whose truth is known."""

from __future__ import annotations

import csv
import json
import time

import _synthetic as synthetic
import numpy as np
import pytest
from scipy import stats

import dmft
from dmft.simulation import Sample, Settings, Simulation
from dmft.solution import mode_names
from dmft.status import Status
from validation.comparison import OBSERVABLES, Outcome, compare, normality, statistics
from validation.comparison.plots import plot_family

TIMES = np.concatenate([[0.0], np.geomspace(0.02, 50.0, 19)])
PAIRS = np.array([0.0, 1.0, 5.0, 20.0])


def theory_arrays(solution, t, pairs) -> dict[str, np.ndarray]:
    form = solution.formulation
    curves = solution.at(t)
    tt, ss = np.meshgrid(pairs, pairs, indexing="ij")
    groups = form.groups
    modes = [solution.correlation(tt, ss, "S", (g, h)) for g in range(groups) for h in range(groups)]
    modes += [solution.correlation(tt, ss, "T", (g, g)) for g in range(groups) if form.sizes[g] > 1]
    return {
        "train_error": curves.train_error,
        "test_error": curves.test_error,
        "a": curves.a.reshape(len(t), groups),
        "v": curves.v.reshape(len(t), groups, form.latent_dimension),
        "correlation": np.array(modes),
        "residual_correlation": solution.residual_correlation(tt, ss),
    }


def simulate(
    solution,
    dimension: int = 100,
    replicas: int = 10,
    *,
    seed: int = 0,
    first: int = 0,
    t=TIMES,
    pairs=PAIRS,
    noise: float = 0.3,
    bias: float = 1.0,
    shift: dict | None = None,
    keep: bool = True,
    problem=None,
    rename: dict | None = None,
    drop: tuple = (),
    **settings,
) -> Simulation:
    """Theory + bias/d + correlated noise of size noise/sqrt(d) + shift; a(0) is fixed, as in a simulation."""
    random = np.random.default_rng([seed, dimension, first])
    form = solution.formulation
    t, pairs = np.asarray(t, dtype=float), np.asarray(pairs, dtype=float)
    size = noise / np.sqrt(dimension)
    observables = {}
    for name, exact in theory_arrays(solution, t, pairs).items():
        if name.endswith("correlation"):
            error = size * random.standard_normal((replicas, *exact.shape))
            mirror = error.swapaxes(-1, -2)
            if name == "correlation":  # S_gh(t, t') = S_hg(t', t)
                groups = form.groups
                place = np.arange(len(exact))
                place[: groups**2] = np.arange(groups**2).reshape(groups, groups).T.ravel()
                mirror = mirror[:, place]
            extra = 0.5 * (error + mirror) + bias / dimension
        else:
            wave = np.cos(np.arange(len(t)) / 7.0).reshape(-1, *[1] * (exact.ndim - 1))
            error = np.moveaxis(synthetic.correlated(random, (replicas, *exact.shape[1:], len(t)), 0.9), -1, 1)
            extra = size * error + bias / dimension * wave
        if name == "a":
            extra = extra * (t > 0.0)[:, None]
        observables[name] = exact + extra + (shift or {}).get(name, 0.0)
    samples = {(rename or {}).get(n, n): Sample.of(x) for n, x in observables.items() if n not in drop}
    if not keep:
        samples = {n: Sample(mean=s.mean, sem=s.sem, count=s.count, values=None) for n, s in samples.items()}
    options = {
        "model": "gaussian",
        "dimension": dimension,
        "samples": round(form.alpha * form.width * dimension),
        "seed": seed,
    }
    return Simulation(
        problem=problem or solution.problem,
        settings=Settings(**(options | settings)),
        t=t,
        pair_times=pairs,
        observables=samples,
        replica_index=np.arange(first, first + replicas),
    )


def series(solution, dimensions=(50, 100, 200), **options) -> list[Simulation]:
    return [simulate(solution, d, **options) for d in dimensions]


@pytest.fixture(scope="module")
def solution():
    return synthetic.solution("symmetric")


@pytest.fixture(scope="module")
def report(solution):
    return compare(solution, series(solution))


# Estimates.


def test_one_dimension_by_hand(solution):
    simulation = simulate(solution, replicas=7, shift={"test_error": 0.02})
    row = next(row for row in compare(solution, simulation).rows if row.observable == "test_error" and row.t > 1.0)
    place = int(np.argmin(np.abs(simulation.t - row.t)))
    values = simulation.sample("test_error").values[:, place]
    exact = float(solution.at(row.t).test_error[0])
    span = np.ptp(solution.at(TIMES).test_error)
    bound = solution.rtol * max(exact, span)
    sem = values.std(ddof=1) / np.sqrt(7)
    total = np.hypot(sem, bound)
    # Six degrees of freedom, whatever the bound on the theory adds to the error.
    expected = stats.norm.isf(stats.t.sf((values.mean() - exact) / total, 6))
    assert row.value == pytest.approx(values.mean(), rel=1e-12)
    assert row.error == pytest.approx(sem, rel=1e-12)
    assert row.theory_error == pytest.approx(bound, rel=1e-12)
    assert row.z == pytest.approx(expected, rel=1e-9)
    assert row.gap == pytest.approx((values.mean() - exact) / exact, rel=1e-12)
    assert row.dimensions == (100,) and row.replicas == (7,)
    assert row.z_scores[0] == pytest.approx(row.z)
    assert row.slope is None and row.chi2 is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sign_of_z_gap_and_slope_is_that_of_simulation_minus_theory(solution, sign):
    report = compare(solution, series(solution, noise=0.02, bias=2.0 * sign, shift={"test_error": 0.1 * sign}))
    for row in report.rows:
        if row.observable == "test_error":
            assert sign * row.z > 3.0 and sign * row.gap > 0.05
        if row.observable == "C_r":
            assert sign * row.slope_z > 3.0
            assert row.slope == pytest.approx(2.0 * sign, abs=5 * row.slope_error)


def test_error_and_degrees_of_freedom_of_two_dimensions(solution):
    pair = series(solution, (50, 100), replicas=6)
    row = compare(solution, pair, observables=["train_error"]).rows[5]
    # limit = 2 mean(100) - mean(50)
    parts = np.array([row.sems[0] ** 2, 4.0 * row.sems[1] ** 2])
    assert row.value == pytest.approx(2.0 * row.means[1] - row.means[0], rel=1e-10)
    assert row.error == pytest.approx(np.sqrt(parts.sum()), rel=1e-10)
    assert row.dof == pytest.approx(parts.sum() ** 2 / (parts**2 / 5).sum(), rel=1e-9)
    assert row.slope == pytest.approx(100.0 * (row.means[0] - row.means[1]), rel=1e-9)


# p-values.


def test_whole_reports_rarely_alarm_when_the_theory_is_right(solution, monkeypatch):
    monkeypatch.setattr(statistics, "_DRAWS", (200, 200))
    reports = [
        compare(solution, series(solution, (50, 100), seed=seed, replicas=8), observables=["train_error", "a", "C_o"])
        for seed in range(1, 101)
    ]
    p = np.array([report.p_value for report in reports])
    assert np.mean(p <= 0.05) <= 0.12 and 0.35 <= np.mean(p <= 0.5) <= 0.65
    pooled = normality(reports[:40])
    assert pooled.count == sum(len(report.rows) for report in reports[:40])
    assert pooled.p_value > 0.01 and pooled.mean_square_p_value > 0.01
    assert pooled.effective > 10 * reports[0].sections[0].effective


def test_a_shift_of_one_observable_by_five_errors_is_caught(solution):
    caught = 0
    for seed in range(8):
        noise, replicas = 0.3, 20
        sem = noise / np.sqrt(100 * replicas)
        report = compare(solution, simulate(solution, seed=seed, bias=0.0, replicas=replicas, shift={"v": 5.0 * sem}))
        worst = max(report.rows, key=lambda row: abs(row.z))
        caught += report.sections[0].outcome is Outcome.DIFFERS and worst.observable == "v" and worst.z > 0
    assert caught >= 7


def test_normality_sees_many_small_deviations(solution):
    right = [compare(solution, series(solution, seed=seed)) for seed in (1, 2, 3)]
    wrong = [compare(solution, series(solution, seed=seed, shift={"C_o": 0.05, "v": 0.06})) for seed in (1, 2, 3)]
    assert normality(right).p_value > 0.02
    check = normality(wrong)
    assert check.p_value < 0.05 and check.mean_square_p_value < 0.01
    assert "independent" in str(check)
    assert normality(right[0]).statistic == pytest.approx(right[0].sections[0].normality.statistic)


def test_errors_of_the_theory_within_its_tolerance_are_no_alarm():
    solution = synthetic.solution("symmetric", rtol=0.02)
    shift = dict.fromkeys(("train_error", "test_error"), 0.5 * 0.02)
    report = compare(solution, simulate(solution, noise=0.002, bias=0.0, shift=shift))
    assert report.agrees and report.max_abs_z < 2.0
    strict = synthetic.solution("symmetric", rtol=1e-6)
    assert not compare(strict, simulate(strict, noise=0.002, bias=0.0, shift=shift)).agrees


# Verdicts.


def test_agreement(report):
    section = report.sections[0]
    assert section.outcome is Outcome.AGREES and report.agrees
    assert "agrees within errors after extrapolation from d = 50, 100, 200" in report.verdict
    assert f"{len(report.rows)} comparisons" in report.verdict and "p = " in report.verdict
    assert report.max_abs_z == max(abs(row.z) for row in report.rows)
    assert report.p_value == pytest.approx(section.p_value)
    assert 1.0 < section.effective < len(report.rows)


def test_finite_d_bias_is_told_from_a_difference(solution):
    report = compare(solution, series(solution, bias=20.0))
    section = report.sections[0]
    assert section.outcome is Outcome.BIAS and "finite-d bias explains it" in report.verdict
    assert section.p_value_largest < 0.01 <= section.p_value
    assert abs(max(section.summaries[0].steepest.slope_z, 0.0)) > 5.0


def test_difference_names_where_and_how_much(solution):
    report = compare(solution, series(solution, noise=0.05, shift={"train_error": -0.1}))
    assert report.sections[0].outcome is Outcome.DIFFERS and not report.agrees
    worst = max(report.rows, key=lambda row: abs(row.z))
    assert worst.observable == "train_error"
    assert "differs by -" in report.verdict and "train_error at t = " in report.verdict
    assert "Gaussian approximation" not in report.verdict


def test_difference_of_a_true_network_is_the_price_of_the_approximation(solution):
    network = simulate(solution, 200, model="network", noise=0.05, shift={"test_error": 0.05})
    report = compare(solution, [*series(solution), network])
    assert [section.name for section in report.sections] == [
        "Gaussian model, gradient flow",
        "true network, gradient flow",
    ]
    # The network neither counts as a failure of the theory nor enters the largest z.
    assert report.agrees and report.max_abs_z == report.sections[0].max_abs_z < report.sections[1].max_abs_z
    assert "price of the Gaussian approximation" in report.verdict
    assert "a bias of order 1/d cannot be told apart" in report.verdict
    gap = report.gap("test_error", model="network")
    assert gap.gap > 0.05 and gap.gap == pytest.approx(0.05 / float(solution.at(gap.t).test_error[0]), rel=0.2)
    assert 0.0 < gap.gap_error < 0.02
    spans = {span.observable: span for span in report.within(0.07, model="network")}
    span = spans["test_error"]
    crossing = TIMES[np.argmax(0.05 / solution.at(TIMES).test_error > 0.07)]
    assert span.until is not None and span.until < span.beyond
    assert crossing / 3 < span.beyond < 3 * crossing
    assert spans["a"].beyond is None and spans["a"].until == TIMES[-1] and spans["a"].shown_until == TIMES[-1]


def test_within_from_the_first_time_on_and_with_no_certainty(solution):
    report = compare(solution, simulate(solution, noise=0.01, bias=0.0, shift={"test_error": 0.5}))
    span = next(s for s in report.within(0.05) if s.observable == "test_error")
    assert span.until is None and span.beyond == 0.0 and span.shown_until is None
    loose = compare(solution, simulate(solution, noise=5.0, bias=0.0))
    span = next(s for s in loose.within(0.05) if s.observable == "v")
    assert span.shown_until is None


def test_curvature_in_1_over_d_is_used_only_when_the_data_ask_for_it(solution):
    dimensions = (25, 50, 100, 200)
    straight = compare(solution, series(solution, dimensions))
    assert straight.sections[0].fit == "limit + b/d" and straight.sections[0].fit_p_value > 0.05
    assert straight.rows[0].chi2_dof == 2
    bent = [simulate(solution, d, noise=0.05, bias=100.0 / d) for d in dimensions]
    report = compare(solution, bent)
    assert report.sections[0].fit == "limit + b/d + c/d^2" and report.sections[0].fit_p_value < 0.05
    assert report.agrees and report.rows[0].chi2_dof == 1
    assert any("c/d^2 was added" in note for note in report.notes)
    three = compare(solution, bent[:3])
    assert any("too small" in note for note in three.notes) and three.sections[0].fit == "limit + b/d"


def test_step_of_the_optimiser_is_mentioned(solution):
    report = compare(solution, simulate(solution, optimizer="gd", step=0.02, noise=0.05, shift={"v": 0.1}))
    assert report.sections[0].name == "Gaussian model, gradient descent, step 0.02"
    assert "finite step" in report.verdict


# What is compared.


@pytest.mark.parametrize("kind", ["symmetric", "latent", "grouped", "general"])
def test_every_kind_of_problem(kind, tmp_path):
    solution = synthetic.solution(kind)
    # So little noise that no positive curve is too skewed for ten replicas.
    report = compare(solution, series(solution, (50, 100), noise=0.02, bias=0.1))
    form = solution.formulation
    labels = {row.label for row in report.rows}
    if kind == "symmetric":
        assert labels == {"train_error", "test_error", "a", "v", "C_d", "C_o", "C_r"}
    if kind == "latent":
        assert {"v[0]", "v[1]", "a"} <= labels
    if kind == "grouped":  # the group of one neuron has no C_o with itself
        assert {"a[2]", "v[2]", "C_d[1]", "C_o[0,0]", "C_o[0,1]", "C_o[2,2]"} <= labels
        assert "C_o[1,1]" not in labels and "C_o[1,0]" not in labels
    if kind == "general":
        assert {"C_o[0,1]", "C_o[0,2]", "C_o[1,2]"} == {label for label in labels if label.startswith("C_o")}
    count = {label: sum(row.label == label for row in report.rows) for label in labels}
    assert count["C_r"] == 10 and count["train_error"] == len(TIMES)
    if form.groups > 1:
        assert count["C_o[0,1]"] == 16 and count["a[0]"] == len(TIMES) - 1
    assert report.agrees
    path = tmp_path / "figure.png"
    report.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(report).count("\n") > 10


def test_elements_of_the_correlation_are_those_of_the_neurons():
    """Modes made from weights of six neurons give back the mean Gram elements within and between groups."""
    solution = synthetic.solution("grouped")
    sizes, groups = [3, 1, 2], np.repeat([0, 1, 2], [3, 1, 2])
    random, replicas, d = np.random.default_rng(4), 5, 40
    pairs = PAIRS[:3]
    w = random.standard_normal((replicas, len(pairs), 6, d))
    w /= np.linalg.norm(w, axis=-1, keepdims=True)
    gram = np.einsum("rtid,rsjd->rijts", w, w)
    exact = {}
    for g in range(3):
        for h in range(3):
            block = gram[:, groups == g][:, :, groups == h]
            own = np.eye(sizes[g], dtype=bool) if g == h else np.zeros((sizes[g], sizes[h]), dtype=bool)
            if g == h:
                exact["d", g, g] = block[:, own].mean(axis=1)
            if not own.all():
                exact["o", g, h] = block[:, ~own].mean(axis=1)
    modes = []
    for g in range(3):
        for h in range(3):
            cross = exact.get(("o", g, h), 0.0)
            own = exact["d", g, g] - exact.get(("o", g, g), 0.0) if g == h else 0.0
            modes.append(np.sqrt(sizes[g] * sizes[h]) * cross + own)
    modes += [exact["d", g, g] - exact["o", g, g] for g in (0, 2)]
    assert len(modes) == len(mode_names(solution.formulation))
    simulation = Simulation(
        problem=solution.problem,
        settings=Settings(model="gaussian", dimension=d, samples=72),
        t=[0.0],
        pair_times=pairs,
        observables={"correlation": Sample.of(np.stack(modes, axis=1))},
        replica_index=range(replicas),
    )
    # Bare of meaning as dynamics, so every row differs; what matters is which numbers are compared.
    for row in compare(solution, simulation).rows:
        kind, index = row.observable[2], row.label[row.label.index("[") + 1 : -1].split(",")
        g, h = int(index[0]), int(index[-1])
        i, j = np.searchsorted(pairs, [row.t, row.t_prime])
        values = exact[kind, g, h][:, i, j]
        assert row.means[0] == pytest.approx(values.mean(), abs=1e-12)
        assert row.sems[0] == pytest.approx(values.std(ddof=1) / np.sqrt(replicas), abs=1e-12)
        assert row.theory == pytest.approx(float(solution.correlation(row.t, row.t_prime, kind, (g, h))), abs=1e-12)


def test_fixed_values_are_no_tests_when_right_and_failures_when_wrong(solution):
    report = compare(solution, simulate(solution))
    assert not any(row.label == "a" and row.t == 0.0 for row in report.rows)
    assert any("not counted" in note for note in report.notes)
    wrong = compare(solution, simulate(solution, shift={"a": np.where(TIMES == 0.0, 0.1, 0.0)[:, None]}))
    row = next(row for row in wrong.rows if row.label == "a" and row.t == 0.0)
    assert row.z > 100.0 and wrong.max_abs_z == row.z
    assert wrong.sections[0].outcome is Outcome.DIFFERS and wrong.p_value < 1e-9
    assert compare(solution, series(solution, shift={"a": np.where(TIMES == 0.0, -0.1, 0.0)[:, None]})).max_abs_z > 100


def test_a_wrong_constant_without_any_error_is_infinitely_far(tmp_path):
    still = synthetic.solution("symmetric", v=np.zeros((len(synthetic.grid(0.1, 60.0, 1e-3)), 1, 1)))
    simulation = simulate(still, noise=0.0, bias=0.0, shift={"v": -0.01})
    report = compare(still, simulation, observables=["v"])
    assert report.max_abs_z == np.inf and report.rows[1].z == -np.inf and not report.agrees
    report.to_json(tmp_path / "inf.json")
    assert json.loads((tmp_path / "inf.json").read_text())["max_abs_z"] == "inf"
    report.plot(tmp_path / "inf.png")


def test_fresh_test_error_is_compared_with_the_test_error(solution):
    simulation = simulate(solution, model="network", rename={"test_error": "test_error_fresh"}, test_samples=100)
    report = compare(solution, simulation, observables=["test_error_fresh"])
    row = report.rows[3]
    assert row.theory == pytest.approx(float(solution.at(row.t).test_error[0]))
    assert report.plot() is not None


def test_chosen_observables_and_times(solution):
    simulation = simulate(solution)
    report = compare(solution, simulation, observables=["C_r", "correlation", "v"], times=[1.0, 5.0, TIMES[-1]])
    assert {row.observable for row in report.rows} == {"v", "C_d", "C_o", "C_r"}
    assert {row.t for row in report.rows if row.t_prime is None} == {1.0, TIMES[-1]}
    assert {row.t for row in report.rows if row.t_prime is not None} == {1.0, 5.0}
    assert [summary.observable for summary in report.sections[0].summaries] == ["v", "C_d", "C_o", "C_r"]


def test_simulations_of_one_dimension_are_put_together(solution):
    parts = [simulate(solution, replicas=4), simulate(solution, replicas=6, first=4), simulate(solution, seed=1)]
    report = compare(solution, parts)
    values = np.concatenate([part.sample("v").values for part in parts])[:, 3]
    row = next(row for row in report.rows if row.label == "v" and row.t == TIMES[3])
    assert row.replicas == (20,) and row.value == pytest.approx(values.mean())
    assert row.error == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    bare = compare(solution, [parts[0], parts[1], simulate(solution, seed=1, keep=False)])
    other = next(row for row in bare.rows if row.label == "v" and row.t == TIMES[3])
    assert other.value == pytest.approx(row.value) and other.error == pytest.approx(row.error, rel=1e-9)
    assert not bare.sections[0].exact_draws


def test_files_without_replicas_get_bounds(solution):
    report = compare(solution, series(solution, keep=False))
    with_replicas = compare(solution, series(solution))
    section = report.sections[0]
    assert not section.exact_draws and section.normality is None and section.effective is None
    assert any("bounds" in note for note in report.notes)
    curves = [row for row in report.rows if row.t_prime is None]
    others = [row for row in with_replicas.rows if row.t_prime is None]
    assert [row.z for row in curves] == pytest.approx([row.z for row in others])
    expected = min(1.0, len(report.rows) * 2.0 * stats.norm.sf(report.max_abs_z))
    assert section.p_value == pytest.approx(expected)
    assert 0.0 < section.fit_p_value <= 1.0
    # Without the covariance of the modes, errors of C_d and C_o are upper bounds.
    for bounded, exact in zip(report.rows, with_replicas.rows, strict=True):
        assert bounded.error >= exact.error * (1.0 - 1e-9)
    with pytest.raises(ValueError, match="replicas"):
        normality(report)
    wrong = compare(solution, series(solution, keep=False, shift={"v": 0.3}))
    assert wrong.sections[0].outcome is Outcome.DIFFERS


def test_times_beyond_the_end_and_times_not_shared_are_left_out_and_said(solution):
    late = simulate(solution, t=TIMES)
    short = synthetic.solution("symmetric", t=synthetic.grid(0.1, 10.0, 1e-3))
    report = compare(short, late)
    assert max(row.last_time for row in report.rows) <= short.t[-1]
    assert any("beyond the end" in note for note in report.notes)
    other = simulate(solution, 200, t=np.append(TIMES[::2] * (1.0 + 1e-12), 55.0), pairs=PAIRS[1:])
    mixed = compare(solution, [late, other])
    assert {row.t for row in mixed.rows if row.label == "v"} == set(TIMES[::2])
    assert sum("not recorded in every simulation" in note for note in mixed.notes) == 2
    partial = compare(solution, [late, simulate(solution, 200, drop=("v",))])
    assert "v" not in {row.observable for row in partial.rows}
    assert any("v not recorded" in note for note in partial.notes)


def test_series_are_told_apart_by_model_optimiser_step_and_batch(solution):
    sgd = {"optimizer": "sgd", "step": 0.02}
    simulations = [
        simulate(solution, 100, model="network", batch=100, **sgd),
        simulate(solution, 200, model="network", batch=100, **sgd),
        simulate(solution, 100, batch=120, **sgd),
        simulate(solution, 200, batch=240, **sgd),
        simulate(solution, 100, precision="single"),
        simulate(solution, 200, rtol=1e-6),
    ]
    names = {section.name: section.dimensions for section in compare(solution, simulations).sections}
    assert names == {
        "true network, SGD batch 100, step 0.02": (100, 200),
        "Gaussian model, SGD batch fraction 0.25, step 0.02": (100, 200),
        "Gaussian model, gradient flow": (100, 200),
    }


# Refusals.


OTHER = dmft.Activation.from_covariance([0, 0.9, 0.5])


def with_problem(**changes):
    return dmft.SymmetricProblem(**({"width": 16, "a0": 1.0, **synthetic.SHARED} | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 17}, "width is 16 in the theory and 17 in the simulation"),
        ({"alpha": 0.4}, "alpha is 0.3 in the theory and 0.4"),
        ({"a0": 1.1}, "a0 is 1.0 in the theory and 1.1"),
        ({"v0": 0.1}, "v0 is 0.0 in the theory and 0.1"),
        ({"noise_std": 0.5}, "noise_std is 0.6 in the theory and 0.5"),
        ({"target": dmft.Target.noise()}, "target is "),
        ({"train_second_layer": False}, "train_second_layer is True in the theory and False"),
        ({"activation": OTHER, "target": dmft.Target.same_as(OTHER)}, "activation is "),
    ],
)
def test_other_problems_are_refused_by_name(solution, changes, words):
    other = simulate(solution, drop=("correlation", "a", "v"), problem=with_problem(**changes))
    with pytest.raises(ValueError, match="different problems") as caught:
        compare(solution, other)
    assert words in str(caught.value)
    assert str(caught.value).count(" in the theory and ") == 1


def test_other_groups_and_gram_are_refused():
    solution = synthetic.solution("grouped")
    other = dmft.GroupedProblem(sizes=[2, 2, 2], a0=[1.0, -1.0, 0.5], **synthetic.SHARED)
    with pytest.raises(ValueError, match=r"sizes is \[3, 1, 2\] in the theory and \[2, 2, 2\]"):
        compare(solution, simulate(solution, drop=("correlation",), problem=other))
    solution = synthetic.solution("general")
    gram = np.eye(3) + 0.2 * (np.ones((3, 3)) - np.eye(3))
    other = dmft.GeneralProblem(a0=[1.0, -0.5, 0.25], gram0=gram, **synthetic.SHARED)
    with pytest.raises(ValueError, match="gram0"):
        compare(solution, simulate(solution, problem=other))


def test_the_same_numbers_in_another_form_pass(solution):
    lazy = with_problem(a0=None, gamma0=0.25)
    hermite = dmft.Activation.from_hermite([0.0, np.sqrt(0.9), 0.0, np.sqrt(1 / 6)])
    network = with_problem(activation=hermite, target=dmft.Target.same_as(hermite))
    tiny = dmft.Activation.from_hermite([0.0, np.sqrt(0.9), 0.0, np.sqrt(1 / 6), 0.0, 1e-3])
    for problem in (lazy, network):
        assert compare(solution, simulate(solution, problem=problem)).agrees
    longer = with_problem(activation=tiny, target=dmft.Target.same_as(tiny))
    with pytest.raises(ValueError, match="activation"):
        compare(solution, simulate(solution, problem=longer))
    cut = tiny.truncated(4)
    theory = synthetic.solution("symmetric", problem=with_problem(activation=cut, target=dmft.Target.same_as(cut)))
    assert compare(theory, simulate(theory, problem=longer, model="network")).agrees


def test_bad_arguments_are_refused(solution):
    good = simulate(solution)
    for arguments, error, words in (
        ((good, good), TypeError, "solution must be"),
        ((synthetic.solution("pspin"), good), TypeError, "pspin"),
        ((solution, []), ValueError, "at least one"),
        ((solution, 3), TypeError, "simulations must be"),
        ((solution, [good, "run.h5"]), TypeError, "simulations must be"),
    ):
        with pytest.raises(error, match=words):
            compare(*arguments)
    for options, error, words in (
        ({"observables": ["train_eror"]}, ValueError, "did you mean 'train_error'"),
        ({"observables": ["gamma"]}, ValueError, r"a/sqrt\(m\)"),
        ({"observables": "v"}, TypeError, "list of names"),
        ({"observables": []}, ValueError, "at least one"),
        ({"observables": ["test_error_fresh"]}, ValueError, "not recorded"),
        ({"times": [0.03]}, ValueError, "nearest recorded one is"),
        ({"level": 0.0}, ValueError, "level"),
        ({"level": 1.0}, ValueError, "level"),
    ):
        with pytest.raises(error, match=words):
            compare(solution, good, **options)


def test_simulations_that_cannot_be_used_are_refused(solution):
    with pytest.raises(ValueError, match="no recording time in common"):
        compare(solution, [simulate(solution), simulate(solution, 200, t=[0.01, 0.3], pairs=[2.0])])
    short = synthetic.solution("symmetric", t=synthetic.grid(0.1, 0.01, 1e-3))
    with pytest.raises(ValueError, match="solve further"):
        compare(short, simulate(solution, t=[1.0, 2.0], pairs=[1.0]))
    with pytest.raises(ValueError, match="counted twice"):
        compare(solution, [simulate(solution), simulate(solution, first=9, precision="single")])
    with pytest.raises(ValueError, match=r"d = 50 has 1 replica .* simulate at least 2"):
        compare(solution, [simulate(solution, 50, 1), simulate(solution, 100)])
    with pytest.raises(ValueError, match="nothing is left"):
        compare(solution, simulate(solution, t=[0.0]), observables=["a"])


def test_unknown_names_asked_of_a_report_are_refused(report):
    with pytest.raises(ValueError, match="was not compared"):
        report.gap("test_error_fresh")
    with pytest.raises(ValueError, match="network"):
        report.gap("v", model="network")
    with pytest.raises(ValueError, match="fraction"):
        report.within(0.0)


# Tables and files.


def test_table_is_for_readers(report):
    text = str(report)
    assert max(map(len, text.splitlines()[:12])) <= 130
    for name in ("train_error", "C_o", "d = 200 (10 replicas)", "limit + b/d", "largest gap"):
        assert name in text
    assert report.verdict in text
    assert "149" not in repr(report) or "comparisons" in repr(report)


def test_csv_reads_back_exactly(report, tmp_path):
    path = tmp_path / "report.csv"
    report.to_csv(path)
    lines = path.read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert any(report.sections[0].verdict in line for line in comments)
    records = list(csv.DictReader(lines[len(comments) :]))
    assert len(records) == len(report.rows)
    for record, row in zip(records, report.rows, strict=True):
        assert record["label"] == row.label and float(record["z"]) == row.z and float(record["t"]) == row.t
        assert float(record["mean_d100"]) == row.means[1] and float(record["z_d200"]) == row.z_scores[2]
        assert record["replicas_d50"] == "10"
        assert (record["t_prime"] == "") == (row.t_prime is None)


def test_json_stands_alone_and_is_small(report, solution, tmp_path):
    path = tmp_path / "report.json"
    report.to_json(path)
    data = json.loads(path.read_text())
    assert dmft.problems.from_dict(data["problem"]).to_dict() == solution.problem.to_dict()
    assert data["verdict"] == report.verdict and data["theory"]["rtol"] == solution.rtol
    section = data["sections"][0]
    assert [Settings.from_dict(item) for item in section["settings"]] == [s.settings for s in series(solution)]
    rows = section["rows"]
    assert rows["label"] == [row.label for row in report.rows]
    for name in ("value", "error", "z", "theory", "slope", "gap"):
        assert rows[name] == pytest.approx([getattr(row, name) for row in report.rows], rel=6e-6)
    assert rows["means"][4] == pytest.approx(report.rows[4].means, rel=6e-6)
    assert path.stat().st_size < 500 * len(report.rows)
    assert set(section["normality"]) >= {"p_value", "count"}


def test_figure_of_two_series_and_a_bad_suffix(report, solution, tmp_path):
    both = [*series(solution), simulate(solution, 200, model="network", shift={"v": 0.5})]
    figure = compare(solution, both).plot(tmp_path / "both.pdf")
    assert len(figure.axes) == 4 and (tmp_path / "both.pdf").stat().st_size > 5000
    with pytest.raises(ValueError, match="suffix"):
        report.plot(tmp_path / "figure.xyz")


def test_figure_of_a_family_of_widths(tmp_path):
    widths = (64, 16, 256)
    family = [synthetic.solution("symmetric", width=width) for width in widths]
    simulations = [
        series(family[0]),
        [simulate(family[1], model="network", rename={"test_error": "test_error_fresh"}, test_samples=100)],
        [],
    ]
    path = tmp_path / "family.png"
    figure = plot_family(family, simulations, path)
    assert path.read_bytes().startswith(b"\x89PNG") and len(figure.axes) == 3
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [f"$m$ = {width}" for width in widths] == [word for word in words if word.startswith("$m$")]
    assert "Gaussian model, gradient flow, $d$ = 200" in words and "true network, gradient flow, $d$ = 100" in words
    colors = {line.get_label(): line.get_color() for line in figure.legends[0].get_lines()}
    # Lightness follows the width, whatever the order in which the runs are given.
    assert sum(colors["$m$ = 16"][:3]) < sum(colors["$m$ = 64"][:3]) < sum(colors["$m$ = 256"][:3])
    assert len(figure.axes[0].containers) == 4 and len(figure.axes[1].containers) == 2


def test_figure_of_a_family_names_what_differs_and_leaves_out_zero_overlaps():
    noise = dmft.Target.noise()
    family = []
    for alpha in (0.3, 0.6):
        problem = dmft.SymmetricProblem(width=16, a0=1.0, **(synthetic.SHARED | {"alpha": alpha, "target": noise}))
        still = np.zeros((len(synthetic.grid(0.1, 60.0, 1e-3)), 1, 1))
        family.append(synthetic.solution("symmetric", problem=problem, v=still))
    figure = plot_family(family, [[], []])
    assert len(figure.axes) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"$\alpha$ = 0.3", r"$\alpha$ = 0.6"]
    assert "$m$ = 16" in figure.axes[0].get_title(loc="left") and "alpha" not in figure.axes[0].get_title(loc="left")


def test_families_that_cannot_be_drawn_are_refused(solution):
    for arguments, error in (
        (([], []), ValueError),
        (([solution], [[], []]), ValueError),
        (([synthetic.solution("pspin")], [[]]), TypeError),
    ):
        with pytest.raises(error, match="solutions"):
            plot_family(*arguments)


def test_a_report_of_usual_size_takes_about_a_second(solution):
    t = np.concatenate([[0.0], np.geomspace(0.02, 50.0, 29)])
    simulations = series(solution, t=t, pairs=[0.0, 0.5, 1.0, 5.0, 20.0, 50.0], replicas=20)
    start = time.perf_counter()
    report = compare(solution, simulations)
    str(report)
    # 0.6 s on one free core; the margin is for a busy one.
    assert time.perf_counter() - start < 6.0
    assert {row.observable for row in report.rows} == set(OBSERVABLES) - {"test_error_fresh"}


# What honest statistics must not claim.


def test_two_replicas_do_not_alarm_because_the_theory_has_an_error_bound(solution, monkeypatch):
    """Where a few replicas happen to agree, the bound used to lift the degrees of freedom and with them the score."""
    monkeypatch.setattr(statistics, "_DRAWS", (200, 200))
    rough = synthetic.solution("symmetric")
    object.__setattr__(rough, "rtol", 1e-3)
    alarms = [
        compare(rough, simulate(rough, 100, 2, seed=seed, bias=0.0), observables=["train_error", "test_error"]).p_value
        for seed in range(60)
    ]
    assert np.mean(np.array(alarms) <= 0.05) <= 0.15
    assert min(alarms) > 1e-6


def test_late_train_errors_over_orders_of_magnitude_do_not_alarm(solution):
    """Lognormal replicas of the right mean: with ten of them Student's law would be wrong half of the time."""
    random = np.random.default_rng(5)
    alarms, noted = [], 0
    for seed in range(60):
        simulation = simulate(solution, 100, 10, seed=seed, bias=0.0)
        exact = simulation.sample("train_error").mean * 0.0 + solution.at(simulation.t).train_error
        width = np.linspace(0.0, 2.5, len(simulation.t))  # spread of log e_tr, growing in time
        factor = np.exp(width * random.standard_normal((10, 1)) - 0.5 * width**2)
        observables = {"train_error": Sample.of(exact * factor)}
        skewed = Simulation(
            problem=simulation.problem,
            settings=simulation.settings,
            t=simulation.t,
            pair_times=[],
            observables=observables,
            replica_index=range(10),
        )
        section = compare(solution, skewed).sections[0]
        alarms.append(section.p_value)
        noted += any("too skewed" in note for note in section.notes)
    assert np.mean(np.array(alarms) <= 0.05) <= 0.15
    assert noted == 60


def test_dimensions_too_close_decide_nothing(solution):
    report = compare(solution, series(solution, (100, 101), shift={"test_error": 0.05}))
    assert report.sections[0].outcome is Outcome.UNDECIDED
    assert not report.agrees
    assert "nothing can be said" in report.verdict


def test_failed_replicas_and_early_ends_are_said(solution):
    pair = series(solution, (50, 100))
    pair[1].status, pair[1].message = Status.DIVERGED, "3 of 10 replicas at d = 100 are finished; 7 failed"
    report = compare(solution, pair)
    assert "replicas have failed" in report.verdict
    assert any("7 failed" in note for note in report.notes)


def test_samples_that_are_not_alpha_m_d_are_refused(solution):
    wrong = simulate(solution, 100, samples=7)
    with pytest.raises(ValueError, match="7 samples, which is not the alpha"):
        compare(solution, wrong)


def test_errors_that_would_hide_everything_are_no_agreement(solution):
    report = compare(solution, series(solution, (4, 5), noise=3.0, replicas=8), observables=["test_error", "a"])
    assert not report.agrees
    if report.sections[0].outcome is Outcome.UNDECIDED:
        assert "would hide any difference" in report.verdict


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "network"}, "is the price of the Gaussian approximation"),
        ({"model": "network", "optimizer": "gd", "step": 0.1}, "cannot be told apart"),
        ({"model": "network", "optimizer": "sgd", "step": 0.1, "batch": 5}, "noise of the batches"),
        ({"optimizer": "gd", "step": 0.1}, "the finite step may be the reason"),
    ],
)
def test_what_a_difference_may_come_from(solution, settings, words):
    report = compare(solution, simulate(solution, 100, shift={"test_error": 0.5}, **settings))
    assert report.sections[0].outcome is Outcome.DIFFERS
    assert words in report.verdict

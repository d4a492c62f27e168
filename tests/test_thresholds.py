"""Interpolation thresholds: laws on made-up data, the exactly solvable linear neuron, scaling, border and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

import dmft
from dmft import cli
from dmft.limits.linear_fit import LinearFit
from validation.thresholds import families, laws, points, search
from validation.thresholds.interpolation import _family
from validation.thresholds.result import shown

QUAD = dmft.Activation.from_covariance([0, 0.3, 0.5])
CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
LINEAR = dmft.Activation.from_covariance([0, 1.0])


# ------------------------------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("b", [0.45, 0.6, 2 / 3, 1.0])
@pytest.mark.parametrize("limit", [0.03, 0.15])
@pytest.mark.parametrize("correction", [0.0, 0.5, -0.3])
def test_decay_limit_covers_power_laws_with_corrections(b: float, limit: float, correction: float) -> None:
    path = np.geomspace(0.1, 3e3, 60)
    curve = limit + 0.8 * (1 + path) ** -b * (1 + correction * (1 + path) ** -(0.5 * b))
    found = laws.decay_limit(path, curve, linear=False)
    assert found.low <= limit <= found.high
    assert found.half_width < 0.5 * (curve[-1] - limit) + 1e-4


def test_decay_exponent_is_that_of_the_power_law() -> None:
    path = np.geomspace(0.1, 1e4, 60)
    assert laws.decay_exponent(path, 0.1 + path ** -(2 / 3)) == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("nu", [2.0, 2.5, 3.5])
@pytest.mark.parametrize("correction", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_divergence_covers_a_power_law_with_a_correction(nu: float, correction: float, side: float) -> None:
    distance = np.array([0.03, 0.05, 0.07, 0.1, 0.14, 0.2])
    time = 3.0 * distance**-nu * np.exp(correction * distance + 0.7 * correction * distance**2)
    found = laws.divergence(0.4 + side * distance, time)
    slack = 1e-3  # distances of 0.03 to 0.2; the quadratic correction is not in the law
    assert found.threshold.low - slack <= 0.4 <= found.threshold.high + slack
    assert found.threshold.half_width < 0.02
    known = laws.Interval(value=0.4, low=0.4 - 0.001, high=0.4 + 0.001)
    exponent = laws.exponent_at(0.4 + side * distance, time, known)
    assert exponent.low - 0.05 <= nu <= exponent.high + 0.05


def test_divergence_covers_a_drifting_exponent() -> None:
    # What the flow does: r_inf < 0 and r = r_inf + c path^(-b) give dt = dpath/r down to a level, here with b = 0.6.
    distance = np.array([0.03, 0.042, 0.06, 0.085, 0.12, 0.17, 0.24])
    times = []
    for d in distance:
        end = d ** (-1 / 0.6)
        path = end * (1 - np.geomspace(1, 1e-9, 4000))
        r = (0.2 + path) ** -0.6 - d * (1 + 0.5 * d)
        inside = r > np.sqrt(2e-7)
        times.append(np.sum(np.diff(path[inside]) / np.sqrt(r[inside][1:] * r[inside][:-1])))
    found = laws.divergence(distance, np.array(times))
    assert abs(found.threshold.value) < 0.008
    assert found.threshold.low - 0.004 <= 0.0 <= found.threshold.high + 0.004


def test_residual_law_covers_curved_data_and_common_errors() -> None:
    z = -np.array([0.04, 0.06, 0.09, 0.13, 0.19])
    r = -0.9 * z + 0.8 * z**2
    exact = [laws.Interval(value=v, low=v, high=v) for v in r]
    found = laws.residual_law(z, exact)
    assert found.threshold.low <= 0.0 <= found.threshold.high
    assert abs(found.threshold.value) < 1e-3
    biased = [laws.Interval(value=v + 0.002, low=v - 0.001, high=v + 0.003) for v in r]
    found = laws.residual_law(z, biased)
    assert found.threshold.low <= 0.0 <= found.threshold.high
    assert found.threshold.half_width < 0.004


def test_rate_law_finds_a_linear_zero() -> None:
    z = np.array([0.04, 0.06, 0.09, 0.13, 0.19, 0.27])
    found = laws.rate_law(z - 0.3, 2.0 * z - 1.5 * z**2 + z**3)
    assert found.threshold.low <= -0.3 <= found.threshold.high
    assert found.threshold.half_width < 3e-3


def test_intervals() -> None:
    one = laws.Interval(value=2.0, low=1.0, high=4.0)
    assert one.mapped(lambda x: -x) == laws.Interval(value=-2.0, low=-4.0, high=-1.0)
    wider = one.widened(1.0)
    assert wider.low == pytest.approx(2 - 2**0.5) and wider.high == pytest.approx(2 + 5**0.5)
    assert one.overlaps(laws.Interval(value=5.0, low=4.0, high=6.0))
    assert not one.overlaps(laws.Interval(value=5.0, low=4.1, high=6.0))
    assert shown(laws.Interval(value=0.59693, low=0.59609, high=0.59758)) == "0.59693 [0.59609, 0.59758]"
    assert shown(laws.Interval(value=1.0, low=1.0, high=1.0)) == "1"


# -------------------------------------------------------------------------------------------------------- families


def test_residual_noise_is_what_a_linear_fit_leaves() -> None:
    same = LinearFit.of(CUBIC, dmft.Target.same_as(CUBIC), 0.6)
    assert same.noise_std**2 == pytest.approx(0.36 + 1 / 6)  # |phi|^2 - g(0)^2/h'(0) = h(1) - h'(0)
    overlap = dmft.Target.from_overlap([0, 0.5], power=1.0)
    assert LinearFit.of(CUBIC, overlap, 0.5).noise_std ** 2 == pytest.approx(0.25 + 1.0 - 0.25 / 0.9)


def test_threshold_energy_of_pure_models() -> None:
    for k in (2, 3, 4):
        pure = dmft.Activation.from_covariance([0] * k + [2.0])
        assert families.threshold_energy(pure) == pytest.approx(2 * (2 * (k - 1) / k) ** 0.5)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.3}, {"gamma": 0.7, "width": 8}, {"a0": 1.0, "width": 4}, {"a0": 0.5}, {"gamma": 2.0}]
)
def test_coordinates_grow_towards_interpolation_and_invert(options: dict[str, Any]) -> None:
    arguments = {"alpha": None, "gamma": None, "a0": None, "width": None, "target": None, "noise_std": 0.8} | options
    family, _ = _family(QUAD, **arguments)
    z = np.linspace(-3, 3, 7)
    x = family.value(z)
    np.testing.assert_allclose(family.coordinate(x), z, atol=1e-12)
    assert (np.diff(x) > 0).all() == family.rises
    problem = family.problem(float(x[3]))
    assert problem.train_second_layer is False  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------ thresholds


def points_of(x: float, noise: float, scale: float) -> points.Trace:
    problem = dmft.SymmetricProblem(
        width=1,
        alpha=0.3,
        activation=dmft.Activation.from_covariance([0, 0, 0.5]),
        target=dmft.Target.noise(),
        noise_std=noise,
        a0=x,
        train_second_layer=False,
    )
    return points.solve_point(
        points.Task(problem=problem, t_final=2e3 / scale, rtol=1e-3, offset=noise**2, time_scale=10.0 / scale)
    )


def test_noise_and_second_layer_scale_together() -> None:
    c = 2.3
    one, other = points_of(0.8, 1.0, 1.0), points_of(0.8 * c, c, c**2)
    assert one.relaxation_time is not None and other.relaxation_time is not None
    assert one.gap is not None and other.gap is not None
    # Both are solved to 1e-3 and better.
    assert other.relaxation_time * c**2 == pytest.approx(one.relaxation_time, rel=1e-3)
    assert other.gap == pytest.approx(one.gap, rel=2e-3)


def test_linear_neuron_is_marchenko_pastur(tmp_path: Path) -> None:
    """One linear neuron interpolates iff the shortest solution of J u = y fits: gamma^2 >= tau^2 alpha/(1 - alpha).

    J (n x d) has independent N(0, 1) elements, u = gamma w with |w| = 1, and the shortest solution has the length
    |u|^2 = y^T (J J^T)^(-1) y = tau^2 tr (J J^T)^(-1) = tau^2 n/(d - n). The trust-region problem below it has no
    minimum but the global one, so that gradient flow finds what there is.
    """
    seen: list[str] = []
    found = dmft.interpolation_threshold(
        LINEAR,
        alpha=0.2,
        width=1,
        noise_std=0.7,
        workers=1,
        checkpoint=tmp_path,
        progress=lambda done, text: seen.append(f"{done} {text}"),
    )
    assert found.value == pytest.approx(0.35, rel=5e-4)
    assert found.low - 1e-4 <= 0.35 <= found.high + 1e-4
    assert found.high - found.low < 1e-3
    assert found.agree and "agree" in found.verdict
    assert found.nu_gap.value == pytest.approx(1.0, abs=0.02)
    assert len(seen) == len(list(tmp_path.glob("*.json")))
    below = [point for point in found.evidence if not point.interpolates]
    assert all(point.x < 0.35 for point in below) and len(below) >= 4
    for point in below:
        assert point.residual == pytest.approx(trust_region_residual(0.2, point.x, 0.7), rel=1e-3)

    # Finished runs are found again, whatever the number of workers.
    seen.clear()
    again = dmft.interpolation_threshold(
        LINEAR, alpha=0.2, width=1, noise_std=0.7, workers=2, checkpoint=tmp_path, progress=lambda n, s: seen.append(s)
    )
    assert again.interval == found.interval and again.wall_time == 0.0
    assert seen and all(text.startswith("kept") for text in seen)

    data = found.to_dict()
    found.to_json(tmp_path / "result.txt")
    read = json.loads((tmp_path / "result.txt").read_text())
    assert read["value"] == pytest.approx(data["value"], rel=1e-7)
    assert read["evidence"][0]["problem"] == found.evidence[0].problem
    assert "gamma_GF" in str(found) and found.verdict in str(found)
    found.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def trust_region_residual(alpha: float, gamma: float, tau: float) -> float:
    """sqrt(2 e_tr)/tau of min |y - J u|^2 over |u| = gamma, from the Marchenko-Pastur law of J J^T/d."""
    angle = (np.arange(4000) + 0.5) * np.pi / 4000
    x = 1 + alpha + 2 * np.sqrt(alpha) * np.cos(angle)
    weight = np.sin(angle) ** 2 / x
    weight /= weight.sum()
    # u = J^T (J J^T + k d)^(-1) y: |u|^2 = tau^2 alpha E[x/(x+k)^2], residual^2 = tau^2 E[k^2/(x+k)^2].
    k = brentq(lambda k: tau**2 * alpha * np.sum(weight * x / (x + k) ** 2) - gamma**2, 0.0, 10.0)
    return float(np.sqrt(np.sum(weight * k**2 / (x + k) ** 2)))


def test_few_samples_need_the_threshold_energy() -> None:
    """gamma*(alpha)/sqrt(alpha) -> 1/|E| as alpha -> 0; the bracket alone is accurate to a few percent."""
    family, _ = _family(CUBIC, alpha=0.01, gamma=None, a0=None, width=None, target=None, noise_std=1.0)
    centre = search.Search(family, points.Runner(1, None), 1e-3, 1e4).bracket()
    assert family.value(centre.z) / 0.1 == pytest.approx(1.5, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "alpha", "expected"), [(QUAD, 0.3, 0.597), (CUBIC, 0.3, 0.895), (QUAD, 0.1, 0.3246)]
)
def test_lazy_thresholds(activation: dmft.Activation, alpha: float, expected: float) -> None:
    found = dmft.interpolation_threshold(activation, alpha=alpha, workers=2)
    assert found.agree
    assert found.value == pytest.approx(expected, rel=0.005)
    assert found.high - found.low < 0.02 * found.value


@pytest.mark.slow
def test_inverse_and_target() -> None:
    target = dmft.Target.same_as(CUBIC)
    there = dmft.interpolation_threshold(CUBIC, alpha=0.3, target=target, noise_std=0.6, workers=2)
    assert there.value == pytest.approx(0.895 * (0.36 + 1 / 6) ** 0.5, rel=0.005)
    back = dmft.interpolation_threshold(CUBIC, gamma=there.value, target=target, noise_std=0.6, workers=2)
    assert back.low * 0.995 <= 0.3 <= back.high * 1.005


@pytest.mark.slow
def test_infinite_width_at_fixed_sample_ratio() -> None:
    """[MU] section H quotes about 1.18 for h = 0.3 z + z^2/2, tau = 1, a = 1."""
    found = dmft.interpolation_threshold(QUAD, a0=1.0, workers=2)
    assert found.value == pytest.approx(1.18, rel=0.015)
    assert found.nu_gap.value == pytest.approx(2.0, abs=0.15)


# ---------------------------------------------------------------------------------------------------------- border


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "Exactly one of alpha, gamma and a0"),
        ({"alpha": 0.3, "a0": 1.0}, "alpha = 0.3 and a0 = 1.0"),
        ({"alpha": 1.0}, "alpha"),
        ({"gamma": 0.0}, "gamma"),
        ({"a0": -1.0}, "a0"),
        ({"alpha": 0.3, "width": 0}, "width"),
        ({"alpha": 0.3, "noise_std": 0.0}, "noise_std"),
        ({"alpha": 0.3, "noise_std": 0.0, "width": 4}, "noise_std"),
        ({"alpha": 0.3, "workers": 0}, "workers"),
        ({"alpha": 0.3, "rtol": 1.0}, "rtol"),
        ({"alpha": 0.3, "t_max": 1.0}, "t_max"),
    ],
)
def test_bad_arguments(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        dmft.interpolation_threshold(QUAD, **options)


def test_linear_networks_have_no_lazy_threshold() -> None:
    for options in ({"alpha": 0.3}, {"a0": 1.0}):
        with pytest.raises(ValueError, match="linear"):
            dmft.interpolation_threshold(LINEAR, **options)
    with pytest.raises(TypeError, match="activation"):
        dmft.interpolation_threshold("relu", alpha=0.3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target"):
        dmft.interpolation_threshold(QUAD, alpha=0.3, target="noise")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- command

CONFIG = """
[model]
kind = "symmetric"
width = 1
alpha = 0.2
noise_std = 0.7
gamma0 = 1.0
train_second_layer = false
activation = { covariance = [0, 1.0] }
target = { noise = true }
[solve]
t_final = 1.0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "linear.toml"
    path.write_text(CONFIG)
    return path


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What the command asks of `interpolation_threshold`."""
    seen: dict[str, Any] = {}

    def stop(**options: Any) -> None:
        seen.update(options)
        raise search.SearchError("stopped by the test")

    monkeypatch.setattr("validation.thresholds.interpolation_threshold", stop)
    assert cli.main(["threshold", *arguments]) == 1
    return seen


def test_command_asks_what_the_model_says(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = asked(monkeypatch, str(config))
    assert plain["alpha"] == 0.2 and plain["width"] == 1 and "gamma" not in plain and plain["noise_std"] == 0.7
    assert asked(monkeypatch, str(config), "--set", "threshold.vary=alpha")["gamma"] == 1.0
    lazy = asked(monkeypatch, str(config), "--set", "threshold.infinite_width=true")
    assert "width" not in lazy and lazy["alpha"] == 0.2
    fixed = asked(monkeypatch, str(config), "--set", "model.gamma0=", "--set", "model.a0=1.5", "--set", "model.width=4")
    assert fixed["a0"] == 1.5 and fixed["width"] == 4 and "alpha" not in fixed


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--kind", "optimization"], "train_second_layer"),
        (["--set", "threshold.vary=beta"], "vary"),
        (["--set", "threshold.vary=sample_ratio"], "a0"),
        (["--set", "threshold.varied=alpha"], "did you mean 'vary'"),
        (["--set", "threshold.infinite_width=1"], "infinite_width"),
        (["--set", "model.v0=0.5", "--set", "model.target={ same_as_activation = true }"], "v0"),
        (["--set", "threshold.infinite_width=true"], "linear"),
        (["--plot", "/nowhere/figure.png"], "nowhere"),
        (["--workers", "0"], "workers"),
    ],
)
def test_command_refuses(config: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["threshold", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1


@pytest.mark.slow
def test_command_writes_what_it_found(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figure = tmp_path / "found.json", tmp_path / "found.png"
    code = cli.main(["threshold", str(config), "--json", "--out", str(out), "--plot", str(figure), "--workers", "2"])
    assert code == 0 and figure.exists()
    printed = json.loads(capsys.readouterr().out)
    assert printed["value"] == pytest.approx(0.35, rel=1e-3)
    assert json.loads(out.read_text())["value"] == pytest.approx(printed["value"], rel=1e-7)

"""The plateau of an infinitely wide network: its equations, its limits, and the DMFT itself."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import dmft
from dmft.limits.plateau import Plateau, plateau, predicted_threshold, threshold_plateau

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUAD = dmft.Activation.from_covariance([0, 0.9, 0.5])


def misfits(h: dmft.Activation, tau: float, p: Plateau, target: dmft.Target | None = None) -> dict[str, float]:
    """Left minus right sides of the equations of the module, from the attributes of a plateau alone."""
    resolved = (target or dmft.Target.same_as(h)).resolve(h)

    def phihat(v: float) -> float:
        return float(resolved.phihat([v]))

    a, v, q, abar = p.a, p.v, p.overlap, p.sample_ratio
    rho = math.sqrt(p.train_error / p.test_error)
    strength = p.noise**2 * a**2
    radius = 1.0 - q

    def df(c: float) -> float:
        return strength * float(h.dh(q + c) - h.dh(q))

    def d2f(c: float) -> float:
        return strength * float(h.d2h(q + c))

    # Integrals over the whole past of functions of C_d with R_T: the fast part at C_d = 1, the aging part X dC.
    c = np.linspace(0.0, radius, 40001)
    chi = 1.0 / np.sqrt(strength * np.asarray(h.d2h(q + c))) if radius else np.ones_like(c)
    ratio = np.where(q + c < p.aging_level, p.aging_ratio, -np.gradient(chi, c) if radius else 0.0)

    def over_past(function: np.ndarray) -> float:
        return float(function[-1]) * p.response + float(np.trapezoid(ratio * function, c))

    rest = p.mean_response - over_past(np.ones_like(c))
    fitted = over_past(np.asarray(h.dh(q + c))) + float(h.dh(q)) * rest
    pull = over_past(np.asarray(h.d2h(q + c))) + float(h.d2h(q)) * rest
    test = 0.5 * (tau**2 + resolved.power - 2.0 * a * phihat(v) + a**2 * float(h.h(q)))
    return {
        "e_ts": p.test_error - test,
        "eps": p.noise - rho * math.sqrt(2.0 * test / abar),
        "rho": 1.0 / rho - 1.0 - a**2 / abar * fitted,
        "marginality": d2f(radius) * p.response**2 - 1.0 if q < 1.0 else 0.0,
        "fast response": p.nu * p.response - 1.0 - d2f(radius) * p.response**2,
        "norm": p.nu * radius - over_past(strength * (h.d2h(q + c) * c + h.dh(q + c) - h.dh(q))),
        "mean response": 1.0 / p.mean_response - p.nu - a**2 * rho * float(h.dh(q)) + strength * pull,
        "v": v - p.mean_response * a * rho * float(resolved.gradient([v])[0]),
        "overlap": q - v**2 - strength * float(h.dh(q)) * p.mean_response**2,
        "a": rho * (phihat(v) - a * float(h.h(q))) + p.noise**2 * a * fitted,
    }


@pytest.mark.parametrize("h", [CUBIC, QUAD], ids=["cubic", "quad"])
@pytest.mark.parametrize(("tau", "ratio"), [(0.3, 200.0), (1.0, 700.0), (5.0, 2e6)])
def test_plateau_solves_the_stationary_equations(h: dmft.Activation, tau: float, ratio: float) -> None:
    found = plateau(h, dmft.Target.same_as(h), tau, ratio)
    assert found.sample_ratio == pytest.approx(ratio, rel=1e-9)
    for name, misfit in misfits(h, tau, found).items():
        assert abs(misfit) < 1e-6, name


def mixed(*coefficients: float) -> dmft.Activation:
    return dmft.Activation.from_covariance(list(coefficients))


@pytest.mark.parametrize(
    ("h", "continuous"),
    [(mixed(0, 0.9, 0.4, 0, 0.02), True), (mixed(0, 0.9, 0.02, 0.2, 0, 0, 0, 0, 0.004), False), (CUBIC, False)],
    ids=["2+4", "nearly 3", "3"],
)
def test_one_ratio_is_replaced_where_it_would_not_be_the_largest(h: dmft.Activation, continuous: bool) -> None:
    found = plateau(h, dmft.Target.same_as(h), 1.0, 4000.0)
    assert found.aging_level == (found.overlap if continuous else 1.0)
    for name, misfit in misfits(h, 1.0, found).items():
        assert abs(misfit) < 1e-6, name
    c = np.linspace(found.overlap, 1.0, 2001)
    ratio = -np.gradient(1.0 / (found.noise * found.a * np.sqrt(np.asarray(h.d2h(c)))), c)
    if continuous:
        assert (np.diff(ratio) > 0.0).all() and found.aging_ratio == pytest.approx(ratio[0], rel=1e-2)
    else:
        assert found.aging_ratio > ratio[-1]


@pytest.mark.slow
def test_relu_has_a_threshold_although_its_curvature_is_infinite() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        degrees = [dmft.Activation.named("relu", degree=degree) for degree in (16, 64, 256)]
    values = [predicted_threshold(h, dmft.Target.same_as(h), 1.0) for h in degrees]
    first, second = np.diff(values)
    assert 0.0 < second < 0.5 * first
    assert float(degrees[-1].d2h(1.0)) > 1.9 * float(degrees[-2].d2h(1.0))


@pytest.mark.parametrize(("third", "ratio", "alike"), [(0.1, 6000.0, False), (0.25, 200.0, False), (0.25, 400.0, True)])
def test_other_targets_have_neurons_apart_or_alike(third: float, ratio: float, alike: bool) -> None:
    target = dmft.Target.from_overlap([0, 0.9, 0, third], power=1.5)
    found = plateau(CUBIC, target, 1.0, ratio)
    assert (found.overlap == 1.0) == alike
    for name, misfit in misfits(CUBIC, 1.0, found, target).items():
        assert abs(misfit) < 1e-6, name
    slack = found.nu - 2.0 * found.noise * found.a * float(np.sqrt(CUBIC.d2h(1.0)))
    assert (slack > 1e-3) == alike and slack > -1e-9
    # Of the two roots of nu chi = 1 + f'' chi^2 the stable one, at which neurons do not part.
    assert found.response * found.noise * found.a * float(np.sqrt(CUBIC.d2h(1.0))) < (0.999 if alike else 1.0 + 1e-9)


def test_neurons_part_continuously() -> None:
    target = dmft.Target.from_overlap([0, 0.9, 0, 0.25], power=1.5)
    ratios = np.linspace(240.0, 270.0, 16)
    found = [plateau(CUBIC, target, 1.0, float(ratio)) for ratio in ratios]
    overlaps = np.array([p.overlap for p in found])
    assert overlaps[0] < 1.0 and overlaps[-1] == 1.0 and (np.diff(overlaps) >= 0.0).all()
    assert np.abs(np.diff([p.v for p in found])).max() < 5e-3


def test_direction_of_the_other_sign() -> None:
    minus = dmft.Target.from_overlap([0, -0.9, 0, -1 / 6], power=float(np.sum(CUBIC.covariance)))
    one, other = plateau(CUBIC, minus, 1.0, 800.0), plateau(CUBIC, dmft.Target.same_as(CUBIC), 1.0, 800.0)
    assert one.v == pytest.approx(-other.v, rel=1e-8) and one.a == pytest.approx(other.a, rel=1e-8)


@pytest.mark.parametrize(("h", "ratio"), [(CUBIC, 800.0), (QUAD, 700.0)], ids=["cubic", "quad"])
def test_the_dmft_comes_to_rest_on_the_plateau(h: dmft.Activation, ratio: float) -> None:
    target = dmft.Target.same_as(h)
    expected = plateau(h, target, 1.0, ratio)
    problem = dmft.InfiniteWidthProblem(sample_ratio=ratio, a0=1.0, noise_std=1.0, activation=h, target=target)
    found = dmft.solve(problem, 1e4 / expected.noise, rtol=1e-3)
    assert found.status.ok
    for name, value in (
        ("a", expected.a),
        ("v", expected.v),
        ("train_error", expected.train_error),
        ("test_error", expected.test_error),
        ("nu", expected.nu),
    ):
        assert float(getattr(found, name)[-1]) == pytest.approx(value, rel=1e-3), name


def test_distances_from_the_truth_shrink_as_the_root_of_the_samples() -> None:
    target = dmft.Target.same_as(CUBIC)
    near, far = (plateau(CUBIC, target, 1.0, ratio) for ratio in (1e8, 1e10))
    for one, two in ((near.a - 1.0, far.a - 1.0), (1.0 - near.v, 1.0 - far.v), (near.nu, far.nu)):
        assert one / two == pytest.approx(10.0, rel=0.01)


def test_quadratic_covariance_has_no_aging_response() -> None:
    assert abs(plateau(QUAD, dmft.Target.same_as(QUAD), 1.0, 2000.0).aging_ratio) < 1e-10
    assert plateau(CUBIC, dmft.Target.same_as(CUBIC), 1.0, 2000.0).aging_ratio > 1.0


def test_threshold_is_the_smallest_ratio_with_a_plateau() -> None:
    target = dmft.Target.same_as(CUBIC)
    fold = threshold_plateau(CUBIC, target, 1.0)
    assert fold.sample_ratio == predicted_threshold(CUBIC, target, 1.0)
    above = plateau(CUBIC, target, 1.0, fold.sample_ratio * (1 + 1e-6))
    assert above.a < fold.a and above.v > fold.v
    # Next to a fold unknowns move with the root of the distance.
    double = plateau(CUBIC, target, 1.0, fold.sample_ratio * (1 + 4e-6))
    assert (fold.a - double.a) / (fold.a - above.a) == pytest.approx(2.0, rel=0.05)
    with pytest.raises(ValueError, match=r"must be above 450\.357, where the plateau ends"):
        plateau(CUBIC, target, 1.0, 450.0)


def test_threshold_grows_as_the_noise_variance_once_that_is_large() -> None:
    target = dmft.Target.same_as(QUAD)
    thirty, hundred = (predicted_threshold(QUAD, target, tau) / tau**2 for tau in (30.0, 100.0))
    assert thirty == pytest.approx(hundred, rel=1e-3)
    assert predicted_threshold(QUAD, target, 0.3) / 0.3**2 > 1.5 * hundred


def test_strength_of_the_target_is_a_unit_of_noise() -> None:
    # (tau, a, phi) -> c (tau, a, phi) leaves the equations as they are.
    covariance = np.asarray(CUBIC.covariance)
    overlap = 2.0 * covariance
    strong = dmft.Target.from_overlap(overlap, power=4.0 * covariance.sum())
    assert predicted_threshold(CUBIC, strong, 2.0) == pytest.approx(
        predicted_threshold(CUBIC, dmft.Target.same_as(CUBIC), 1.0), rel=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CUBIC, dmft.Target.noise(), 1.0), "linear part"),
        ((CUBIC, dmft.Target.same_as(CUBIC), 0.0), "noise_std"),
        ((dmft.Activation.from_covariance([0, 1.0]), dmft.Target.from_overlap([0, 1.0], power=1.0), 1.0), "linear"),
        ((CUBIC, dmft.Target.from_overlap({(1, 0): 0.5, (0, 1): 0.5}, power=1.0), 1.0), "one latent direction"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predicted_threshold(*arguments)  # type: ignore[arg-type]

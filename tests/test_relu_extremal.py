"""Extremal vectors against scans of G, explicit small steps of the spherical flow, and an independent optimiser."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from validation.relu.extremal import TooManyPiecesError, alignment, ascend, extremal_vectors, extremal_vectors_2d


def problem(seed, n, d):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def height(u, inputs, labels, slope):
    """G at directions (..., d)."""
    z = u @ inputs.T
    return np.where(z > 0, z, slope * z) @ labels / len(labels)


def flow(u, inputs, labels, slope, sign, step, duration):
    """Small explicit steps of du/dt = sign (I - u u^T) D(u), for many starts (S, d) at once."""
    for _ in range(round(duration / step)):
        z = u @ inputs.T
        drive = sign * (np.where(z > 0, 1.0, slope) * labels) @ inputs / len(labels)
        u = u + step * (drive - np.sum(u * drive, axis=1, keepdims=True) * u)
        u = u / np.linalg.norm(u, axis=1, keepdims=True)
    return u


def circle(count, phase=0.0):
    angles = 2 * np.pi * np.arange(count) / count + phase
    return np.column_stack((np.cos(angles), np.sin(angles)))


def basins(starts, inputs, labels, slope, step=5e-3, duration=80.0):
    """For each start and both signs: start, sign, where small steps lead, and whether they have settled there."""
    both, signs = np.tile(starts, (2, 1)), np.repeat([1, -1], len(starts))
    early = flow(both, inputs, labels, slope, signs[:, None], step, duration / 2)
    late = flow(early, inputs, labels, slope, signs[:, None], step, duration / 2)
    settled = np.linalg.norm(late - early, axis=1) < 5 * step
    assert settled.mean() > 0.6
    return zip(both[settled], signs[settled], late[settled], strict=True)


def by_kind(extremals, kind):
    return [e for e in extremals if e.attracts == kind]


def angles_of(extremals):
    return np.sort([math.atan2(e.direction[1], e.direction[0]) for e in extremals])


# Plane


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize(("seed", "n"), [(0, 5), (1, 9), (2, 9), (3, 30), (4, 30), (5, 60)])
def test_the_plane_has_the_maxima_and_minima_of_a_fine_scan(seed, n, slope):
    inputs, labels = problem(seed, n, 2)
    extremals = extremal_vectors_2d(inputs, labels, slope)
    count = 100_000
    u = circle(count, phase=1e-6)
    g = height(u, inputs, labels, slope)
    for sign, kind in ((1, "up"), (-1, "down")):
        higher = (sign * g > sign * np.roll(g, 1)) & (sign * g > sign * np.roll(g, -1))
        expected = np.sort(np.arctan2(u[higher, 1], u[higher, 0]))
        found = angles_of([e for e in by_kind(extremals, kind) if e.value])  # a plateau has no strict maxima
        assert found.shape == expected.shape
        assert np.allclose(found, expected, atol=2 * np.pi / count)
    for e in extremals:
        assert e.value == pytest.approx(height(e.direction, inputs, labels, slope), abs=1e-13)
        assert np.allclose(e.drive, e.value * e.direction, atol=1e-15)
        assert e.kinks == tuple(np.flatnonzero(np.abs(inputs @ e.direction) < 1e-12))
        assert np.linalg.norm(e.direction) == pytest.approx(1.0, abs=1e-14)


def test_one_input():
    # G = 2 max(0, u_1): a maximum at (1, 0), and the half circle u_1 <= 0 is flat with two edges.
    extremals = extremal_vectors_2d([[1.0, 0.0]], [2.0])
    assert [(e.attracts, e.value, e.kinks) for e in extremals[:1]] == [("up", 2.0, ())]
    assert np.allclose(extremals[0].direction, [1.0, 0.0])
    rest = {(round(e.direction[0], 12), round(e.direction[1], 12)): (e.attracts, e.kinks) for e in extremals[1:]}
    assert rest == {(0.0, 1.0): ("down", (0,)), (0.0, -1.0): ("down", (0,)), (-1.0, 0.0): ("none", ())}
    assert all(e.value == 0.0 and not e.drive.any() for e in extremals[1:])


def test_a_kink_between_two_pulls():
    half = math.sqrt(0.5)
    inputs, labels = [[half, half], [half, -half], [0.0, 1.0]], [3.0, 3.0, -3.0]
    # Around (1, 0): G = sqrt(2) u_1 - max(0, u_2), whose maximum lies on the kink, flat from one side.
    (found,) = (e for e in extremal_vectors_2d(inputs, labels) if e.direction[0] > 1 - 1e-12)
    assert (found.attracts, found.kinks) == ("up", (2,))
    assert found.value == pytest.approx(math.sqrt(2.0))
    # Repeated, rescaled, and zero inputs change nothing but the list of kinks and the mean over n.
    inputs = [[half, half], [half, -half], [0.0, 0.5], [0.0, 2.0], [0.0, 0.0]]
    labels = [5.0, 5.0, -4.0, -1.5, 7.0]
    (found,) = (e for e in extremal_vectors_2d(inputs, labels) if e.direction[0] > 1 - 1e-12)
    assert (found.attracts, found.kinks) == ("up", (2, 3))
    assert found.value == pytest.approx(math.sqrt(2.0))


@pytest.mark.parametrize("d", [2, 4])
def test_mirrored_inputs_with_odd_labels_have_no_kinks(d):
    # y sigma(z) - y sigma(-z) = (1 + slope) y z: G is linear although every input alone has a kink.
    half, y = problem(0, 20, d)
    inputs, labels, slope = np.vstack((half, -half)), np.concatenate((y, -y)), 0.2
    extremals = extremal_vectors(inputs, labels, slope, starts=5)
    expected = (1 + slope) / 2 * inputs.T @ labels / 40
    assert [e.attracts for e in extremals] == ["up", "down"]
    assert np.allclose(extremals[0].drive, expected, atol=1e-13)
    assert np.allclose(extremals[1].drive, expected, atol=1e-13)
    assert extremals[1].value == pytest.approx(-np.linalg.norm(expected))
    assert all(e.kinks == () for e in extremals)


@pytest.mark.parametrize("d", [2, 3])
def test_without_labels_all_is_flat(d):
    extremals = extremal_vectors(problem(0, 6, d)[0], np.zeros(6), starts=4)
    assert [(e.attracts, e.value, e.kinks) for e in extremals] == [("none", 0.0, ())]


# Paths


@pytest.mark.parametrize(("seed", "slope"), [(0, 0.0), (2, 0.3), (3, 0.0), (4, 0.3)])
def test_paths_in_the_plane_end_in_the_basin_that_small_steps_reach(seed, slope):
    inputs, labels = problem(seed, 8, 2)
    known = extremal_vectors_2d(inputs, labels, slope)
    slid = 0
    for u, sign, reached in basins(circle(31, phase=0.1), inputs, labels, slope):
        end = ascend(3.0 * u, inputs, labels, slope, sign)
        assert np.linalg.norm(end.direction - reached) < 0.05  # of the order of a step, about which Euler chatters
        slid += len(end.kinks) > 0
        if end.value == 0.0 and not end.kinks:
            assert np.allclose(end.direction, u)  # a dead start stays
            continue
        twins = [e for e in known if e.direction @ end.direction > 1 - 1e-12 and e.kinks == end.kinks]
        assert len(twins) == 1
        assert twins[0].attracts == end.attracts == ("up" if sign > 0 else "down")
        assert twins[0].value == pytest.approx(end.value, abs=1e-13)
    assert slid > 0


@pytest.mark.parametrize(("d", "n", "slope"), [(3, 8, 0.0), (3, 8, 0.3), (5, 16, 0.1)])
def test_paths_in_space_end_in_the_basin_that_small_steps_reach(d, n, slope):
    inputs, labels = problem(10 + d, n, d)
    starts = np.random.default_rng(1).standard_normal((30, d))
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    kinks = set()
    for u, sign, reached in basins(starts, inputs, labels, slope):
        end = ascend(u, inputs, labels, slope, sign)
        assert np.linalg.norm(end.direction - reached) < 0.05
        kinks.add(len(end.kinks))
    assert len(kinks) > 1  # some paths end with, some without sliding


def residual(u, kinks, inputs, labels, slope):
    """Least tangential part over the subdifferential at u, by a general bounded optimiser."""
    weights = np.where(inputs @ u > 0, 1.0, slope)
    weights[list(kinks)] = slope
    base = (weights * labels) @ inputs / len(labels)
    columns = (1 - slope) * (labels[:, None] * inputs)[list(kinks)] / len(labels)

    def tangent(t):
        drive = base + t @ columns
        return drive - (u @ drive) * u

    if not len(kinks):
        return float(np.linalg.norm(tangent(np.zeros(0))))
    best = minimize(
        lambda t: (0.5 * np.sum(tangent(t) ** 2), columns @ tangent(t)),
        np.full(len(kinks), 0.5),
        jac=True,
        bounds=[(0.0, 1.0)] * len(kinks),
        method="L-BFGS-B",
        options={"ftol": 0.0, "gtol": 1e-14, "maxiter": 1000},
    )
    return float(np.linalg.norm(tangent(best.x)))


@pytest.mark.parametrize(("d", "n", "slope"), [(3, 30, 0.0), (4, 40, 0.3), (6, 40, 0.0)])
def test_ends_of_paths_are_critical_points_and_extrema(d, n, slope):
    inputs, labels = problem(d, n, d)
    rng = np.random.default_rng(d)
    scale = np.mean(np.abs(labels) * np.linalg.norm(inputs, axis=1))
    pushes = rng.standard_normal((500, d))
    held = 0
    for _ in range(12):
        start = rng.standard_normal(d)
        start /= np.linalg.norm(start)
        for sign, kind in ((1, "up"), (-1, "down")):
            end = ascend(start, inputs, labels, slope, sign)
            u = end.direction
            assert end.kinks == tuple(np.flatnonzero(np.abs(inputs @ u) < 1e-11))
            assert residual(u, end.kinks, inputs, labels, slope) < 1e-7 * scale
            assert end.value == pytest.approx(height(u, inputs, labels, slope), abs=1e-12)
            assert sign * end.value > sign * height(start, inputs, labels, slope)
            assert end.attracts == kind
            near = u + 1e-4 * pushes
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            assert (sign * height(near, inputs, labels, slope) < sign * end.value).all()
            assert all(sign * labels[k] < 0 for k in end.kinks)
            held += len(end.kinks)
    assert held > 0


def test_a_path_slides_past_a_kink_and_leaves_it():
    # Of D = (2.5, 0.5, -+1)/4 at u_3 = +-0 the sliding part is (2.5, 0.5, 0)/4; at u_2 = 0 the last input adds
    # (0, 1, 3)/4, after which both sides push up: D = (2.5, 1.5, 2)/4 is the end.
    inputs = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [3.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    labels = np.array([1.0, -2.0, 0.5, 1.0])
    start = np.array([[0.5, -0.7, 0.15]])
    middle = flow(start, inputs, labels, 0.0, 1, 2e-3, 1.5)[0]
    assert abs(middle[2]) < 2e-3  # the premise: small steps slide
    assert middle[1] < -0.1
    end = ascend(start[0], inputs, labels)
    assert (end.kinks, end.attracts) == ((), "up")
    assert np.allclose(end.drive, [0.625, 0.375, 0.5], atol=1e-15)
    # without the last input it slides to the end
    end = ascend(start[0], inputs[:3], labels[:3])
    assert (end.kinks, end.attracts) == ((1,), "up")
    assert np.allclose(3 * end.drive, [2.5, 0.5, 0.0], atol=1e-14)


def test_a_kink_beyond_a_quarter_circle_is_met():
    # A mirrored pair gives G = u_1 without kinks; 120 degrees and more on the way there is a kink that holds.
    inputs = np.array([[1.5, 0.0], [-1.5, 0.0], [0.5, -math.sqrt(0.75)]])
    labels = np.array([2.0, -2.0, -6.0])
    for phi in (150.0, 172.0, 179.0):
        end = ascend([math.cos(math.radians(phi)), math.sin(math.radians(phi))], inputs, labels)
        assert (end.kinks, end.attracts) == ((2,), "up")
        assert np.allclose(end.direction, [math.sqrt(0.75), 0.5])
        assert end.value == pytest.approx(math.sqrt(0.75))


@pytest.mark.parametrize("d", [2, 3, 4])
def test_paths_on_lattices_end(d):
    # Many kinks in common, kinks of inputs on one line, starts on kinks: G only grows, and the end is an extremum.
    rng = np.random.default_rng(d)
    for _ in range(10):
        inputs = rng.integers(-2, 3, (25, d)).astype(float)
        labels = rng.integers(-2, 3, 25).astype(float)
        for start in rng.integers(-2, 3, (8, d)).astype(float):
            if not start.any():
                continue
            start /= np.linalg.norm(start)
            for sign in (1, -1):
                end = ascend(start, inputs, labels, 0.1, sign)
                g = height(end.direction, inputs, labels, 0.1)
                assert end.value == pytest.approx(g, abs=1e-12)
                assert sign * g >= sign * height(start, inputs, labels, 0.1) - 1e-12
                near = end.direction + 1e-4 * rng.standard_normal((100, d))
                near /= np.linalg.norm(near, axis=1, keepdims=True)
                if end.attracts != "none":
                    assert end.attracts == ("up" if sign > 0 else "down")
                    assert (sign * height(near, inputs, labels, 0.1) <= sign * g + 1e-12).all()


def test_a_neuron_on_an_inactive_cone_stays_there_and_one_that_falls_in_stops_at_its_edge():
    inputs, labels = [[1.0, 0.0, 0.0]], [-1.0]
    dead = ascend([-1.0, 2.0, 2.0], inputs, labels)
    assert (dead.attracts, dead.value, dead.kinks) == ("none", 0.0, ())
    assert np.allclose(dead.direction, np.array([-1.0, 2.0, 2.0]) / 3.0)
    edge = ascend([0.5, 3.0, 4.0], inputs, labels)
    assert (edge.attracts, edge.value, edge.kinks) == ("up", 0.0, (0,))
    assert np.allclose(edge.direction, [0.0, 0.6, 0.8])


def test_a_long_path_is_given_up_in_clear_words():
    inputs, labels = problem(0, 40, 3)
    start = -ascend([1.0, 0.0, 0.0], inputs, labels).direction + 0.01
    with pytest.raises(TooManyPiecesError, match="within 2 pieces"):
        ascend(start, inputs, labels, pieces=2)
    assert issubclass(TooManyPiecesError, RuntimeError)


# Many samples


@pytest.mark.parametrize(("d", "slope", "starts"), [(2, 0.0, 1), (2, 0.2, 1), (3, 0.0, 8)])
def test_linear_labels_with_a_margin_leave_two_extremal_vectors(d, slope, starts):
    rng = np.random.default_rng(d)
    beta = np.ones(d) / math.sqrt(d)
    pool = rng.standard_normal((2000, d))
    inputs = pool[np.abs(pool @ beta) > 0.3 * np.linalg.norm(pool, axis=1)][:600]
    labels = inputs @ beta
    up, down = extremal_vectors(inputs, labels, slope, starts=starts, rng=rng)
    assert (up.attracts, down.attracts) == ("up", "down")
    assert up.kinks == down.kinks == ()
    # Exactly: the mean of y sigma'(+-y) x, as the margin keeps u in the cone of +-beta. Only nearly: +-Sigma beta.
    for e, side in ((up, 1.0), (down, -1.0)):
        exact = (labels * np.where(side * labels > 0, 1.0, slope)) @ inputs / len(labels)
        assert np.allclose(e.drive, exact, rtol=1e-11, atol=1e-13)
        moment = inputs.T @ labels
        assert side * e.direction @ moment > 0.99 * np.linalg.norm(moment)


@pytest.mark.parametrize("d", [2, 4])
def test_a_slope_near_one_gives_the_linear_network(d):
    inputs, labels = problem(1, 50, d)
    moment = inputs.T @ labels / 50
    up, down = extremal_vectors(inputs, labels, 1.0 - 1e-7, starts=5)
    assert np.allclose(up.drive, moment, atol=1e-6)
    assert np.allclose(down.drive, moment, atol=1e-6)
    assert np.allclose(up.direction, -down.direction, atol=1e-5)


def test_starts_in_space_merge_and_repeat():
    inputs, labels = problem(2, 15, 3)
    one = extremal_vectors(inputs, labels, starts=30)
    two = extremal_vectors(inputs, labels, starts=30, rng=np.random.default_rng(0))
    assert [e.value for e in one] == [e.value for e in two] == sorted((e.value for e in one), reverse=True)
    directions = np.array([e.direction for e in one])
    off = directions @ directions.T - 2 * np.eye(len(one))
    assert off.max() < 1 - 1e-9
    assert 2 <= len(one) < 30


# Alignment


def test_alignment_takes_the_sign_of_the_outer_weight():
    inputs, labels = problem(0, 9, 2)
    extremals = extremal_vectors_2d(inputs, labels)
    up, down = by_kind(extremals, "up"), by_kind(extremals, "down")
    weights = np.array([1e-200 * up[0].direction, 5.0 * up[0].direction, 2.0 * down[0].direction, [0.0, 0.0]])
    got = alignment(weights, [1.0, -1.0, -1.0, 1.0], extremals)
    other = max(e.direction @ up[0].direction for e in down if e.value)
    assert np.allclose(got, [1.0, other, 1.0, 0.0], atol=1e-14)
    # without an attracting vector of the sign, or without a sign, all count
    assert alignment(weights[1:2], [-1.0], up)[0] == pytest.approx(1.0)
    assert alignment(weights[2:3], [0.0], extremals)[0] == pytest.approx(1.0)
    edges = extremal_vectors_2d([[1.0, 0.0]], [2.0])  # the only ones with "down" are the edges of the flat half
    assert alignment([[1.0, 0.0]], [-1.0], edges)[0] == pytest.approx(1.0)
    assert alignment(np.zeros((0, 2)), [], extremals).shape == (0,)


def test_bad_input_is_refused():
    inputs, labels = problem(0, 5, 3)
    with pytest.raises(ValueError, match="2 columns"):
        extremal_vectors_2d(inputs, labels)
    with pytest.raises(ValueError, match="slope"):
        extremal_vectors(inputs, labels, 1.0)
    with pytest.raises(ValueError, match="labels"):
        extremal_vectors(inputs, labels[1:])
    with pytest.raises(ValueError, match="start must not"):
        ascend(np.zeros(3), inputs, labels)
    with pytest.raises(ValueError, match="start must"):
        ascend(np.ones(2), inputs, labels)
    with pytest.raises(ValueError, match="sign"):
        ascend(np.ones(3), inputs, labels, 0.0, 2)
    with pytest.raises(ValueError, match="inputs"):
        extremal_vectors(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ValueError, match="starts"):
        extremal_vectors(inputs, labels, starts=0)
    with pytest.raises(ValueError, match="extremals"):
        alignment(np.ones((2, 3)), np.ones(2), [])

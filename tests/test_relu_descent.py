"""Gradient descent, Adam and gradient flow of the ReLU network, against plain numpy, differences and closed forms."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from validation.relu.descent import Force, adam, gradient_descent
from validation.relu.network import Network, Nonlinearity, initial
from validation.relu.smooth import smooth_flow
from validation.relu.trajectory import Reason

ACTIVATIONS = [Nonlinearity("relu"), Nonlinearity("leaky_relu", 0.2), Nonlinearity("gelu")]
RELU, LEAKY, GELU = ACTIVATIONS
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.name)


def problem(activation, m=7, d=3, n=10, scale=1.0, seed=0, kind="unbalanced"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = x @ np.arange(1.0, d + 1.0) / d + 0.3 * rng.standard_normal(n)
    return initial(m, d, scale, rng, kind=kind, activation=activation), x, y


def plain_gradient(activation, w, a, x, y):
    z = x @ w.T
    r = y - activation(z) @ a
    dw = -(activation.derivative(z) * r[:, None] * a).T @ x / len(y)
    return dw, -activation(z).T @ r / len(y), np.mean(r**2)


def plain_norm(dw, da):
    return math.sqrt(np.sum(dw**2) + np.sum(da**2))


@each_activation
@pytest.mark.parametrize(
    ("m", "d", "n"), [(1, 1, 1), (3, 2, 5), (8, 3, 4), (5, 4, 7), (21, 5, 9), (6, 6, 3), (4, 13, 6)]
)
def test_gradient_equals_plain_numpy(activation, m, d, n):
    network, x, y = problem(activation, m, d, n)
    force = Force(network, x, y)
    mse, norm = force()
    dw, da, loss = plain_gradient(activation, network.weights, network.outer, x, y)
    np.testing.assert_allclose(force.d_weights.T, -dw, rtol=0, atol=1e-14 * (1 + np.abs(dw).max()))
    np.testing.assert_allclose(force.d_outer, -da, rtol=0, atol=1e-14 * (1 + np.abs(da).max()))
    assert mse == pytest.approx(loss, rel=1e-13)
    assert norm == pytest.approx(plain_norm(dw, da), rel=1e-13)


@each_activation
def test_gradient_equals_central_differences(activation):
    network, x, y = problem(activation)
    if activation.piecewise_linear:
        assert np.abs(x @ network.weights.T).min() > 1e-4, "the differences must not cross a kink"
    force = Force(network, x, y)
    force()
    step = 1e-6

    def loss(w, a):
        return 0.5 * np.mean((y - Network(w, a, activation)(x)) ** 2)

    for j in range(network.width):
        shift = step * (np.arange(network.width) == j)
        slope = (loss(network.weights, network.outer + shift) - loss(network.weights, network.outer - shift)) / 2 / step
        assert force.d_outer[j] == pytest.approx(-slope, abs=2e-9)
        for i in range(network.dimension):
            shift = np.zeros_like(network.weights)
            shift[j, i] = step
            up, down = loss(network.weights + shift, network.outer), loss(network.weights - shift, network.outer)
            assert force.d_weights[i, j] == pytest.approx((down - up) / 2 / step, abs=2e-9)


def test_gelu_is_exact_at_any_pre_activation():
    z = np.concatenate([np.linspace(-40.0, 40.0, 20011), [1e-6, -1e-6, 9.0, -9.0, 1e8, -1e8, 1e12, -1e12]])
    # One sample x = 1 of residual 1, as outer weights of 1e-300 give f = 0: da_j = sigma(w_j), dw_j = a_j sigma'(w_j).
    for part in np.array_split(z, 40):
        for output, want in ((True, GELU(part)), (False, GELU.derivative(part))):
            network = Network(part[:, None], np.full(len(part), 1e-300), GELU)
            force = Force(network, [[1.0]], [1.0])
            force()
            have = force.d_outer if output else force.d_weights[0] * 1e300
            np.testing.assert_allclose(have, want, rtol=1e-14, atol=4e-15)


@each_activation
def test_descent_equals_plain_numpy_step_for_step(activation):
    network, x, y = problem(activation, m=9, d=5, n=11)
    rate = 0.05
    run = gradient_descent(network, x, y, learning_rate=rate, steps=50, times=rate * np.arange(51))
    w, a = network.weights.copy(), network.outer.copy()
    assert len(run.time) == 51
    for step in range(51):
        dw, da, mse = plain_gradient(activation, w, a, x, y)
        np.testing.assert_allclose(run.weights[step], w, rtol=0, atol=1e-13)
        np.testing.assert_allclose(run.outer[step], a, rtol=0, atol=1e-13)
        assert run.time[step] == pytest.approx(rate * step)
        assert run.train_loss[step] == pytest.approx(mse, rel=1e-11)
        assert run.gradient_norm[step] == pytest.approx(plain_norm(dw, da), rel=1e-11)
        w, a = w - rate * dw, a - rate * da
    assert run.train_loss[-1] < 0.5 * run.train_loss[0]
    assert run.reason is Reason.STEPS
    assert run.steps == 50


@each_activation
def test_adam_equals_its_definition(activation):
    network, x, y = problem(activation, m=6, d=4, n=9)
    rate, beta1, beta2, epsilon = 0.01, 0.8, 0.95, 1e-3
    times = rate * np.array([3.0, 17.0, 40.0])  # slabs end between steps, and the moments must carry over
    settings = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
    run = adam(network, x, y, learning_rate=rate, steps=40, times=times, **settings)
    theta = np.concatenate([network.weights.ravel(), network.outer])
    size = network.weights.size
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    seen = []
    for t in range(1, 41):
        dw, da, _ = plain_gradient(activation, theta[:size].reshape(network.weights.shape), theta[size:], x, y)
        g = np.concatenate([dw.ravel(), da])
        first = beta1 * first + (1 - beta1) * g
        second = beta2 * second + (1 - beta2) * g**2
        theta = theta - rate * (first / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + epsilon)
        if t in (3, 17, 40):
            seen.append(theta)
    have = np.concatenate([run.weights.reshape(4, -1), run.outer], axis=1)[1:]
    np.testing.assert_allclose(have, seen, rtol=0, atol=1e-12)


def drift(run):
    return np.abs(run.network().conserved() - run.network(0).conserved()).max()


@pytest.mark.parametrize("activation", [RELU, LEAKY], ids=lambda a: a.name)
def test_conserved_quantity_drifts_with_the_step(activation):
    network, x, y = problem(activation, seed=3)
    drifts = [drift(gradient_descent(network, x, y, learning_rate=h, steps=round(4 / h))) for h in (4e-3, 2e-3, 1e-3)]
    assert drifts[0] > 1e-5
    for coarse, fine in itertools.pairwise(drifts):
        assert coarse / fine == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("activation", [RELU, LEAKY], ids=lambda a: a.name)
def test_flow_conserves(activation):
    network, x, y = problem(activation, seed=3)
    run = smooth_flow(network, x, y, t_final=4.0, rtol=1e-8)
    assert run.train_loss[-1] < 0.5 * run.train_loss[0]
    assert drift(run) < 1e-6


def test_gelu_does_not_conserve():
    network, x, y = problem(GELU, seed=3)
    assert drift(smooth_flow(network, x, y, t_final=4.0)) > 0.05
    assert drift(gradient_descent(network, x, y, learning_rate=1e-3, steps=4000)) > 0.05


def test_flow_equals_an_independent_solver():
    network, x, y = problem(GELU, m=5, d=2, n=6)
    size = network.weights.size

    def rhs(_, s):
        dw, da, _ = plain_gradient(GELU, s[:size].reshape(5, 2), s[size:], x, y)
        return -np.concatenate([dw.ravel(), da])

    times = np.array([0.3, 1.0, 2.5, 7.0])
    start = np.concatenate([network.weights.ravel(), network.outer])
    twin = solve_ivp(rhs, (0.0, 7.0), start, method="DOP853", rtol=1e-11, atol=1e-12, t_eval=times)
    run = smooth_flow(network, x, y, t_final=7.0, rtol=1e-8, times=times)
    np.testing.assert_allclose(run.time, [0.0, *times])
    np.testing.assert_allclose(np.hstack([run.weights.reshape(5, -1), run.outer])[1:], twin.y.T, atol=1e-6)
    assert run.reason is Reason.TIME


def test_descent_tends_to_the_flow_at_first_order():
    network, x, y = problem(GELU)
    exact = smooth_flow(network, x, y, t_final=3.0, rtol=1e-10).network()
    steps = np.array([0.02, 0.01, 0.005, 0.0025])
    errors = []
    for h in steps:
        run = gradient_descent(network, x, y, learning_rate=h, steps=round(3 / h)).network()
        errors.append(np.hypot(np.linalg.norm(run.weights - exact.weights), np.linalg.norm(run.outer - exact.outer)))
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(1.0, abs=0.2)


# One neuron, one sample x, balanced and aligned with x: with a = |w| and p = a |w| |x| = f, the flow
# w' = a r x, a' = |w| |x| r, r = y - f, gives p' = 2 |x| p (y - p), whose solution is logistic.
SAMPLE, LABEL = np.array([1.2, -0.5]), 0.9
LENGTH = float(np.linalg.norm(SAMPLE))


def logistic(t, scale):
    start = scale**2 * LENGTH
    return LABEL / (1.0 + (LABEL / start - 1.0) * np.exp(-2.0 * LENGTH * LABEL * t))


def aligned(scale):
    return Network(scale * SAMPLE[None, :] / LENGTH, np.array([scale]), RELU)


@pytest.mark.parametrize("scale", [1e-3, 1e-6])
def test_single_neuron_is_logistic(scale):
    escape = math.log(LABEL / (scale**2 * LENGTH)) / (2.0 * LENGTH * LABEL)  # where p = LABEL / 2 but for scale^2
    times = escape * np.array([0.2, 0.6, 1.0, 1.1])
    flow = smooth_flow(aligned(scale), [SAMPLE], [LABEL], t_final=times[-1], rtol=1e-8, times=times)
    have = np.array([flow.network(i)([SAMPLE])[0] for i in range(1, 5)])
    np.testing.assert_allclose(have, logistic(times, scale), rtol=3e-5)
    assert have[2] == pytest.approx(LABEL / 2, rel=1e-4)


def test_escape_time_is_proportional_to_the_logarithm_of_the_scale():
    rate, scales = 1e-4, np.array([1e-2, 1e-4, 1e-8])
    found = []
    for scale in scales:
        tolerance = (LABEL / 2) ** 2
        run = gradient_descent(aligned(scale), [SAMPLE], [LABEL], learning_rate=rate, steps=10**6, loss_tol=tolerance)
        assert run.reason is Reason.LOSS
        found.append(run.time[-1])
    slope = np.polyfit(np.log(1.0 / scales), found, 1)[0]
    assert slope == pytest.approx(1.0 / (LENGTH * LABEL), rel=1e-3)
    # Twice the logarithm, twice the time, but for the constant ln(y/|x|)/(2|x|y).
    constant = math.log(LABEL / LENGTH) / (2.0 * LENGTH * LABEL)
    assert (found[2] - constant) / (found[1] - constant) == pytest.approx(2.0, abs=2e-3)


@each_activation
@pytest.mark.parametrize("train", [gradient_descent, adam])
def test_divergence_is_caught(activation, train):
    network, x, y = problem(activation)
    rate = 1e3 if train is gradient_descent else 1e4
    run = train(network, x, y, learning_rate=rate, steps=10000, times=rate * np.arange(100))
    assert run.reason is Reason.DIVERGED
    assert 0 < run.steps < 100
    assert run.time[0] == 0.0
    for values in (run.time, run.train_loss, run.gradient_norm, run.weights, run.outer):
        assert np.isfinite(values).all()
    np.testing.assert_array_equal(run.weights[0], network.weights)


@each_activation
def test_reasons(activation):
    network, x, y = problem(activation, m=40, n=6)
    start = np.mean((y - network(x)) ** 2)
    settings = {"learning_rate": 0.05, "steps": 200000}
    run = gradient_descent(network, x, y, loss_tol=0.1 * start, **settings)
    assert run.reason is Reason.LOSS
    assert run.train_loss[-1] <= 0.1 * start
    before = gradient_descent(network, x, y, learning_rate=0.05, steps=run.steps - 1)
    assert before.train_loss[-1] > 0.1 * start, "the tolerance is looked at in every step"
    assert run.time[-1] == pytest.approx(0.05 * run.steps)
    run = gradient_descent(network, x, y, gradient_tol=1e-3, **settings)
    assert run.reason is Reason.GRADIENT
    assert run.gradient_norm[-1] <= 1e-3 < run.gradient_norm[-2]
    dw, da, _ = plain_gradient(activation, run.weights[-1], run.outer[-1], x, y)
    assert plain_norm(dw, da) <= 1e-3 * (1 + 1e-9)
    run = gradient_descent(network, x, y, learning_rate=0.05, steps=0)
    assert (run.reason, run.steps, len(run.time)) == (Reason.STEPS, 0, 1)
    run = gradient_descent(network, x, y, loss_tol=2 * start, **settings)
    assert (run.reason, run.steps, len(run.time)) == (Reason.LOSS, 0, 1)
    flow = {"t_final": 1e4, "rtol": 1e-4}
    assert smooth_flow(network, x, y, loss_tol=0.1 * start, **flow).reason is Reason.LOSS
    run = smooth_flow(network, x, y, gradient_tol=1e-2, **flow)
    assert run.reason is Reason.GRADIENT
    assert run.gradient_norm[-1] <= 1e-2
    run = smooth_flow(network, x, y, t_final=0.0)
    assert (run.reason, len(run.time)) == (Reason.TIME, 1)


def test_interruption_returns_what_there_is():
    network, x, y = problem(GELU, m=50, d=5, n=40)
    calls = []

    def stop():
        calls.append(1)
        return len(calls) > 20

    run = gradient_descent(network, x, y, learning_rate=1e-3, steps=10**9, stop=stop)
    assert run.reason is Reason.INTERRUPTED
    assert 0 < run.steps < 10**9
    assert run.time[-1] == pytest.approx(1e-3 * run.steps)
    again = gradient_descent(network, x, y, learning_rate=1e-3, steps=run.steps)
    np.testing.assert_array_equal(again.weights[-1], run.weights[-1])
    flow = smooth_flow(network, x, y, t_final=1e9, stop=lambda: True)
    assert flow.reason is Reason.INTERRUPTED
    assert 0.0 < flow.time[-1] < 1e9
    assert flow.train_loss[-1] < flow.train_loss[0]


def test_records_and_start_are_left_alone():
    network, x, y = problem(RELU)
    kept = network.weights.copy(), network.outer.copy()
    run = gradient_descent(network, x, y, learning_rate=1e-2, steps=10000)
    np.testing.assert_array_equal(network.weights, kept[0])
    np.testing.assert_array_equal(network.outer, kept[1])
    assert (run.time[0], run.time[1], run.time[-1]) == (0.0, 0.01, 100.0)
    assert 40 < len(run.time) <= 61
    assert (np.diff(run.time) > 0.0).all()
    chosen = gradient_descent(network, x, y, learning_rate=1e-2, steps=100, times=[0.1, 0.5])
    np.testing.assert_allclose(chosen.time, [0.0, 0.1, 0.5, 1.0])
    flow = smooth_flow(network, x, y, t_final=2.0, rtol=1e-4)
    assert (flow.time[0], flow.time[-1], len(flow.time)) == (0.0, 2.0, 61)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"steps": -1}, "steps"),
        ({"steps": 2.0}, "steps"),
        ({"loss_tol": -1.0}, "loss_tol"),
        ({"gradient_tol": "small"}, "gradient_tol"),
        ({"times": [0.2, 0.1]}, "times"),
        ({"times": [0.1, 99.0]}, "times"),
        ({"times": [-0.1]}, "times"),
        ({"beta1": 1.0}, "beta1"),
        ({"beta2": -0.1}, "beta2"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"inputs": np.ones((10, 4))}, "inputs"),
        ({"inputs": np.ones((0, 3)), "labels": []}, "inputs"),
        ({"labels": np.ones(9)}, "labels"),
        ({"labels": np.full(10, math.inf)}, "labels"),
        ({"network": None}, "network"),
        ({"network": Network(np.ones((2, 3)), np.ones(3))}, "outer"),
        ({"network": Network(np.full((2, 3), 1e200), np.ones(2))}, "network"),
    ],
)
def test_bad_arguments(change, message):
    network, x, y = problem(RELU)
    arguments = {"network": network, "inputs": x, "labels": y, "learning_rate": 0.1, "steps": 10} | change
    with pytest.raises((ValueError, TypeError), match=message):
        adam(**arguments)
    if not {"beta1", "beta2", "epsilon"} & set(change):
        with pytest.raises((ValueError, TypeError), match=message):
            gradient_descent(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_final": -1.0}, "t_final"),
        ({"rtol": 0.5}, "rtol"),
        ({"rtol": 0.0}, "rtol"),
        ({"times": [2.0]}, "times"),
        ({"loss_tol": math.nan}, "loss_tol"),
        ({"gradient_tol": -1.0}, "gradient_tol"),
        ({"labels": [1.0]}, "labels"),
        ({"network": Network(np.full((2, 3), 1e200), np.ones(2))}, "network"),
    ],
)
def test_bad_arguments_of_the_flow(change, message):
    network, x, y = problem(RELU)
    with pytest.raises((ValueError, TypeError), match=message):
        smooth_flow(**({"network": network, "inputs": x, "labels": y, "t_final": 1.0} | change))

"""A true two-layer network on Gaussian inputs, with the activation itself and not its covariance.

The work of an update is two matrix products, inputs times weights and back. What lies between them is one pass over
the pre-activations, compiled here, a row at a time while it is in cache: activation and slope from a table of cubic
polynomials (exact for polynomials up to degree three, and to about 1e-10 for smooth activations, so that any activation
costs the same), the residual of the sample, and what both layers need of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft import _jit
from validation.model import FloatArray, IntArray, Model, Velocity

if TYPE_CHECKING:
    from dmft.activations import Activation
    from dmft.problems import NetworkProblem

BLOCK = 512
"""Samples handled at once: their pre-activations stay in cache between the two products."""

_REACH = 12.0
"""Pre-activations of unit weights on Gaussian inputs lie within +-12 but for one in 10^32."""

_CELLS_PER_UNIT = 256


@dataclass(frozen=True)
class Table:
    """An activation as cubic polynomials on equal cells.

    Attributes
    ----------
    coefficients : (4 cells,) float
        Ascending coefficients of cell j at 4j..4j+3, in the fraction of the cell; a single cell is a polynomial in the
        pre-activation itself.
    low : float
        Where the first cell begins.
    inverse_width : float
        Cells per unit; 1 for a single cell.
    """

    coefficients: FloatArray
    low: float
    inverse_width: float

    @classmethod
    def of(cls, activation: Activation) -> Table:
        """Tabulate: exactly for a polynomial of degree <= 3, by interpolation at four Chebyshev points otherwise."""
        if activation.degree <= 3 and activation.truncation_error == 0.0:
            points = np.array([-1.5, -0.5, 0.5, 1.5])
            exact = np.linalg.solve(np.vander(points, 4, increasing=True), activation.sigma(points))
            # What cancels to rounding is zero: a quadratic stays one.
            exact[np.abs(exact) < 1e-14 * np.abs(exact).max()] = 0.0
            return cls(exact, 0.0, 1.0)
        cells = round(2 * _REACH * _CELLS_PER_UNIT)
        edges = -_REACH + np.arange(cells) / _CELLS_PER_UNIT
        points = 0.5 - 0.5 * np.cos(math.pi * (np.arange(4) + 0.5) / 4)
        values = activation.sigma(edges[:, None] + points / _CELLS_PER_UNIT)
        rows = np.linalg.solve(np.vander(points, 4, increasing=True), values.T).T
        return cls(np.ascontiguousarray(rows).ravel(), -_REACH, float(_CELLS_PER_UNIT))


@_jit.summation
def _activate(z, table, low, inverse_width, value, slope):  # type: ignore[no-untyped-def]
    """Activation and slope of a row of pre-activations; ``slope`` may be ``z`` itself."""
    if len(table) == 4:
        c0, c1, c2, c3 = table[0], table[1], table[2], table[3]
        for i in range(len(z)):
            x = z[i]
            value[i] = c0 + x * (c1 + x * (c2 + x * c3))
            slope[i] = c1 + x * (2.0 * c2 + x * (3.0 * c3))
    else:
        top = len(table) // 4 - 1e-9
        for i in range(len(z)):
            u = (z[i] - low) * inverse_width
            u = u if u > 0.0 else 0.0  # also for NaN, which must not become an address
            u = u if u < top else top
            cell = np.int32(u)
            x = u - cell
            k = 4 * cell
            c0, c1, c2, c3 = table[k], table[k + 1], table[k + 2], table[k + 3]
            value[i] = c0 + x * (c1 + x * (c2 + x * c3))
            slope[i] = (c1 + x * (2.0 * c2 + x * (3.0 * c3))) * inverse_width


@_jit.summation
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@_jit.entry
def back(z, labels, a, table, low, inverse_width, value, residuals, d_a):  # type: ignore[no-untyped-def]
    """Between the two products: residuals, their sums with the outputs, and what multiplies the inputs.

    Parameters
    ----------
    z : (n, m)
        Pre-activations; replaced by r_i sigma'(z_il).
    labels : (n,)
    a : (m,)
    table, low, inverse_width : the activation, see `Table`
    value : (m,) work space
    residuals : (n,)
        Result y - f.
    d_a : (m,)
        sum_i r_i sigma(z_il) is added.
    """
    width = len(a)
    for i in range(len(labels)):
        _activate(z[i], table, low, inverse_width, value, z[i])
        residual = labels[i] - _dot(a, value) / width
        residuals[i] = residual
        for j in range(width):
            d_a[j] += residual * value[j]
            z[i, j] *= residual


@_jit.blas_entry
def descend(  # type: ignore[no-untyped-def]
    inputs,
    labels,
    order,
    batch,
    weights,
    a,
    step,
    train_a,
    momentum,
    speed_w,
    speed_a,
    table,
    low,
    inverse_width,
    x,
    y,
    z,
    value,
    residuals,
    d_a,
    d_weights,
):
    """Minibatch updates in place, one for each ``batch`` entries of ``order``.

    Parameters
    ----------
    inputs, labels : (n, d), (n,)
    order : (updates * batch,) int
        Samples in the order in which they are used.
    batch : int
    weights, a : (m, d), (m,)
        Advanced; rows of ``weights`` are normalised after each update.
    step : float
        Time of one update.
    train_a : bool
    momentum : float
    speed_w, speed_a : (m, d), (m,)
        Last step of both layers, advanced; not read with momentum 0.
    table, low, inverse_width : the activation
    x, y, z : (batch, d), (batch,), (batch, m) work space
    value, residuals, d_a, d_weights : (m,), (batch,), (m,), (m, d) work space
    """
    width, dimension = weights.shape
    rate = step * len(labels) / batch / (width * dimension)
    for update in range(len(order) // batch):
        for i in range(batch):
            sample = order[update * batch + i]
            y[i] = labels[sample]
            for j in range(dimension):
                x[i, j] = inputs[sample, j]
        np.dot(x, weights.T, z)
        for j in range(width):
            d_a[j] = 0.0
        back(z, y, a, table, low, inverse_width, value, residuals, d_a)
        np.dot(z.T, x, d_weights)
        for j in range(width):
            factor = rate * a[j]
            if momentum > 0.0:
                for i in range(dimension):
                    speed_w[j, i] = momentum * speed_w[j, i] + factor * d_weights[j, i]
                    weights[j, i] += speed_w[j, i]
            else:
                for i in range(dimension):
                    weights[j, i] += factor * d_weights[j, i]
            norm = 1.0 / math.sqrt(_dot(weights[j], weights[j]))
            for i in range(dimension):
                weights[j, i] *= norm
            if train_a and momentum > 0.0:
                speed_a[j] = momentum * speed_a[j] + rate * d_a[j]
                a[j] += speed_a[j]
            elif train_a:
                a[j] += rate * d_a[j]


@_jit.entry
def draw(uniform, pool, order):  # type: ignore[no-untyped-def]
    """Batches drawn without replacement, each independent of the others: the first steps of a Fisher-Yates shuffle.

    Parameters
    ----------
    uniform : (updates, batch) float
        In [0, 1).
    pool : (n,) int
        The samples in any order; shuffled further.
    order : (updates, batch) int
        Result.
    """
    samples = len(pool)
    for update in range(len(order)):
        for i in range(order.shape[1]):
            j = i + min(int(uniform[update, i] * (samples - i)), samples - i - 1)
            sample = pool[j]
            pool[j] = pool[i]
            pool[i] = sample
            order[update, i] = sample


class Network(Model):
    """Two-layer network f(x) = (1/m) sum a_i sigma(<w_i, x>) with x ~ N(0, I_d), y = phi(U^T x) + noise.

    What phi has besides its learnable Hermite components (targets given by an overlap may leave a part of |phi|^2
    open) is drawn as independent Gaussian label noise, on training and test data alike.

    Parameters
    ----------
    problem : NetworkProblem
    dimension, samples : int
        d and n.
    rng : numpy.random.Generator
        Source of the training set.
    test_rng : numpy.random.Generator
        Source of the test set.
    test_samples : int
        Size of the test set; 0 for none.
    """

    whole_activation = True

    def __init__(
        self,
        problem: NetworkProblem,
        dimension: int,
        samples: int,
        rng: np.random.Generator,
        test_rng: np.random.Generator,
        test_samples: int,
    ) -> None:
        super().__init__(problem, dimension, samples)
        phi = problem.target.function(problem.activation)
        latent = phi.latent_dimension
        self._noise_variance = problem.noise_std**2 + phi.unexplained
        self.inputs = rng.standard_normal((samples, dimension))
        noise = math.sqrt(self._noise_variance) * rng.standard_normal(samples)
        self.labels = phi(self.inputs[:, :latent]) + noise
        self._test_inputs = test_rng.standard_normal((test_samples, dimension))
        # The noise of a test label adds its variance to the error and nothing else: that is known exactly.
        self._test_labels = phi(self._test_inputs[:, :latent])
        table = Table.of(problem.activation)
        self._activation = (table.coefficients, table.low, table.inverse_width)
        self._value = np.empty(self.width)
        self._pre = np.empty((BLOCK, self.width))
        self._d_weights = np.empty((self.width, dimension))

    def _pass(
        self, inputs: FloatArray, labels: FloatArray, weights: FloatArray, a: FloatArray, backwards: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Residuals, and sums over samples of r grad sigma and r sigma (zero unless ``backwards``)."""
        residuals = np.empty(len(labels))
        d_weights, d_a = np.zeros(weights.shape), np.zeros(self.width)
        transposed = weights.T
        for start in range(0, len(labels), BLOCK):
            block = slice(start, start + BLOCK)
            x = inputs[block]
            pre = self._pre[: len(x)]
            np.matmul(x, transposed, out=pre)
            back(pre, labels[block], a, *self._activation, self._value, residuals[block], d_a)
            if backwards:
                np.matmul(pre.T, x, out=self._d_weights)
                d_weights += self._d_weights
        return residuals, d_weights, d_a

    def residuals(self, weights: FloatArray, a: FloatArray) -> FloatArray:
        """Residuals y - f on the training set, (n,)."""
        return self._pass(self.inputs, self.labels, weights, a, False)[0]

    def force(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Time derivatives (m, d) and (m,) before projection."""
        _, d_weights, d_a = self._pass(self.inputs, self.labels, weights, a, True)
        rate = 1.0 / (self.width * self.dimension)
        d_weights *= (rate * a)[:, None]
        return d_weights, rate * d_a

    def fresh_error(self, weights: FloatArray, a: FloatArray) -> float | None:
        """Half the mean squared residual on the test set, the variance of the label noise added exactly."""
        if len(self._test_labels) == 0:
            return None
        residuals = self._pass(self._test_inputs, self._test_labels, weights, a, False)[0]
        return 0.5 * float(residuals @ residuals / len(residuals) + self._noise_variance)

    def descend_batches(
        self,
        weights: FloatArray,
        a: FloatArray,
        step: float,
        batch: int,
        order: IntArray,
        train_a: bool,
        velocity: Velocity | None = None,
    ) -> None:
        """Minibatch updates in place, one for each ``batch`` entries of ``order``; see `descend`."""
        work: list[Any] = [np.empty((batch, self.dimension)), np.empty(batch), np.empty((batch, self.width))]
        work += [self._value, np.empty(batch), np.empty(self.width), self._d_weights]
        heavy = (0.0, weights, a) if velocity is None else (velocity.momentum, velocity.weights, velocity.a)
        descend(self.inputs, self.labels, order, batch, weights, a, step, train_a, *heavy, *self._activation, *work)


def epochs(rng: np.random.Generator, samples: int, batch: int) -> Callable[[int], IntArray]:
    """Sample order for minibatch descent on a fixed data set, reshuffled each epoch.

    An epoch uses each sample at most once, in ``samples // batch`` whole batches; the few left over are other ones in
    every epoch.

    Returns
    -------
    callable
        Gives the order for the next ``updates`` updates, an array of updates * batch sample numbers.
    """
    used = samples // batch * batch
    left = np.empty(0, dtype=np.int64)

    def order(updates: int) -> IntArray:
        nonlocal left
        shuffles = [left]
        missing = updates * batch - len(left)
        while missing > 0:
            shuffles.append(rng.permutation(samples)[:used])
            missing -= used
        joined = np.concatenate(shuffles)
        now, left = joined[: updates * batch], joined[updates * batch :]
        return now

    return order


def fresh(rng: np.random.Generator, samples: int, batch: int) -> Callable[[int], IntArray]:
    """As `epochs`, but every batch is drawn from all samples, independently of the batches before it.

    No sample is in a batch twice.
    """
    pool = np.arange(samples)

    def order(updates: int) -> IntArray:
        drawn = np.empty((updates, batch), dtype=np.int64)
        draw(rng.random((updates, batch)), pool, drawn)
        return drawn.ravel()

    return order

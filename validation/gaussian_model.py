"""The Gaussian model, for which the theory is exact: residuals that are Gaussian functions of the weights.

Neuron outputs are sigma_i(w) = sum_k s_k <J_i^(k), w^(x)k> with independent standard Gaussian tensors J_i^(k), theory
section 1. Only the symmetric part of a tensor acts, so each is kept as its independent components: one standard
Gaussian for each monomial w_i1 ... w_ik, i1 <= ... <= ik, which carries the factor sqrt(k!/prod_r n_r!) of its
multiplicities n_r. Then sigma_i(w) = <G_i, psi(w)> with <psi(w), psi(w')> = h(<w, w'>), and a sample costs
binomial(d+k-1, k) numbers a degree instead of d^k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft import _jit
from validation.model import FloatArray, IntArray, Model, Velocity, update

if TYPE_CHECKING:
    from dmft.problems import NetworkProblem

MAX_DEGREE = 4
"""Highest degree of h: d^4/24 numbers a sample are the most that is of use."""

BLOCK_BYTES, BLOCK_ROWS = 1 << 20, 16
"""Rows of a minibatch that are gathered at once fill this many bytes, so that they stay in cache between the two
products; but fewer rows than this make the products slow."""


@_jit.kernel
def _first_prefix(w, length, index, run, coefficient, product):  # type: ignore[no-untyped-def]
    """Start of the walk over sorted index tuples of one less than the degree: all indices 0."""
    for q in range(length):
        index[q] = 0
        run[q] = q + 1
        coefficient[q] = 1.0
        product[q] = w[0] if q == 0 else product[q - 1] * w[0]


@_jit.kernel
def _next_prefix(w, length, index, run, coefficient, product):  # type: ignore[no-untyped-def]
    """Next sorted tuple, with its products of weights and of multiplicity factors; False after the last one."""
    j = length - 1
    while j >= 0 and index[j] == len(w) - 1:
        j -= 1
    if j < 0:
        return False
    value = index[j] + 1
    for q in range(j, length):
        index[q] = value
        run[q] = 1 if q == j and (q == 0 or index[q - 1] != value) else (run[q - 1] + 1 if q > 0 else 1)
        before = 1.0 if q == 0 else coefficient[q - 1]
        coefficient[q] = before * math.sqrt((q + 1) / run[q])
        product[q] = w[value] if q == 0 else product[q - 1] * w[value]
    return True


@_jit.entry
def monomials(w, degree, index, run, coefficient, product, out):  # type: ignore[no-untyped-def]
    """psi_k(w): all monomials of one degree with their multiplicity factors, in lexicographic order.

    Parameters
    ----------
    w : (d,)
        Weights.
    degree : int
        k >= 1.
    index, run : (k,) int work space
    coefficient, product : (k,) float work space
    out : (binomial(d+k-1, k),) float
    """
    d = len(w)
    if degree == 1:
        for i in range(d):
            out[i] = w[i]
        return
    length = degree - 1
    place = 0
    _first_prefix(w, length, index, run, coefficient, product)
    more = True
    while more:
        last = index[length - 1]
        base = coefficient[length - 1] * product[length - 1]
        out[place] = base * math.sqrt(degree / (run[length - 1] + 1)) * w[last]
        base *= math.sqrt(degree)
        for i in range(last + 1, d):
            out[place + i - last] = base * w[i]
        place += d - last
        more = _next_prefix(w, length, index, run, coefficient, product)


@_jit.entry
def pull_back(w, degree, index, run, coefficient, product, values, out):  # type: ignore[no-untyped-def]
    """Add the gradient of <values, psi_k(w)> with respect to w to ``out`` (d,); arguments as `monomials`."""
    d = len(w)
    if degree == 1:
        for i in range(d):
            out[i] += values[i]
        return
    length = degree - 1
    place = 0
    _first_prefix(w, length, index, run, coefficient, product)
    more = True
    while more:
        last = index[length - 1]
        # The last index runs freely: its derivative, and the sum that the prefix multiplies.
        repeated = coefficient[length - 1] * math.sqrt(degree / (run[length - 1] + 1))
        plain = coefficient[length - 1] * math.sqrt(degree)
        factor = product[length - 1]
        out[last] += repeated * factor * values[place]
        inner = repeated * values[place] * w[last]
        for i in range(last + 1, d):
            value = plain * values[place + i - last]
            out[i] += factor * value
            inner += value * w[i]
        for q in range(length):
            others = 1.0
            for p in range(length):
                if p != q:
                    others *= w[index[p]]
            out[index[q]] += others * inner
        place += d - last
        more = _next_prefix(w, length, index, run, coefficient, product)


@dataclass(frozen=True)
class _Part:
    """The components of one degree: their place in the concatenated feature vector."""

    degree: int
    scale: float
    where: slice


def _parts(problem: NetworkProblem, dimension: int) -> list[_Part]:
    parts, start = [], 0
    for degree, s in enumerate(problem.activation.series):
        if s != 0.0:
            size = math.comb(dimension + degree - 1, degree)
            parts.append(_Part(degree, float(s), slice(start, start + size)))
            start += size
    return parts


def check(problem: NetworkProblem) -> None:
    """Refuse what this model cannot be made for.

    Raises
    ------
    ValueError
        If the degree of h is above `MAX_DEGREE`.
    """
    degree = problem.activation.degree
    if degree > MAX_DEGREE:
        raise ValueError(
            f"model 'gaussian' needs an activation whose h has degree <= {MAX_DEGREE} (a tensor of degree k has "
            f"d^k/k! components), not {degree}; use model='network' or activation.truncated({MAX_DEGREE})."
        )


def components(problem: NetworkProblem, dimension: int) -> int:
    """Number of Gaussian components of one sample."""
    return _parts(problem, dimension)[-1].where.stop


def memory(problem: NetworkProblem, dimension: int, samples: int, itemsize: int) -> int:
    """Bytes that one replica needs: the tensors, the features of all neurons, and what a force evaluation adds."""
    columns, width = components(problem, dimension), problem.formulation().width
    return columns * (samples * itemsize + width * (itemsize + 8) + 3 * itemsize)


def batch_memory(problem: NetworkProblem, dimension: int, batch: int, itemsize: int) -> int:
    """Bytes that minibatches need besides."""
    columns = components(problem, dimension)
    return columns * (_rows(columns * itemsize, batch) * itemsize + 8 + itemsize)


def _rows(size: int, batch: int) -> int:
    """Rows of a batch that are gathered at once, of ``size`` bytes each."""
    return min(batch, max(BLOCK_ROWS, BLOCK_BYTES // size))


class GaussianModel(Model):
    """Gaussian neuron outputs and labels drawn jointly, so that their covariances are h, phihat and |phi|^2.

    Parameters
    ----------
    problem : NetworkProblem
    dimension, samples : int
        d and n.
    rng : numpy.random.Generator
        Source of tensors and labels.
    dtype : numpy dtype
        Of the tensors. In single precision an output is off by about 1e-7 of its size.

    Attributes
    ----------
    labels : (n,) float
        The y_i.
    columns : int
        Gaussian components of one sample.
    """

    def __init__(
        self,
        problem: NetworkProblem,
        dimension: int,
        samples: int,
        rng: np.random.Generator,
        dtype: type[np.float64] | type[np.float32] = np.float64,
    ) -> None:
        check(problem)
        super().__init__(problem, dimension, samples)
        self._parts = _parts(problem, dimension)
        self.columns = columns = self._parts[-1].where.stop
        self._tensors: NDArray[Any] = np.empty((samples, columns), dtype=dtype)
        rng.standard_normal(out=self._tensors, dtype=dtype)
        self.labels = self._draw_labels(rng)
        for part in self._parts:
            self._tensors[:, part.where] *= part.scale
        self._features = np.empty((self.width, columns), dtype=dtype)
        self._row = np.empty(columns)
        index, run = np.empty((2, MAX_DEGREE), dtype=np.int64)
        coefficient, product = np.empty((2, MAX_DEGREE))
        self._work = (index, run, coefficient, product)

    def _draw_labels(self, rng: np.random.Generator) -> FloatArray:
        """Labels phi_i + eps_i, phi_i the linear functional of the tensors whose overlap is phihat, plus the rest."""
        target = self.problem.resolved_target()
        labels = np.zeros(self.samples)
        explained = 0.0
        parts = {part.degree: part for part in self._parts}
        for exponents, coefficient in zip(target.exponents.tolist(), target.coefficients.tolist(), strict=True):
            degree = sum(exponents)
            multiplicity = math.factorial(degree) / math.prod(math.factorial(e) for e in exponents)
            part = parts[degree]
            weight = coefficient / (part.scale * math.sqrt(multiplicity))
            explained += weight**2
            labels += weight * self._tensors[:, part.where.start + _rank(exponents, self.dimension)]
        rest = self.problem.noise_std**2 + max(target.power - explained, 0.0)
        return labels + math.sqrt(rest) * rng.standard_normal(self.samples)

    def _set_features(self, weights: FloatArray) -> None:
        """Put psi(w_l) into the feature matrix."""
        for neuron, w in enumerate(weights):
            for part in self._parts:
                monomials(w, part.degree, *self._work, self._row[part.where])
            self._features[neuron] = self._row

    def _outputs(self, weights: FloatArray) -> FloatArray:
        """sigma_i(w_l), (n, m); leaves psi(w_l) in the feature matrix."""
        self._set_features(weights)
        return np.asarray(self._tensors @ self._features.T, dtype=np.float64)

    def residuals(self, weights: FloatArray, a: FloatArray) -> FloatArray:
        """Residuals y - f on the training set, (n,)."""
        return self.labels - self._outputs(weights) @ a / self.width

    def force(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Time derivatives (m, d) and (m,) before projection."""
        outputs = self._outputs(weights)
        residuals = self.labels - outputs @ a / self.width
        rate = 1.0 / (self.width * self.dimension)
        combined = np.asarray(residuals.astype(self._tensors.dtype) @ self._tensors, dtype=np.float64)
        return self._pulled_back(combined, weights, a, rate), outputs.T @ residuals * rate

    def _pulled_back(self, combined: FloatArray, weights: FloatArray, a: FloatArray, rate: float) -> FloatArray:
        """Force (m, d) on the weights from the sum (columns,) of the tensors times residuals."""
        d_weights = np.zeros_like(weights)
        for neuron, w in enumerate(weights):
            for part in self._parts:
                pull_back(w, part.degree, *self._work, combined[part.where], d_weights[neuron])
        d_weights *= (a * rate)[:, None]
        return d_weights

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
        size = self._tensors.itemsize * self.columns
        gathered: NDArray[Any] = np.empty((_rows(size, batch), self.columns), dtype=self._tensors.dtype)
        for chosen in order.reshape(-1, batch):
            d_weights, d_a = self._batch_force(weights, a, chosen, gathered)
            update(weights, a, step, d_weights, d_a, train_a, velocity)

    def _batch_force(
        self, weights: FloatArray, a: FloatArray, chosen: IntArray, gathered: NDArray[Any]
    ) -> tuple[FloatArray, FloatArray]:
        """As `force`, from the samples ``chosen`` (B,) alone, each with the weight n/B."""
        self._set_features(weights)
        rate = self.samples / (len(chosen) * self.width * self.dimension)
        combined, d_a = np.zeros(self.columns), np.zeros(self.width)
        for start in range(0, len(chosen), len(gathered)):
            part = chosen[start : start + len(gathered)]
            rows = gathered[: len(part)]
            np.take(self._tensors, part, axis=0, out=rows, mode="clip")  # "raise" would copy once more
            outputs = np.asarray(rows @ self._features.T, dtype=np.float64)
            residuals = self.labels[part] - outputs @ a / self.width
            combined += residuals.astype(rows.dtype) @ rows
            d_a += outputs.T @ residuals
        return self._pulled_back(combined, weights, a, rate), d_a * rate


def _rank(exponents: list[int], dimension: int) -> int:
    """Place of a monomial in lexicographic order of its sorted indices."""
    indices = [i for i, e in enumerate(exponents) for _ in range(e)]
    place, low = 0, 0
    for position, index in enumerate(indices):
        left = len(indices) - position - 1  # indices still to come, each at least the present one
        place += sum(math.comb(dimension - i + left - 1, left) for i in range(low, index))
        low = index
    return place

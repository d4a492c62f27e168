"""What every finite-size model offers to the optimisers: forces, residuals, initial weights, observables.

The time derivative of the parameters is that of theory section 1, d theta/dt = -(n/d) grad of the empirical risk
(1/2n) sum (y - f)^2, so that with residuals r_i = y_i - f(x_i) and sigma_i(w) the output of a neuron w on sample i

    dw_l/dt = P (a_l/(m d)) sum_i r_i grad sigma_i(w_l) ,      da_l/dt = (1/(m d)) sum_i r_i sigma_i(w_l) .
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from dmft.formulation import Formulation

if TYPE_CHECKING:
    from dmft.problems import NetworkProblem
    from dmft.targets import ResolvedTarget

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_INDEPENDENT = 1e-12  # covariances of initial weights below this are rounding


@dataclass(frozen=True)
class Velocity:
    """Heavy-ball momentum: the last step of both layers before the rows were normalised, advanced in place.

    Attributes
    ----------
    momentum : float
        Fraction of the last step that is repeated.
    weights, a : (m, d), (m,) float
        Last step; 0 before the first update.
    """

    momentum: float
    weights: FloatArray
    a: FloatArray

    def after(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The next step, to which gradient steps (m, d) and (m,) are added."""
        for mine, step in ((self.weights, weights), (self.a, a)):
            mine *= self.momentum
            mine += step
        return self.weights, self.a


class Model(ABC):
    """A finite network together with its training set.

    The latent directions are the first k coordinates, which loses nothing: data and initial weights are isotropic.

    Attributes
    ----------
    problem : NetworkProblem
        Where width, activation, target and initial data come from.
    dimension, samples, width : int
        d, n, m.
    whole_activation : bool
        Whether neurons have the activation itself, and not its truncated Hermite series.
    """

    whole_activation: ClassVar[bool] = False

    def __init__(self, problem: NetworkProblem, dimension: int, samples: int) -> None:
        self.problem = problem
        self.dimension = dimension
        self.samples = samples
        self.width = problem.formulation().width

    @abstractmethod
    def force(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Time derivatives (m, d) and (m,) on the whole training set, that of the weights not yet projected."""

    @abstractmethod
    def residuals(self, weights: FloatArray, a: FloatArray) -> FloatArray:
        """Residuals y - f on the training set, (n,)."""

    def fresh_error(self, weights: FloatArray, a: FloatArray) -> float | None:
        """Half the mean squared residual on fresh test data, or None where the model has no inputs."""
        return None

    @abstractmethod
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
        """Minibatch updates in place, one for each ``batch`` entries of ``order``; otherwise as `descend`."""

    def descend(
        self,
        weights: FloatArray,
        a: FloatArray,
        step: float,
        updates: int,
        train_a: bool,
        velocity: Velocity | None = None,
    ) -> None:
        """``updates`` updates of full-batch gradient descent, in place, with momentum if there is a ``velocity``.

        Each adds ``step`` times the force to both layers and normalises the rows of the first (theory section 12).
        """
        for _ in range(updates):
            d_weights, d_a = self.force(weights, a)
            update(weights, a, step, d_weights, d_a, train_a, velocity)


def update(
    weights: FloatArray,
    a: FloatArray,
    step: float,
    d_weights: FloatArray,
    d_a: FloatArray,
    train_a: bool,
    velocity: Velocity | None,
) -> None:
    """One update along a force, in place."""
    change, change_a = step * d_weights, step * d_a
    if velocity is not None:
        change, change_a = velocity.after(change, change_a)
    weights += change
    weights /= np.sqrt(np.einsum("ij,ij->i", weights, weights))[:, None]
    if train_a:
        a += change_a


def initial_weights(
    formulation: Formulation, dimension: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw first-layer weights (m, d) with the problem's overlaps and Gram matrix, and give the second layer (m,).

    Neuron i starts at U v_i plus a Gaussian vector of covariance C_ij(0,0) - v_i v_j in each coordinate (divided by d),
    normalised: uniform on the sphere where v = 0. Overlaps and Gram matrix therefore hold up to O(1/sqrt(d)), as in
    any network that is initialised at random.
    """
    sizes = formulation.sizes
    group = np.repeat(np.arange(len(sizes)), sizes)
    v0 = formulation.v0[group]
    root = np.sqrt(sizes.astype(float))
    lone = sizes == 1
    t0 = formulation.correlation_t0
    # C_o^gh = (S^gh - delta_gh T^g)/sqrt(m_g m_h); a lone neuron has no pair in its group.
    cross = (formulation.correlation_s0 - np.diag(t0)) / np.outer(root, root)
    cross[lone, lone] = 0.0
    gram = cross[np.ix_(group, group)]
    np.fill_diagonal(gram, 1.0)
    remainder = gram - v0 @ v0.T
    weights = rng.standard_normal((len(group), dimension)) / math.sqrt(dimension)
    own = np.maximum(np.diagonal(remainder), 0.0)
    if np.abs(remainder - np.diag(np.diagonal(remainder))).max() < _INDEPENDENT:
        weights *= np.sqrt(own)[:, None]
    else:
        # The symmetric root is unique; a basis of degenerate eigenvectors would depend on the library.
        values, vectors = np.linalg.eigh(remainder)
        weights = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ weights
    weights[:, : v0.shape[1]] += v0
    weights /= np.linalg.norm(weights, axis=1)[:, None]
    return weights, formulation.a0[group].copy()


def group_means(values: FloatArray, formulation: Formulation) -> FloatArray:
    """Averages over the neurons of each group, (m, ...) to (G, ...)."""
    starts = np.concatenate([[0], np.cumsum(formulation.sizes)[:-1]])
    sums = np.add.reduceat(values, starts, axis=0)
    return sums / formulation.sizes.reshape(-1, *[1] * (values.ndim - 1))


def correlation_modes(earlier: FloatArray, later: FloatArray, formulation: Formulation) -> FloatArray:
    """Modes of the overlaps between weights (m, d) at two times, in the order of `dmft.solution.mode_names`."""
    sizes = formulation.sizes
    overlaps = earlier @ later.T
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    blocks = np.add.reduceat(np.add.reduceat(overlaps, starts, axis=0), starts, axis=1)
    s = blocks / np.sqrt(np.outer(sizes, sizes))
    traces = np.add.reduceat(np.diagonal(overlaps), starts)
    several = sizes > 1
    t = (traces - np.diagonal(s))[several] / (sizes[several] - 1)
    return np.concatenate([s.ravel(), t])


def population_risk(
    problem: NetworkProblem, target: ResolvedTarget, weights: FloatArray, a: FloatArray, *, whole_activation: bool
) -> float:
    """Test error of given weights: Q(t,t)/2 of theory section 2 at the actual overlaps, label noise included.

    Exact for the Gaussian model, and for a true network too, because two pre-activations on Gaussian inputs are jointly
    Gaussian. With ``whole_activation`` (a true network) h is the closed form where it is known, also in the overlap of
    a target phi = sigma; everything else is the Hermite series, which the Gaussian model has.
    """
    width = len(a)
    activation = problem.activation
    gram = np.clip(weights @ weights.T, -1.0, 1.0)
    h, whole = activation.h(gram), False
    if whole_activation:
        with suppress(ValueError):  # not known
            h, whole = activation.closed_form(gram), True
    signal, power = target.phihat(weights[:, : target.latent_dimension]), target.power
    if whole and problem.target.kind == "same_as_activation":
        signal, power = activation.closed_form(np.clip(weights[:, 0], -1.0, 1.0)), float(activation.closed_form(1.0))
    variance = problem.noise_std**2 + power
    return 0.5 * float(variance - 2.0 * (a @ signal) / width + a @ h @ a / width**2)

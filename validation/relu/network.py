"""The network f(x) = sum_j a_j sigma(<w_j, x>) with free norms, and how it starts ([BF], theory section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from dmft._validate import integer, real, real_array, shown

FloatArray = NDArray[np.float64]

NAMES = ("relu", "leaky_relu", "gelu")
INITIALISATIONS = ("balanced", "dominated", "unbalanced", "zero_output")
LEAK = 0.01
"""Default slope of leaky_relu below zero."""


@dataclass(frozen=True)
class Nonlinearity:
    """The activation itself, uncentred, unlike `dmft.Activation`.

    Attributes
    ----------
    name : {"relu", "leaky_relu", "gelu"}
    slope : float
        Slope below zero of "leaky_relu", 0 <= slope < 1; 0 for the others.

    Raises
    ------
    TypeError, ValueError
        If the name is unknown or the slope out of range.
    """

    name: str = "relu"
    slope: float | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"activation must be one of {', '.join(NAMES)}, not {shown(self.name)}.")
        if self.name != "leaky_relu":
            if self.slope not in (None, 0.0):
                raise ValueError(f"slope goes with leaky_relu, not with {self.name}.")
            object.__setattr__(self, "slope", 0.0)
        else:
            slope = LEAK if self.slope is None else real("slope", self.slope, low=0.0)
            if not slope < 1.0:
                raise ValueError(f"slope must be below 1, not {slope:g}: at 1 the network is linear.")
            object.__setattr__(self, "slope", slope)

    @property
    def piecewise_linear(self) -> bool:
        """Whether sigma is linear on each side of zero: then the flow can be followed kink by kink."""
        return self.name != "gelu"

    def __call__(self, z: ArrayLike) -> FloatArray:
        """sigma(z), elementwise; gelu is z Phi(z) with the normal distribution function Phi."""
        z = np.asarray(z, dtype=np.float64)
        if self.name == "gelu":
            return np.asarray(z * ndtr(z))
        return np.where(z > 0.0, z, self.slope * z)

    def derivative(self, z: ArrayLike) -> FloatArray:
        """sigma'(z), elementwise; at z = 0 the slope below zero."""
        z = np.asarray(z, dtype=np.float64)
        if self.name == "gelu":
            return np.asarray(ndtr(z) + z * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))
        return np.where(z > 0.0, 1.0, float(self.slope))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Network:
    """f(x) = sum_j a_j sigma(<w_j, x>).

    Attributes
    ----------
    weights : (m, d) float
        First layer, a row for each neuron.
    outer : (m,) float
        Second layer a_j.
    activation : Nonlinearity
    """

    weights: FloatArray
    outer: FloatArray
    activation: Nonlinearity = Nonlinearity()

    @property
    def width(self) -> int:
        """Number of neurons m."""
        return len(self.outer)

    @property
    def dimension(self) -> int:
        """Input dimension d."""
        return int(self.weights.shape[1])

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Output at inputs (N, d), shape (N,)."""
        return np.asarray(self.activation(np.asarray(inputs) @ self.weights.T) @ self.outer)

    def conserved(self) -> FloatArray:
        """a_j^2 - |w_j|^2, shape (m,): constant under gradient flow when sigma is piecewise linear."""
        return np.asarray(self.outer**2 - np.sum(self.weights**2, axis=1))


def checked(
    network: Network, inputs: ArrayLike, labels: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Weights (m, d), outer (m,), inputs (n, d) and labels (n,) of a training, as new contiguous arrays.

    Raises
    ------
    TypeError, ValueError
        If network and data do not fit or are not finite.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not {type(network).__name__}.")
    weights = real_array("network.weights", network.weights, ndim=2)
    m, d = weights.shape
    if m == 0 or d == 0:
        raise ValueError(f"network.weights must have rows and columns, and have shape ({m}, {d}).")
    outer = real_array("network.outer", network.outer, ndim=1, shape=(m,))
    x = real_array("inputs", inputs, ndim=2, shape=(None, d))
    if len(x) == 0:
        raise ValueError("inputs must have at least one row.")
    y = real_array("labels", labels, ndim=1)
    if len(y) != len(x):
        raise ValueError(
            f"inputs must have a row for each of the labels, and there are {len(x)} rows, {len(y)} labels."
        )
    copies = [np.array(array, dtype=np.float64, order="C") for array in (weights, outer, x, y)]
    return copies[0], copies[1], copies[2], copies[3]


def initial(
    width: int,
    dimension: int,
    scale: float,
    rng: np.random.Generator,
    *,
    kind: str = "balanced",
    activation: Nonlinearity | None = None,
) -> Network:
    """Random network of scale lambda, with the normalisation of [BF] arXiv:2401.10791.

    Parameters
    ----------
    width, dimension : int
        m and d.
    scale : float
        lambda > 0: entries of the first layer have standard deviation lambda/sqrt(m) but for "dominated".
    rng : Generator
    kind : {"balanced", "dominated", "unbalanced", "zero_output"}
        balanced: w_j Gaussian, a_j = +-|w_j|. dominated: entries of w_j uniform in +-lambda/sqrt(m),
        a_j = +-lambda sqrt(d/m), so |a_j| >= |w_j|. unbalanced: w_j and a_j independent Gaussian of standard deviation
        lambda/sqrt(m). zero_output: balanced, with the neurons in pairs (w, a), (w, -a), so f = 0; m must be even.
    activation : Nonlinearity, optional
        Default relu.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    """
    m = integer("width", width, low=1)
    d = integer("dimension", dimension, low=1)
    size = real("scale", scale, low=0.0, open_low=True) / np.sqrt(m)
    if kind not in INITIALISATIONS:
        raise ValueError(f"initialisation must be one of {', '.join(INITIALISATIONS)}, not {shown(kind)}.")
    if kind == "zero_output" and m % 2:
        raise ValueError(f"width must be even for initialisation 'zero_output', which pairs neurons, not {m}.")
    weights: Any
    if kind == "dominated":
        weights = size * rng.uniform(-1.0, 1.0, (m, d))
        outer = size * np.sqrt(d) * rng.choice([-1.0, 1.0], m)
    else:
        weights = size * rng.standard_normal((m, d))
        if kind == "unbalanced":
            outer = size * rng.standard_normal(m)
        else:
            outer = np.linalg.norm(weights, axis=1) * rng.choice([-1.0, 1.0], m)
    if kind == "zero_output":
        weights[m // 2 :] = weights[: m // 2]
        outer[m // 2 :] = -outer[: m // 2]
    return Network(weights, outer, activation if activation is not None else Nonlinearity())

"""Samples in fixed dimension: input laws, teachers and the published small sets ([BF], theory section 9)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv

from dmft._validate import integer, real, real_array, shown

FloatArray = NDArray[np.float64]

LAWS = ("gaussian", "rademacher", "sphere")
KINDS = ("linear", "neurons")

LEAST_ACCEPTANCE = 1e-4
"""Share of the inputs that a margin must leave when the rest is rejected one by one (Rademacher)."""

_BLOCK = 4096  # sign vectors drawn at once
_ENUMERABLE = 16  # coordinates of the teacher up to which the acceptance of signs is counted
_PILOT = 2**17  # sign vectors from which it is estimated beyond
_TIE = 1e-12  # relative: sums of signed coordinates meet a margin up to rounding


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train on.

    Attributes
    ----------
    inputs : (n, d) float
    labels : (n,) float
        What is fitted, y = clean + noise.
    clean : (n,) float
        Output of the teacher.

    Raises
    ------
    TypeError, ValueError
        If there is no sample, shapes disagree or a number is not finite.
    """

    inputs: FloatArray
    labels: FloatArray
    clean: FloatArray

    def __post_init__(self) -> None:
        inputs = np.array(real_array("inputs", self.inputs, ndim=2))
        if not inputs.size:
            raise ValueError(f"inputs must have a row for each sample and a column at least, not shape {inputs.shape}.")
        object.__setattr__(self, "inputs", inputs)
        for name in ("labels", "clean"):
            value = real_array(name, getattr(self, name), ndim=1, shape=(len(inputs),))
            object.__setattr__(self, name, np.array(value))

    @property
    def samples(self) -> int:
        """Number of samples n."""
        return len(self.labels)

    @property
    def dimension(self) -> int:
        """Input dimension d."""
        return int(self.inputs.shape[1])


@dataclass(frozen=True, eq=False)
class Teacher:
    """Function behind the labels: <beta, x>, or a sum of relu neurons; see the constructors `linear` and `neurons`.

    Attributes
    ----------
    kind : {"linear", "neurons"}
    weights : (k, d) float
        A row for each neuron; beta in its only row if linear.
    outer : (k,) float
        Outputs of the neurons; 1 if linear.

    Raises
    ------
    TypeError, ValueError
        If the kind is unknown, shapes disagree or a number is not finite.
    """

    kind: str
    weights: FloatArray
    outer: FloatArray

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind of teacher must be one of {', '.join(KINDS)}, not {shown(self.kind)}.")
        weights = real_array("weights of the teacher", self.weights, ndim=2)
        if not weights.size:
            raise ValueError(f"weights of the teacher must not be empty, and have shape {weights.shape}.")
        outer = real_array("outer of the teacher", self.outer, ndim=1, shape=(len(weights),))
        if self.kind == "linear" and (len(outer) != 1 or outer[0] != 1.0):
            raise ValueError(f"a linear teacher has one row of weights and outer 1, not {shown(outer.tolist())}.")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "outer", outer)

    @classmethod
    def linear(cls, direction: ArrayLike) -> Teacher:
        """<beta, x> with ``direction`` beta, shape (d,)."""
        return cls("linear", real_array("direction", direction, ndim=1)[None, :], np.ones(1))

    @classmethod
    def unit(cls, dimension: int) -> Teacher:
        """<e_1, x>."""
        return cls.linear(np.eye(1, integer("dimension", dimension, low=1))[0])

    @classmethod
    def neurons(cls, weights: ArrayLike, outer: ArrayLike) -> Teacher:
        """sum_j outer_j relu(<w_j, x>) with ``weights`` (k, d) and ``outer`` (k,)."""
        return cls("neurons", np.asarray(weights), np.asarray(outer))

    @classmethod
    def random_neurons(cls, count: int, dimension: int, rng: np.random.Generator) -> Teacher:
        """Neurons with uniform unit weights and outputs +-1/sqrt(k), k = ``count``."""
        count, dimension = integer("count", count, low=1), integer("dimension", dimension, low=1)
        weights = rng.standard_normal((count, dimension))
        weights /= np.linalg.norm(weights, axis=1)[:, None]
        return cls("neurons", weights, rng.choice([-1.0, 1.0], count) / math.sqrt(count))

    @property
    def is_linear(self) -> bool:
        """Whether the teacher is <beta, x>."""
        return self.kind == "linear"

    @property
    def dimension(self) -> int:
        """Input dimension d."""
        return int(self.weights.shape[1])

    @property
    def direction(self) -> FloatArray:
        """Beta of a linear teacher, shape (d,).

        Raises
        ------
        ValueError
            If the teacher is not linear.
        """
        if not self.is_linear:
            raise ValueError("a teacher of relu neurons has no direction; a linear one has.")
        return self.weights[0]

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Output at inputs (N, d), shape (N,); the same bits for a row whatever the other rows are."""
        inputs = np.asarray(inputs, dtype=np.float64)
        output = np.zeros(len(inputs))
        for weight, outer in zip(self.weights, self.outer, strict=True):
            z = np.sum(inputs * weight, axis=1)  # not a BLAS product, whose rounding depends on the number of rows
            output += z if self.is_linear else outer * np.maximum(z, 0.0)
        return output

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        if self.is_linear:
            return {"kind": self.kind, "direction": self.direction.tolist()}
        return {"kind": self.kind, "weights": self.weights.tolist(), "outer": self.outer.tolist()}


@dataclass(frozen=True, kw_only=True)
class DataLaw:
    """Law of a sample: x from ``law`` under the margin condition, y = teacher(x) + noise.

    Attributes
    ----------
    dimension : int
        d.
    teacher : Teacher
    law : {"gaussian", "rademacher", "sphere"}
        N(0, I); independent entries +-1; uniform on the sphere of radius sqrt(d).
    margin : float
        0 <= c < sqrt(d): inputs are conditioned on |<x, beta>| >= c |x| |beta| / sqrt(d), beta of a linear teacher.
    noise_std : float
        Standard deviation sigma >= 0 of the Gaussian label noise.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or the margin leaves no inputs (less than 1e-4 of the Rademacher inputs).
    """

    dimension: int
    teacher: Teacher
    law: str = "gaussian"
    margin: float = 0.0
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        d = integer("dimension", self.dimension, low=1)
        if self.law not in LAWS:
            raise ValueError(f"law must be one of {', '.join(LAWS)}, not {shown(self.law)}.")
        if not isinstance(self.teacher, Teacher):
            raise TypeError(f"teacher must be a Teacher, not {shown(self.teacher)}.")
        if self.teacher.dimension != d:
            raise ValueError(f"dimension must be that of the teacher, {self.teacher.dimension}, not {d}.")
        margin = real("margin", self.margin, low=0.0)
        object.__setattr__(self, "dimension", d)
        object.__setattr__(self, "margin", margin)
        object.__setattr__(self, "noise_std", real("noise_std", self.noise_std, low=0.0))
        if margin == 0.0:
            return
        if not self.teacher.is_linear or not self.teacher.weights.any():
            raise ValueError(f"margin must be 0 without a linear teacher and its direction, not {margin:g}.")
        if not margin**2 < d:
            raise ValueError(f"margin must be below the square root of the dimension {d}, not {margin:g}.")
        least = LEAST_ACCEPTANCE if self.law == "rademacher" else np.finfo(np.float64).tiny
        if not self.acceptance >= least:
            raise ValueError(
                f"margin must leave a share of {least:.2g} of the {self.law} inputs at least, and {margin:g} leaves "
                f"{self.acceptance:.2g} of them."
            )

    @property
    def acceptance(self) -> float:
        """Share of the inputs of ``law`` that meet the margin.

        For Rademacher inputs it is counted up to 16 nonzero coordinates of beta, and estimated from 2^17 fixed sign
        vectors beyond.
        """
        if self.margin == 0.0:
            return 1.0
        if self.law == "rademacher":
            return _sign_acceptance(self.teacher.direction.tobytes(), self.margin)
        return 1.0 if self.dimension == 1 else _cap(self.dimension, self.margin)

    def meets_margin(self, inputs: FloatArray) -> NDArray[np.bool_]:
        """Whether |<x, beta>| >= c |x| |beta| / sqrt(d) up to rounding, for inputs (N, d); shape (N,)."""
        if self.margin == 0.0:
            return np.ones(len(inputs), dtype=np.bool_)
        beta = self.teacher.direction / np.linalg.norm(self.teacher.direction)
        cosine = np.sum(inputs * beta, axis=1) / np.linalg.norm(inputs, axis=1)
        return np.asarray(np.abs(cosine) >= (1.0 - _TIE) * self.margin / math.sqrt(self.dimension))

    def cosine(self, uniform: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Cosine and sine of the angle between x and beta under a Gaussian or spherical law, by inversion.

        The squared sine is Beta((d-1)/2, 1/2), at most 1 - c^2/d here; independent of |x|.

        Parameters
        ----------
        uniform : (N,) float
            In (0, 1); the cosine has the sign of u - 1/2.

        Returns
        -------
        cosine, sine : (N,) float
        """
        signed = 2.0 * uniform - 1.0
        d = self.dimension
        if d == 1:
            return np.copysign(1.0, signed), np.zeros_like(signed)
        half = 0.5 * (d - 1)
        square = betaincinv(half, 0.5, (1.0 - np.abs(signed)) * _cap(d, self.margin))
        square = np.minimum(square, 1.0 - self.margin**2 / d)
        return np.copysign(np.sqrt(1.0 - square), signed), np.sqrt(square)

    def inputs(self, samples: int, rng: np.random.Generator) -> FloatArray:
        """Inputs alone, shape (samples, d); the first rows are the same for any number of samples."""
        samples = integer("samples", samples, low=1)
        streams = _children(rng, 2)
        d = self.dimension
        if self.law == "rademacher":
            return self._signs(samples, streams[0])
        x = streams[0].standard_normal((samples, d))
        if self.margin > 0.0 and d > 1:
            # Neither |x| nor the direction of what is orthogonal to beta depends on the cosine.
            beta = self.teacher.direction / np.linalg.norm(self.teacher.direction)
            cosine, sine = self.cosine(streams[1].random(samples))
            radius = np.linalg.norm(x, axis=1)
            x -= np.sum(x * beta, axis=1)[:, None] * beta
            x *= (radius * sine / np.linalg.norm(x, axis=1))[:, None]
            x += (radius * cosine)[:, None] * beta
        if self.law == "sphere":
            x *= (math.sqrt(d) / np.linalg.norm(x, axis=1))[:, None]
        return x

    def draw(self, samples: int, rng: np.random.Generator) -> Dataset:
        """Independent samples.

        They depend on the state of ``rng`` only, which moves on by the same amount whatever is drawn: from the same
        state, fewer samples are the first ones of more, bit for bit, and sigma scales the same noise.

        Parameters
        ----------
        samples : int
            n >= 1.
        rng : Generator

        Returns
        -------
        Dataset
        """
        samples = integer("samples", samples, low=1)
        for_inputs, for_noise = _children(rng, 2)
        x = self.inputs(samples, for_inputs)
        clean = self.teacher(x)
        return Dataset(x, clean + self.noise_std * for_noise.standard_normal(samples), clean)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "dimension": self.dimension,
            "law": self.law,
            "margin": self.margin,
            "noise_std": self.noise_std,
            "teacher": self.teacher.to_dict(),
        }

    def _signs(self, samples: int, rng: np.random.Generator) -> FloatArray:
        """Rademacher inputs by rejection; n/acceptance <= 1e4 n of them are tried on average."""
        kept: list[FloatArray] = []
        missing = samples
        while missing > 0:
            signs = _random_signs(_BLOCK, self.dimension, rng)
            signs = signs[self.meets_margin(signs)][:missing]
            kept.append(signs)
            missing -= len(signs)
        return np.concatenate(kept)


def three_points() -> Dataset:
    """Three samples of arXiv:2401.10791: x = (-0.75, -0.5, 0.125), y = (1.1, 0.1, 0.8); inputs (x, 1), for biases."""
    labels = np.array([1.1, 0.1, 0.8])
    return _with_constant(np.array([-0.75, -0.5, 0.125]), labels)


def forty_points(rng: np.random.Generator) -> Dataset:
    """Forty samples of a piecewise linear function, x uniform on [-1, 1]; inputs (x, 1), for biases; no noise."""
    x = rng.uniform(-1.0, 1.0, 40)
    nodes = [-1.0, -0.7, -0.55, -0.4, 0.0, 0.5, 0.6, 0.7, 1.0]
    return _with_constant(x, np.interp(x, nodes, [0.0, 0.7, 0.5, 1.0, 0.0, 1.0, 0.6, 0.7, 0.0]))


def all_signs(dimension: int) -> FloatArray:
    """The corners of the cube, shape (2^d, d)."""
    bits = np.arange(2**dimension)[:, None] >> np.arange(dimension)
    return np.asarray(1.0 - 2.0 * (bits & 1))


def _with_constant(x: FloatArray, labels: FloatArray) -> Dataset:
    return Dataset(np.column_stack([x, np.ones_like(x)]), labels, labels)


def _random_signs(samples: int, dimension: int, rng: np.random.Generator) -> FloatArray:
    return np.where(rng.random((samples, dimension)) < 0.5, -1.0, 1.0)


def _children(rng: np.random.Generator, count: int) -> list[np.random.Generator]:
    """Independent streams, seeded by 128 bits each of ``rng``; unlike `Generator.spawn` by its state alone."""
    return [np.random.default_rng(seed) for seed in rng.integers(2**32, size=(count, 4), dtype=np.uint32)]


def _cap(dimension: int, margin: float) -> float:
    """Probability that a uniform direction has a squared cosine of at least c^2/d, d >= 2."""
    return float(betainc(0.5 * (dimension - 1), 0.5, 1.0 - margin**2 / dimension))


@functools.lru_cache(maxsize=64)
def _sign_acceptance(direction: bytes, margin: float) -> float:
    """Share of sign vectors with |<s, beta>| >= c |beta|; coordinates where beta vanishes do not matter."""
    beta = np.frombuffer(direction)
    beta = beta[beta != 0.0]
    beta = beta / np.linalg.norm(beta)
    if len(beta) <= _ENUMERABLE:
        sums = all_signs(len(beta)) @ beta
    else:
        rng = np.random.default_rng(0)
        blocks = (_random_signs(_BLOCK, len(beta), rng) @ beta for _ in range(_PILOT // _BLOCK))
        sums = np.concatenate(list(blocks))
    return float(np.mean(np.abs(sums) >= (1.0 - _TIE) * margin))

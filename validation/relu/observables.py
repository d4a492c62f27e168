"""What is measured on a training ([BF], theory section 9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.relu.data import Dataset
from validation.relu.network import Network
from validation.relu.trajectory import Trajectory

FloatArray = NDArray[np.float64]

ACTIVE = 1e-3
"""Neurons count whose |a_j| |w_j| is at least this share of the largest."""


@dataclass(frozen=True, eq=False)
class Course:
    """Observables at the recorded times (T,).

    Attributes
    ----------
    active : number of neurons that see a sample and whose |a| |w| is not below `ACTIVE` of the largest
    patterns : number of distinct activation patterns among them
    alignment_min, alignment_median : of sign(a_j) cos(w_j, D_n(w_j)) over them, D_n with the labels, not the residuals:
        1 on an extremal vector inside a cone
    """

    active: FloatArray
    patterns: FloatArray
    alignment_min: FloatArray
    alignment_median: FloatArray


def course(trajectory: Trajectory, dataset: Dataset) -> Course:
    """Observables along a training."""
    rows = [_state(trajectory.network(i), dataset) for i in range(len(trajectory.time))]
    return Course(*(np.array(column) for column in zip(*rows, strict=True)))


def active(network: Network, dataset: Dataset) -> NDArray[np.bool_]:
    """Which neurons count, (m,)."""
    strength = np.abs(network.outer) * np.linalg.norm(network.weights, axis=1)
    sees = (network.activation.derivative(dataset.inputs @ network.weights.T) != 0.0).any(axis=0)
    return np.asarray(sees & (strength >= ACTIVE * strength.max(initial=0.0)) & (strength > 0.0))


def early_drives(network: Network, dataset: Dataset) -> FloatArray:
    """D_n(w_j) = (1/n) sum_k sigma'(<w_j, x_k>) y_k x_k, (m, d): the drive while f is negligible."""
    gates = network.activation.derivative(dataset.inputs @ network.weights.T)
    return np.asarray((gates * dataset.labels[:, None]).T @ dataset.inputs / dataset.samples)


def cosines(network: Network, dataset: Dataset) -> FloatArray:
    """sign(a_j) cos(w_j, D_n(w_j)), (m,); 0 where a vector vanishes."""
    drives = early_drives(network, dataset)
    sizes = np.linalg.norm(drives, axis=1) * np.linalg.norm(network.weights, axis=1)
    inner = np.sign(network.outer) * np.sum(drives * network.weights, axis=1)
    return np.divide(inner, sizes, out=np.zeros_like(inner), where=sizes > 0.0)


def conserved_drift(trajectory: Trajectory) -> float:
    """Largest change of a_j^2 - |w_j|^2 over neurons and records, over the largest a_j^2 + |w_j|^2."""
    gaps = trajectory.outer**2 - np.sum(trajectory.weights**2, axis=2)
    sizes = trajectory.outer**2 + np.sum(trajectory.weights**2, axis=2)
    return float(np.abs(gaps - gaps[0]).max() / sizes.max())


def sign_changes(trajectory: Trajectory) -> int:
    """Number of neurons whose a_j changes sign between records; one that has shrunk to 0 has not."""
    return int(np.any(np.sign(trajectory.outer) * np.sign(trajectory.outer[0]) < 0.0, axis=0).sum())


def _state(network: Network, dataset: Dataset) -> tuple[float, float, float, float]:
    count = active(network, dataset)
    if not count.any():
        return 0.0, 0.0, 0.0, 0.0
    signs = dataset.inputs @ network.weights[count].T > 0.0
    along = cosines(network, dataset)[count]
    return float(count.sum()), float(len(np.unique(signs, axis=1).T)), float(along.min()), float(np.median(along))

"""The settings that both engines solve: a plain list, from one neuron to infinitely many, and the p-spin model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dmft.activations import Activation
from dmft.problems import InfiniteWidthProblem, PSpinProblem, SymmetricProblem
from dmft.problems.base import Problem
from dmft.targets import Target


@dataclass(frozen=True)
class Setting:
    """A problem, how far it is solved, and what it is called in the table."""

    name: str
    problem: Problem
    t_final: float


ACTIVATIONS = {
    "linear": Activation.from_covariance([0, 1.0]),
    "cubic": Activation.from_covariance([0, 0.9, 0, 1 / 6]),
    "quad": Activation.from_covariance([0, 0.9, 0.5]),
    "mixed": Activation.from_covariance([0, 0.3, 0.5]),
}


def network(width: int, word: str, alpha: float, tau: float, t_final: float, **more: Any) -> Setting:
    """Equal neurons, single index with phi = sigma unless ``noise=True``, and a(0) = 1 unless ``gamma0`` is given."""
    h = ACTIVATIONS[word]
    more = more if "gamma0" in more else {"a0": 1.0} | more
    noise = more.pop("noise", False)
    target = Target.noise() if noise else Target.same_as(h)
    problem = SymmetricProblem(width=width, alpha=alpha, activation=h, target=target, noise_std=tau, **more)
    start = f"lazy γ₀ = {more['gamma0']:.3g}" if "gamma0" in more else "mean field"
    fixed = "" if problem.train_second_layer else ", a fixed"
    name = f"m = {width}, {'noise' if noise else 'index'}, {word}, α = {alpha:.3g}, τ = {tau:g}, {start}{fixed}"
    return Setting(name, problem, t_final)


def _infinite(ratio: float, word: str, tau: float, t_final: float, **more: Any) -> Setting:
    """The limit m -> infinity at fixed n/d, from a(0) = 1; its time is alpha t."""
    h = ACTIVATIONS[word]
    noise = more.pop("noise", False)
    target = Target.noise() if noise else Target.same_as(h)
    problem = InfiniteWidthProblem(sample_ratio=ratio, activation=h, target=target, noise_std=tau, a0=1.0, **more)
    fixed = "" if problem.train_second_layer else ", a fixed"
    name = f"m = ∞, {'noise' if noise else 'index'}, {word}, n/d = {ratio:g}, τ = {tau:g}, mean field{fixed}"
    return Setting(name, problem, t_final)


def _pspin(name: str, t_final: float, *covariance: float) -> Setting:
    return Setting(f"p-spin {name}, to {t_final:.0e}", PSpinProblem(covariance=list(covariance)), t_final)


SETTINGS: tuple[Setting, ...] = (
    _pspin("q²", 1e3, 0, 0, 1),
    _pspin("q²", 1e6, 0, 0, 1),
    _pspin("q³", 1e3, 0, 0, 0, 1),
    _pspin("q³", 1e5, 0, 0, 0, 1),
    _pspin("q² + q³", 1e4, 0, 0, 0.5, 0.5),
    _pspin("q⁴", 1e4, 0, 0, 0, 0, 1),
    network(1, "cubic", 0.4, 0.6, 100, noise=True, train_second_layer=False),
    network(1, "quad", 0.8, 1.0, 100, noise=True),
    network(1, "cubic", 2.0, 0.3, 50),
    network(1, "linear", 0.5, 0.6, 100),
    network(2, "quad", 1.0, 0.6, 60, train_second_layer=False),
    network(2, "mixed", 0.5, 1.0, 100, noise=True, gamma0=1.0),
    network(2, "cubic", 0.02, 0.3, 400),
    network(4, "quad", 0.3, 0.3, 80, noise=True, gamma0=1.0),
    network(4, "cubic", 0.5, 0.6, 80),
    network(4, "linear", 2.0, 0.3, 80, gamma0=0.5),
    network(16, "cubic", 0.3, 0.6, 320),
    network(16, "cubic", 0.4, 0.6, 320, noise=True),
    network(16, "quad", 0.2, 0.1, 320),
    network(16, "quad", 0.3, 0.3, 320, gamma0=1.0),
    network(16, "cubic", 2.0, 0.6, 320, train_second_layer=False),
    network(64, "cubic", 8 / 64, 0.6, 2000),
    network(64, "cubic", 0.3, 0.3, 1280),
    network(64, "linear", 0.5, 0.6, 1280),
    network(64, "quad", 0.5, 1.0, 1280, noise=True, gamma0=1.0),
    network(256, "cubic", 0.1, 0.6, 5120),
    network(256, "mixed", 0.5, 1.0, 5120, noise=True, gamma0=1.0, train_second_layer=False),
    network(256, "quad", 1.0, 0.6, 5120),
    network(1024, "cubic", 0.3, 0.6, 20480),
    network(1024, "cubic", 0.02, 0.6, 20480),
    network(1024, "cubic", 0.4, 0.6, 20480, noise=True),
    network(1024, "quad", 0.3, 2.5, 20480, gamma0=1.0),
    network(2**14, "cubic", 0.3, 0.6, 327680),
    network(2**14, "cubic", 0.02, 0.6, 327680),
    network(2**14, "mixed", 0.3, 1.0, 327680, noise=True, gamma0=1.0, train_second_layer=False),
    network(2**20, "cubic", 0.3, 0.6, 1e6),
    network(2**20, "cubic", 0.3, 0.6, 1e6, noise=True),
    network(2**20, "quad", 0.3, 0.6, 1e6, gamma0=1.0),
    _infinite(8.0, "cubic", 0.6, 1e3),
    _infinite(22.0, "cubic", 0.6, 1e3),
    _infinite(8.0, "cubic", 0.6, 1e3, noise=True),
    _infinite(22.0, "cubic", 0.3, 1e4, train_second_layer=False),
    _infinite(6.0, "quad", 0.6, 1e3),
    # Between 56 and 57 samples per dimension a network of this noise stops to unlearn: near there errors are amplified.
    _infinite(50.0, "cubic", 0.3, 5e3),
    _infinite(55.0, "cubic", 0.3, 5e3),
    _infinite(56.0, "cubic", 0.3, 5e3),
    _infinite(57.0, "cubic", 0.3, 5e3),
    _infinite(60.0, "cubic", 0.3, 5e3),
    network(2**14, "cubic", 56 / 2**14, 0.3, 1e6),
)

"""How a network is trained, and what is said of the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import integer, real, shown
from validation.relu import descent, flow, smooth
from validation.relu.data import Dataset
from validation.relu.network import INITIALISATIONS, Network, Nonlinearity, initial
from validation.relu.trajectory import Reason, Trajectory

OPTIMIZERS = ("flow", "gd", "adam")
INTERPOLATED = 1e-8
"""A network interpolates when its train loss is at most this multiple of the mean squared label."""
CHANGE = 1e-4
"""Default share by which the train loss of gd and adam may change from half of the time on, at the end."""
RELU = Nonlinearity()
_ADAPTIVE_RTOL = 1e-4


class Verdict(Enum):
    """What became of a run.

    INTERPOLATED: the train loss is at most `INTERPOLATED` times the mean squared label above what is attainable (0 but
    where inputs coincide). STATIONARY: it is larger, and
    training has come to rest. UNFINISHED: neither, when time, steps or patience ended; says nothing about either.
    DIVERGED: the step was too large.
    """

    INTERPOLATED = "interpolated"
    STATIONARY = "stationary"
    UNFINISHED = "unfinished"
    DIVERGED = "diverged"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Architecture, start and optimiser.

    Attributes
    ----------
    width : int
        Neurons m.
    scale : float
        lambda of the initialisation, see `network.initial`.
    initialisation : {"balanced", "dominated", "unbalanced", "zero_output"}
    activation : Nonlinearity
    optimizer : {"flow", "gd", "adam"}
        Gradient flow (`flow.gradient_flow`, for gelu `smooth.smooth_flow`), or full-batch descent (`descent`).
    learning_rate : float or None
        Of gd and adam, on L = (1/2n) sum r^2; a step of size eta on the mean squared error without 1/2 is 2 eta here.
    t_final : float or None
        Time to reach; learning rate times steps for gd and adam. The default for the flow of a piecewise-linear
        activation, 1e9, is beyond the end of most runs; others need it.
    tolerance : float
        Of the flow of a piecewise-linear activation.
    max_steps : int
        Of that flow.
    change_tol : float
        Of gd, adam and the flow of gelu: rest is a train loss that has changed by less than this share of itself since
        half of the time. 0 waits for the end.

    Raises
    ------
    TypeError, ValueError
        At construction, if a value is out of range or does not go with the others.
    """

    width: int = 200
    scale: float = 1e-3
    initialisation: str = "balanced"
    activation: Nonlinearity = RELU
    optimizer: str = "flow"
    learning_rate: float | None = None
    t_final: float | None = None
    tolerance: float = flow.TOLERANCE
    max_steps: int = flow.MAX_STEPS
    change_tol: float = CHANGE

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("width", integer("width", self.width, low=1))
        put("scale", real("scale", self.scale, low=0.0, open_low=True))
        put("tolerance", real("tolerance", self.tolerance, low=0.0, open_low=True, high=0.1))
        put("max_steps", integer("max_steps", self.max_steps, low=1))
        put("change_tol", real("change_tol", self.change_tol, low=0.0))
        if self.initialisation not in INITIALISATIONS:
            known = ", ".join(INITIALISATIONS)
            raise ValueError(f"initialisation must be one of {known}, not {shown(self.initialisation)}.")
        if self.initialisation == "zero_output" and self.width % 2:
            raise ValueError(
                f"width must be even for initialisation 'zero_output', which pairs neurons, not {self.width}."
            )
        if not isinstance(self.activation, Nonlinearity):
            raise TypeError(f"activation must be a Nonlinearity, not {shown(self.activation)}.")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {shown(self.optimizer)}.")
        if self.optimizer == "flow":
            if self.learning_rate is not None:
                raise ValueError("learning_rate goes with gd and adam, not with the flow, which has none.")
        elif self.learning_rate is None:
            raise ValueError(f"learning_rate is missing: optimizer {self.optimizer!r} needs it.")
        else:
            put("learning_rate", real("learning_rate", self.learning_rate, low=0.0, open_low=True))
        if self.t_final is not None:
            put("t_final", real("t_final", self.t_final, low=0.0, open_low=True))
        elif self.followed:
            put("t_final", flow.T_FINAL)
        else:
            raise ValueError(
                "t_final is missing: only the flow of a piecewise-linear activation can be followed to its end."
            )

    @property
    def followed(self) -> bool:
        """Whether the flow is followed kink by kink."""
        return self.optimizer == "flow" and self.activation.piecewise_linear

    def start(self, dimension: int, rng: np.random.Generator) -> Network:
        """A random network to start from."""
        return initial(self.width, dimension, self.scale, rng, kind=self.initialisation, activation=self.activation)

    def run(
        self,
        network: Network,
        dataset: Dataset,
        *,
        times: ArrayLike | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Trajectory:
        """Train a network on a data set; errors as the integrators."""
        x, y = dataset.inputs, dataset.labels
        assert self.t_final is not None  # set at construction
        loss_tol = attainable(dataset, self.activation) + flow.LOSS_TOL * float(np.mean(y**2))
        if self.followed:
            return flow.gradient_flow(
                network,
                x,
                y,
                t_final=self.t_final,
                tolerance=self.tolerance,
                max_steps=self.max_steps,
                loss_tol=loss_tol,
                times=times,
                stop=stop,
            )
        rest: dict[str, Any] = {
            "times": times,
            "loss_tol": loss_tol,
            "change_tol": self.change_tol,
            "stop": stop,
        }
        if self.optimizer == "flow":
            return smooth.smooth_flow(network, x, y, t_final=self.t_final, rtol=_ADAPTIVE_RTOL, **rest)
        assert self.learning_rate is not None
        steps = max(1, round(self.t_final / self.learning_rate))
        method = descent.gradient_descent if self.optimizer == "gd" else descent.adam
        if times is not None:
            within = np.asarray(times, dtype=np.float64)
            rest["times"] = within[within <= steps * self.learning_rate]
        return method(network, x, y, learning_rate=self.learning_rate, steps=steps, **rest)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in a configuration."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "activation"}
        values["activation"] = self.activation.name
        if self.activation.name == "leaky_relu":
            values["slope"] = self.activation.slope
        return {name: value for name, value in values.items() if value is not None}


def attainable(dataset: Dataset, activation: Nonlinearity) -> float:
    """Train loss that no network can go below: conflicting labels of inputs with one direction (gelu: not counted)."""
    return flow.merged(dataset.inputs, dataset.labels)[2] if activation.piecewise_linear else 0.0


def verdict(trajectory: Trajectory, dataset: Dataset) -> Verdict:
    """What became of a run on these data."""
    if trajectory.reason is Reason.DIVERGED:
        return Verdict.DIVERGED
    beyond = trajectory.train_loss[-1] - attainable(dataset, trajectory.activation)
    if beyond <= INTERPOLATED * float(np.mean(np.square(dataset.labels))):
        return Verdict.INTERPOLATED
    if trajectory.reason in (Reason.STATIONARY, Reason.GRADIENT, Reason.CHANGE):
        return Verdict.STATIONARY
    return Verdict.UNFINISHED


def criterion(trajectory: Trajectory, dataset: Dataset, change_tol: float = CHANGE) -> str:
    """What the verdict rests on, in words."""
    beyond = trajectory.train_loss[-1] - attainable(dataset, trajectory.activation)
    loss = beyond / float(np.mean(np.square(dataset.labels)))
    found = verdict(trajectory, dataset)
    if found is Verdict.INTERPOLATED:
        return f"train loss {loss:.1e} <= {INTERPOLATED:g} of the mean squared label, above what is attainable"
    words = {
        Reason.STATIONARY: f"no drive above {flow.DRIVE_TOL:g} of its scale is left but on neurons shrinking to zero",
        Reason.GRADIENT: f"gradient norm {trajectory.gradient_norm[-1]:.1e}",
        Reason.CHANGE: f"train loss changed by less than {change_tol:g} of itself since half of the time",
        Reason.STEPS: f"the limit of {trajectory.steps} steps came first",
        Reason.TIME: f"the final time {trajectory.time[-1]:g} came first",
        Reason.DIVERGED: "the train loss diverged",
        Reason.INTERRUPTED: "interrupted",
        Reason.FAILED: "the integrator found no way on",
        Reason.LOSS: "the loss tolerance was met",
    }
    return words[trajectory.reason]

"""Solutions made of known smooth functions, on the grids and in the layout that an engine produces."""

from __future__ import annotations

import numpy as np

import dmft
from dmft.solution import Solution, Stats, mode_names

ACTIVATION = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
SHARED = {"alpha": 0.3, "activation": ACTIVATION, "target": dmft.Target.same_as(ACTIVATION), "noise_std": 0.6}
STATS = Stats(rows=10, rejected=1, iterations=70, row_solves=11, wall_time=0.25, thinnings=0, estimated_error=3.5e-5)


def grid(spacing: float, t_final: float, start: float = 1e-6) -> np.ndarray:
    """Start small, grow at most 1.2-fold a step, then step ~ spacing * t."""
    t = [0.0]
    step = start
    while t[-1] < t_final:
        t.append(t[-1] + step)
        step = min(1.2 * step, start + spacing * t[-1])
    return np.array(t)


def correlated(random, shape, memory: float) -> np.ndarray:
    """Normal series of unit variance along the last axis, with correlation memory^|i - j|."""
    x = random.standard_normal(shape)
    for i in range(1, shape[-1]):
        x[..., i] = memory * x[..., i - 1] + np.sqrt(1.0 - memory**2) * x[..., i]
    return x


def problem(kind: str, width: int = 16):
    if kind == "symmetric":
        return dmft.SymmetricProblem(width=width, a0=1.0, **SHARED)
    if kind == "latent":
        target = dmft.Target.from_overlap({(1, 0): 0.3, (0, 1): 0.2}, power=1.0)
        return dmft.SymmetricProblem(width=width, a0=1.0, **(SHARED | {"target": target}))
    if kind == "grouped":
        return dmft.GroupedProblem(sizes=[3, 1, 2], a0=[1.0, -1.0, 0.5], **SHARED)
    if kind == "general":
        return dmft.GeneralProblem(a0=[1.0, -0.5, 0.25], **SHARED)
    return dmft.PSpinProblem(covariance=[0, 0, 0, 1.0])


def mode_rate(place: int) -> float:
    return 1.0 + 0.3 * place


def exact_correlation(t, s, place: int, skew: float = 0.0):
    """Smooth and decaying; the skew makes S_gh and S_hg mirror images of each other."""
    return (1.0 + skew * (t - s) / (1.0 + t + s)) / np.sqrt(1.0 + mode_rate(place) * (t + s) + 0.2 * (t - s) ** 2)


def exact_integrated(t, s):
    """Integral of R = sqrt((1+s)/(1+t)), a soft aging form with R(t,t) = 1."""
    value = (2.0 / 3.0) * ((1 + t) ** 1.5 - (1 + s) ** 1.5) / np.sqrt(1 + t)
    return np.where(s < t, value, 0.0)


def exact_response(t, s):
    return np.where(s <= t, np.sqrt((1 + s) / (1 + t)), 0.0)


def exact_test_error(t):
    """Falls from 1 to a minimum near t = 1 and rises again."""
    return 0.3 + 0.7 / (1 + t) + 0.4 * t / (20 + t)


def solution(
    kind: str = "symmetric",
    *,
    width: int = 16,
    t: np.ndarray | None = None,
    order: int = 4,
    keep: np.ndarray | None = None,
    **changes,
) -> Solution:
    chosen = problem(kind, width)
    form = chosen.formulation()
    groups, latent = form.groups, form.latent_dimension
    t = grid(0.1, 60.0, 1e-3) if t is None else t
    rows = len(t)
    keep = np.arange(rows) if keep is None else keep
    tt, ss = np.meshgrid(t[keep], t[keep], indexing="ij")
    modes = mode_names(form)
    transposed = np.arange(groups * groups).reshape(groups, groups).T.ravel()
    correlation = np.empty((len(modes), len(keep), len(keep)))
    for place in range(len(modes)):
        skew, base = 0.0, place
        if place < groups * groups and transposed[place] != place:
            base = min(place, transposed[place])
            skew = 0.2 if place == base else -0.2
        correlation[place] = exact_correlation(tt, ss, base, skew)
    index = 1.0 + np.arange(groups)
    network = form.residual_sector
    arguments = {
        "problem": chosen,
        "t": t,
        "order": np.minimum(np.arange(rows), order),
        "nu": index / (1 + t[:, None]),
        "energy_balance": 1e-5 / (1 + t),
        "row_index": keep,
        "modes": modes,
        "correlation": correlation,
        "integrated_response": np.stack([exact_integrated(tt, ss) for _ in range(len(modes))]),
        "residual_correlation": 1.0 / (1 + tt + ss) if network else None,
        "status": dmft.Status.DONE,
        "message": f"Reached t = {t[-1]:g}.",
        "stats": STATS,
        "rtol": 1e-4,
        "method": "multistep",
    }
    if network:
        arguments |= {
            "a": index * np.sqrt(1 + t[:, None]),
            "v": (1.0 + np.arange(latent))
            * index[:, None]
            * (t / (1 + t * t))[:, None, None]
            / (groups * latent)
            / groups,
            "train_error": 1.0 / (1 + t),
            "test_error": exact_test_error(t),
        }
    else:
        arguments |= {"energy": -1.15 + (1 + t) ** (-2 / 3)}
    return Solution(**(arguments | changes))

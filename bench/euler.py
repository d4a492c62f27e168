"""The explicit Euler scheme of [MU] on a uniform grid: the reference that owes nothing to this package's solvers.

[MU] is Montanari and Urbani, arXiv:2502.21269; here the two-time functions are kept in the modes S and T. The scheme
is first order, costs O(N^3) operations and O(N^2) memory for N steps, and is stable only for steps below
2/(alpha gamma^2 m h'(0)). Everything is numpy: a step is nine matrix-vector products over the history, which BLAS runs
at memory speed, so that this is as fast as the scheme can honestly be made without changing it. :func:`richardson`
extrapolates to zero step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dmft.formulation import Formulation
    from dmft.problems import Problem

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class EulerCurves:
    """One-time and two-time functions on the uniform grid.

    Attributes
    ----------
    t : (N,) float
    a, nu, train_error, test_error, energy : (N,) float
        ``energy`` is E of the p-spin model; zero for a network, and the errors are zero for the p-spin.
    v : (N, k) float
    correlation_s, correlation_t : (N, N) float
        C_S and C_T, both triangles. For width 1, C_T repeats C_S.
    integrated_s, integrated_t : (N, N) float
        F(t_n, t_j) = int_{t_j}^{t_n} R(t_n, u) du for j <= n, zero above the diagonal.
    residual_correlation : (N, N) float
        C_r, both triangles.
    wall_time : float
        Seconds spent.
    """

    t: FloatArray
    a: FloatArray
    v: FloatArray
    nu: FloatArray
    train_error: FloatArray
    test_error: FloatArray
    energy: FloatArray
    correlation_s: FloatArray
    correlation_t: FloatArray
    integrated_s: FloatArray
    integrated_t: FloatArray
    residual_correlation: FloatArray
    wall_time: float


def euler(problem: Problem, step: float, t_final: float) -> EulerCurves:
    """Integrate a symmetric network or a p-spin model from 0 to ``t_final`` (rounded to whole steps).

    Raises
    ------
    ValueError
        If the problem has more than one group.
    FloatingPointError
        If the step is beyond the stability limit and the solution leaves the finite numbers.
    """
    form = problem.formulation()
    if form.groups != 1:
        raise ValueError(f"problem must have one group of neurons, not {form.groups}.")
    started = time.perf_counter()
    steps = max(1, round(t_final / step))
    with np.errstate(over="raise", invalid="raise"):
        curves = _march(form, step, steps)
    return replace(curves, wall_time=time.perf_counter() - started)


def _march(form: Formulation, eta: float, steps: int) -> EulerCurves:
    m, alpha, size = float(form.width), form.alpha, steps + 1
    many = form.width > 1
    h = form.covariance
    dh, d2h = polynomial.polyder(h), polynomial.polyder(h, 2)

    def value(coefficients: Any, q: Any) -> FloatArray:
        return np.asarray(polynomial.polyval(q, coefficients), dtype=np.float64)

    a, nu, rho = np.zeros(size), np.zeros(size), np.ones(size)
    v = np.zeros((size, form.latent_dimension))
    cs, ct = np.zeros((size, size)), np.zeros((size, size))
    rs, rt = np.zeros((size, size)), np.zeros((size, size))  # R(t, t) = 0, R(t + eta, t) = 1
    q = np.zeros((size, size))
    p = np.zeros((size, size))  # (1 + eta S_R)^-1
    cr = np.zeros((size, size))
    energy = np.zeros(size)
    a[0], v[0] = form.a0[0], form.v0[0]
    cs[0, 0], ct[0, 0] = form.correlation_s0[0, 0], form.correlation_t0[0]

    for n in range(size):
        past = slice(0, n + 1)
        # Rows n of C_d, C_o, R_d, R_o from the modes.
        if many:
            cd, co = (cs[n, past] + (m - 1) * ct[n, past]) / m, (cs[n, past] - ct[n, past]) / m
            rd, ro = (rs[n, past] + (m - 1) * rt[n, past]) / m, (rs[n, past] - rt[n, past]) / m
        else:
            cd, rd = cs[n, past], rs[n, past]
            co, ro = np.zeros(n + 1), np.zeros(n + 1)
        dh_d, dh_o = value(dh, cd), value(dh, co)
        d2h_d, d2h_o = value(d2h, cd), value(d2h, co)
        phihat = _phihat(form, v[past])
        slope = _gradient(form, v[n])

        if form.residual_sector:
            pair = a[n] * a[past] / m
            q[n, past] = form.offset - a[n] * phihat[n] - a[past] * phihat
            q[n, past] += pair * (value(h, cd) + (m - 1) * value(h, co))
            q[past, n] = q[n, past]
            s_r = pair[:n] * (dh_d[:n] * rd[:n] + (m - 1) * dh_o[:n] * ro[:n])
            p[n, :n] = -eta * (s_r @ p[:n, :n])
            p[n, n] = 1.0
            cr[n, past] = p[past, past] @ (p[n, past] @ q[past, past])
            cr[past, n] = cr[n, past]
            factor, response, noise = alpha * pair, p[n, past], cr[n, past]
        else:
            factor, response, noise = np.ones(n + 1), np.zeros(n + 1), np.ones(n + 1)
            energy[n] = -eta * (dh_d @ rd)
        rho[n] = response.sum()

        # Memory kernels; L carries its own time weight because R_A holds a delta function.
        l_d = factor * (response * dh_d - eta * noise * d2h_d * rd)
        l_o = factor * (response * dh_o - eta * noise * d2h_o * ro)
        n_d, n_o = factor * noise * dh_d, factor * noise * dh_o
        l_s, n_s = (l_d + (m - 1) * l_o, n_d + (m - 1) * n_o) if many else (l_d, n_d)
        force_s = -(l_s @ cs[past, past]) + eta * (rs[past, past] @ n_s)
        force_s += m * alpha * a[n] * rho[n] * (v[past] @ slope)
        if many:
            l_t, n_t = l_d - l_o, n_d - n_o
            force_t = -(l_t @ ct[past, past]) + eta * (rt[past, past] @ n_t)
            nu[n] = (force_s[n] + (m - 1) * force_t[n]) / m
        else:
            nu[n] = force_s[n]
        if n == steps:
            break

        # One explicit step.
        nxt = n + 1
        cs[nxt, past] = cs[n, past] + eta * (force_s - nu[n] * cs[n, past])
        cs[nxt, nxt] = cs[n, n] + 2 * eta * (force_s[n] - nu[n] * cs[n, n]) if many else 1.0
        cs[past, nxt] = cs[nxt, past]
        rs[nxt, :n] = rs[n, :n] - eta * (nu[n] * rs[n, :n] + l_s @ rs[past, :n])
        rs[nxt, n] = 1.0
        if many:
            ct[nxt, past] = ct[n, past] + eta * (force_t - nu[n] * ct[n, past])
            ct[nxt, nxt] = (m - cs[nxt, nxt]) / (m - 1)  # C_d(t, t) = 1
            ct[past, nxt] = ct[nxt, past]
            rt[nxt, :n] = rt[n, :n] - eta * (nu[n] * rt[n, :n] + l_t @ rt[past, :n])
            rt[nxt, n] = 1.0
        v[nxt] = v[n] + eta * (-nu[n] * v[n] + alpha * a[n] * rho[n] * slope - l_s @ v[past])
        a[nxt] = a[n]
        if form.train_second_layer:
            overlap = (value(h, cd) + (m - 1) * value(h, co)) / m
            feedback = (dh_d * rd + (m - 1) * dh_o * ro) / m
            change = rho[n] * phihat[n] - (response * a[past]) @ overlap + eta * (noise * a[past]) @ feedback
            a[nxt] += eta * alpha * change

    return EulerCurves(
        t=eta * np.arange(size, dtype=np.float64),
        a=a,
        v=v,
        nu=nu,
        train_error=np.diagonal(cr) / 2,
        test_error=np.diagonal(q) / 2,
        energy=energy,
        correlation_s=cs,
        correlation_t=ct if many else cs.copy(),
        integrated_s=_integrated(rs, eta),
        integrated_t=_integrated(rt if many else rs, eta),
        residual_correlation=cr,
        wall_time=0.0,
    )


def _integrated(response: FloatArray, eta: float) -> FloatArray:
    """F(t_n, t_j) = eta sum_{j <= k < n} R(t_n, t_k)."""
    return eta * np.cumsum(response[:, ::-1], axis=1)[:, ::-1]


def _phihat(form: Formulation, v: FloatArray) -> FloatArray:
    result = np.zeros(len(v))
    for exponents, coefficient in zip(form.overlap_exponents, form.overlap_coefficients, strict=True):
        result += coefficient * np.prod(v**exponents, axis=1)
    return result


def _gradient(form: Formulation, v: FloatArray) -> FloatArray:
    result = np.zeros(len(v))
    for exponents, coefficient in zip(form.overlap_exponents, form.overlap_coefficients, strict=True):
        for axis in np.flatnonzero(exponents):
            lowered = exponents.copy()
            lowered[axis] -= 1
            result[axis] += coefficient * exponents[axis] * np.prod(v**lowered)
    return result


@dataclass(frozen=True)
class Extrapolated:
    """Richardson limit of :func:`euler` on the coarsest grid.

    Attributes
    ----------
    curves : EulerCurves
        The extrapolated functions; ``wall_time`` is that of all runs together.
    error : EulerCurves
        Absolute difference from the extrapolation with the finest run left out: a pessimistic error estimate.
    """

    curves: EulerCurves
    error: EulerCurves


def richardson(problem: Problem, step: float, t_final: float, levels: int = 3) -> Extrapolated:
    """Extrapolate ``levels`` Euler runs with steps ``step / 2**k`` to zero step.

    The error of the scheme on a uniform grid is a power series in the step, so the k-th extrapolation removes its
    k-th power.

    Raises
    ------
    ValueError
        If ``levels`` is below 2.
    """
    if levels < 2:
        raise ValueError(f"levels must be an integer >= 2, not {levels}.")
    steps = max(1, round(t_final / step))
    wall_time = 0.0
    runs: list[dict[str, FloatArray]] = []
    for level in range(levels):
        run = euler(problem, step / 2**level, steps * step)
        wall_time += run.wall_time
        every = 2**level
        runs.append(
            {
                field.name: _thinned(field.name, getattr(run, field.name), every)
                for field in fields(run)
                if field.name != "wall_time"
            }
        )
        del run
    best = {name: _limit([run[name] for run in runs]) for name in runs[0]}
    previous = {name: _limit([run[name] for run in runs[:-1]]) for name in runs[0]}
    error = {name: np.abs(best[name] - previous[name]) for name in best}
    return Extrapolated(
        curves=EulerCurves(**best, wall_time=wall_time), error=EulerCurves(**error, wall_time=wall_time)
    )


def _thinned(name: str, array: FloatArray, every: int) -> FloatArray:
    """The values on the coarsest grid: both axes of a two-time function, the first of a curve."""
    two_time = name.startswith("integrated") or "correlation" in name
    return array[::every, ::every].copy() if two_time else array[::every].copy()


def _limit(values: list[FloatArray]) -> FloatArray:
    """Neville's table in powers of the step, which halves from one value to the next."""
    table = list(values)
    for power in range(1, len(values)):
        weight = 2.0**power
        table = [(weight * fine - coarse) / (weight - 1) for coarse, fine in pairwise(table)]
    return table[0]


def main() -> None:
    """Print the cost of the scheme on the single-index mean-field case, as a table."""
    import dmft

    activation = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    problem = dmft.SymmetricProblem(
        width=16,
        alpha=0.3,
        activation=activation,
        target=dmft.Target.same_as(activation),
        noise_std=0.6,
        a0=1.0,
    )
    t_final = 20.0
    print(f"{'step':>8} {'rows':>6} {'seconds':>8} {'e_tr':>12} {'e_ts':>12}")
    for step in (0.08, 0.04, 0.02, 0.01):
        run = euler(problem, step, t_final)
        errors = f"{run.train_error[-1]:12.8f} {run.test_error[-1]:12.8f}"
        print(f"{step:8.3f} {len(run.t):6d} {run.wall_time:8.2f} {errors}")


if __name__ == "__main__":
    main()

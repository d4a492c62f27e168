"""First corrections in 1/m to the mean-field limit of a symmetric problem; [MU] (G.49)-(G.76).

With X = X_0 + X_1/m for a, v, nu and the equal-time overlap c = C_o(t,t) between neurons, the equations of theory
section 3 give to first order, with k(t,s) = lim m S_R = a a' [h'(C_d) R_T + h'(C_o) r], r = R_S - R_T, ' for s and all
two-time functions of leading order (docs/limits.md):

    a_1'  = alpha { g.v_1 - phihat int k - a_1 h(c) - a h'(c) c_1 - a [h(1) - h(c)] + int k a' h(C_o)
                    + int Q a' [h'(C_d) R_T + h'(C_o) r] }
    v_1'  = -nu v_1 - nu_1 v + alpha { a_1 g + a Dg v_1 - a g int k - B_1 v - a^2 h'(c) v_1 + int m(t,s) v' }
    c_1'/2 = -nu c_1 - nu_1 c + D ,   nu_1 = D + alpha { -a^2 [h'(1) - h'(c)] (1 - c) + int a a' Q [h''(C_d) R_T C_T
                    + (h'(C_d) - h'(C_o)) R_T] }
    D = alpha { a_1 g.v + a v.Dg v_1 + a g.v_1 - a g.v int k - B_1 c - a^2 h'(c) c_1 + int m(t,s) C_o
                    - a^2 h'(c) (1 - c) + int a a' Q h'(C_o) R_S }
    B_1 = 2 a a_1 h'(c) + a^2 h''(c) c_1 + a^2 [h'(1) - h'(c)] ,
    m(t,s) = a a' { k h'(C_o) + Q [h''(C_d) R_T + h''(C_o) r] }

Memory enters through the sources alone, so that this is an ordinary linear equation in (a_1, v_1, c_1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dmft.formulation import FloatArray
from dmft.interpolation import interpolate
from dmft.limits.base import Tools, Trajectory

if TYPE_CHECKING:
    from dmft.limits.mean_field import Flow

PANELS, NODES = 24, 8
"""Gauss-Legendre panels on each half of (0, t), geometric towards its ends, and nodes on each."""
DENSITY = 16
"""Times of the sources in a factor of e."""


class FirstOrder(NamedTuple):
    """Coefficients of 1/m at N times."""

    a: FloatArray  # (N,)
    v: FloatArray  # (N, k)
    overlap: FloatArray  # (N,) of C_o(t, t)
    nu: FloatArray  # (N,)
    train_error: FloatArray  # (N,)
    test_error: FloatArray  # (N,)


class _Sources(NamedTuple):
    """Memory integrals at one set of times; names as in the module's equations."""

    k: FloatArray  # int k
    k_h: FloatArray  # int k a' h(C_o)
    response: FloatArray  # int Q a' [h'(C_d) R_T + h'(C_o) r]
    k_q: FloatArray  # int k Q
    m_o: FloatArray  # int m C_o
    noise: FloatArray  # int a a' Q h'(C_o) R_S
    local: FloatArray  # int a a' Q [h''(C_d) R_T C_T + (h'(C_d) - h'(C_o)) R_T]
    m_v: FloatArray  # (N, k) int m v'


def first_order(flow: Flow, path: Trajectory, tools: Tools, t_final: float) -> Callable[[FloatArray], FirstOrder]:
    """Solve for the coefficients of 1/m up to ``t_final``; returns them as a function of times."""
    form = flow.formulation
    latent = form.latent_dimension
    rate = form.alpha * (float(np.abs(form.a0[0])) + 1.0) ** 2 * (float(flow.h(np.ones(()), 1)) + form.offset)
    first = min(1e-4 / rate, 1e-3 * t_final)
    count = max(16, int(DENSITY * np.log(t_final / first)))
    nodes = np.concatenate([[0.0], np.geomspace(first, t_final, count)])
    clock = _clock(flow, path, nodes)
    sources = np.array([np.hstack(_integrals(flow, path, clock, time)) for time in nodes])

    def source(times: FloatArray) -> _Sources:
        values = interpolate(nodes, sources, 5, np.clip(times, 0.0, nodes[-1]))
        return _Sources._make([*(values[..., i] for i in range(7)), values[..., 7:]])

    def derivatives(times: FloatArray, state: FloatArray) -> tuple[FloatArray, ...]:
        """da_1, dv_1, dc_1, nu_1 for states (N, 2 + k)."""
        memory = source(times)
        v, a, _ = flow.parts(path(times))
        v, a = v[:, 0], a[:, 0]
        c = (v**2).sum(axis=1)
        h = [flow.h(c, order) for order in range(3)]
        at_one = [float(flow.h(np.ones(()), order)) for order in range(2)]
        phihat, gradient = (part[:, 0] for part in flow.pull(v[:, None, :]))
        hessian = _hessian(flow, v)
        a1, c1, v1 = state[:, 0], state[:, 1], state[:, 2:]
        nu = flow.multiplier(v[:, None, :], a[:, None])[:, 0]
        g_v1 = (gradient * v1).sum(axis=1)
        turn = np.einsum("nij,nj->ni", hessian, v1)
        b1 = 2.0 * a * a1 * h[1] + a**2 * h[2] * c1 + a**2 * (at_one[1] - h[1])
        g_v = (gradient * v).sum(axis=1)
        d = form.alpha * (
            a1 * g_v
            + a * (turn * v).sum(axis=1)
            + a * g_v1
            - a * g_v * memory.k
            - b1 * c
            - a**2 * h[1] * c1
            + memory.m_o
            - a**2 * h[1] * (1.0 - c)
            + memory.noise
        )
        nu1 = d + form.alpha * (memory.local - a**2 * (at_one[1] - h[1]) * (1.0 - c))
        dc = 2.0 * (d - nu * c1 - nu1 * c)
        dv = -nu[:, None] * v1 - nu1[:, None] * v
        dv += form.alpha * (
            (a1 - a * memory.k)[:, None] * gradient
            + a[:, None] * turn
            - b1[:, None] * v
            - (a**2 * h[1])[:, None] * v1
            + memory.m_v
        )
        da = form.alpha * (
            g_v1 - phihat * memory.k - a1 * h[0] - a * h[1] * c1 - a * (at_one[0] - h[0]) + memory.k_h + memory.response
        )
        return (da if form.train_second_layer else np.zeros_like(da)), dv, dc, nu1

    def rhs(time: float, state: FloatArray) -> FloatArray:
        da, dv, dc, _ = derivatives(np.array([time]), state[None])
        return np.concatenate([da, dc, dv[0]])

    linear = tools.integrate(rhs, np.zeros(2 + latent), t_final)

    def evaluate(times: FloatArray) -> FirstOrder:
        state = linear(times)
        v, a, _ = flow.parts(path(times))
        v, a = v[:, 0], a[:, 0]
        c = (v**2).sum(axis=1)
        phihat, gradient = (part[:, 0] for part in flow.pull(v[:, None, :]))
        a1, c1, v1 = state[:, 0], state[:, 1], state[:, 2:]
        q1 = -2.0 * a1 * phihat - 2.0 * a * (gradient * v1).sum(axis=1) + 2.0 * a * a1 * flow.h(c)
        q1 += a**2 * (flow.h(c, 1) * c1 + float(flow.h(np.ones(()))) - flow.h(c))
        test = 0.5 * q1
        return FirstOrder(
            a=a1,
            v=v1,
            overlap=c1,
            nu=derivatives(times, state)[3],
            train_error=test - source(times).k_q,
            test_error=test,
        )

    return evaluate


def _clock(flow: Flow, path: Trajectory, nodes: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """int_0^t alpha a^2 h'(c) dt, the decay of R_S beyond that of R_T, by Gauss-Legendre on the cells."""
    point, weight = np.polynomial.legendre.leggauss(8)

    def rate(times: FloatArray) -> FloatArray:
        v, a, _ = flow.parts(path(times.ravel()))
        value = flow.formulation.alpha * a[:, 0] ** 2 * flow.h((v[:, 0] ** 2).sum(axis=1), 1)
        return value.reshape(times.shape)

    step = np.diff(nodes)
    inside = nodes[:-1, None] + 0.5 * step[:, None] * (1.0 + point)
    total = np.concatenate([[0.0], np.cumsum(0.5 * step * (rate(inside) @ weight))])

    def integral(times: FloatArray) -> FloatArray:
        cell = np.clip(np.searchsorted(nodes, times, side="right") - 1, 0, len(step) - 1)
        length = times - nodes[cell]
        inside = nodes[cell][..., None] + 0.5 * length[..., None] * (1.0 + point)
        return total[cell] + 0.5 * length * (rate(inside) @ weight)

    return integral


def _integrals(flow: Flow, path: Trajectory, clock: Callable[[FloatArray], FloatArray], time: float) -> _Sources:
    """The memory integrals over s in (0, time), graded towards both ends: R_S is short-ranged, C is not."""
    latent = flow.formulation.latent_dimension
    if time == 0.0:
        return _Sources._make([*(np.zeros(1) for _ in range(7)), np.zeros(latent)])
    point, weight = np.polynomial.legendre.leggauss(NODES)
    rate = max((float(clock(np.array([time]))[0]) + 1.0), 1.0)
    edges = np.concatenate([[0.0], np.geomspace(min(1e-2, 1e-2 / rate), 1.0, PANELS)]) * 0.5 * time
    step = np.diff(edges)
    from_end = (edges[:-1, None] + 0.5 * step[:, None] * (1.0 + point)).ravel()
    single = (0.5 * step[:, None] * weight).ravel()
    s = np.concatenate([from_end, time - from_end])
    w = np.concatenate([single, single])
    form = flow.formulation
    everything = np.append(s, time)
    v, a, decay = flow.parts(path(everything))
    v, a, decay, local = v[:, 0], a[:, 0], decay[:, 0], clock(everything)
    phihat = flow.pull(v[:, None, :])[0][:, 0]
    rest = np.sqrt(np.maximum(1.0 - (v**2).sum(axis=1), 0.0))
    now, past = -1, slice(None, -1)
    c_o = v[past] @ v[now]
    c_t = rest[past] * rest[now]
    c_d = c_o + c_t
    r_t = np.exp(decay[past] - decay[now])
    r_s = r_t * np.exp(local[past] - local[now])
    r = r_s - r_t
    aa = a[now] * a[past]
    q = form.offset - a[now] * phihat[now] - a[past] * phihat[past] + aa * flow.h(c_o)
    h1_d, h1_o, h2_d, h2_o = flow.h(c_d, 1), flow.h(c_o, 1), flow.h(c_d, 2), flow.h(c_o, 2)
    kernel = h1_d * r_t + h1_o * r
    k = aa * kernel
    m = aa * (k * h1_o + q * (h2_d * r_t + h2_o * r))

    def integral(values: FloatArray) -> FloatArray:
        return np.atleast_1d(w @ values)

    return _Sources(
        k=integral(k),
        k_h=integral(k * a[past] * flow.h(c_o)),
        response=integral(q * a[past] * kernel),
        k_q=integral(k * q),
        m_o=integral(m * c_o),
        noise=integral(aa * q * h1_o * r_s),
        local=integral(aa * q * (h2_d * r_t * c_t + (h1_d - h1_o) * r_t)),
        m_v=integral(m[:, None] * v[past]),
    )


def _hessian(flow: Flow, v: FloatArray) -> FloatArray:
    """Second derivatives of phihat at overlaps (N, k): (N, k, k)."""
    form = flow.formulation
    exponents, k = form.overlap_exponents, form.latent_dimension
    result = np.zeros((len(v), k, k))
    for i in range(k):
        for j in range(k):
            lowered = exponents.copy()
            factor = form.overlap_coefficients * lowered[:, i]
            lowered[:, i] -= 1
            factor = factor * lowered[:, j]
            lowered[:, j] -= 1
            result[:, i, j] = np.prod(v[:, None, :] ** np.maximum(lowered, 0), axis=-1) @ factor
    return result

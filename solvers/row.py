"""One row of the exact DMFT of an implicit multistep discretisation, as a fixed-point map.

At row n the process is ``sum_i al_i w(t_{n-i}) = force(w(t_n)) - nu_n w(t_n) + b_n``; its DMFT is a closed set of
equations for the n-th row of every two-time function. Given a guess of (C, C_r, a, v, A) on that row, where
``A_g = al_0 + nu_g + L_d,nn - L_o,nn``, the response rows follow exactly by one sweep backwards in the second time
(they are linear in themselves); then C_r, C, v, a and A have explicit updates. The guess is flattened into one
vector so that any accelerator can act on it:

    C_S (G, (n+1) G) | C_T (GT, n+1) | C_r (n+1) | a (G) | V (G, k)          V_g = sqrt(sizes[g]) v_g

The derivative of the response rows along one direction of A is carried in the same sweep and gives a Newton step
for A, the only unknown in which the map is violently expanding (its slope diverges at marginal stability).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dmft._jit import entry, inlined, kernel
from dmft.equations import (
    covariance_derivatives,
    memory_element,
    noise_element,
    output_field,
    overlap_and_gradient,
    residual_covariance,
    residual_memory,
)
from solvers.accelerate import anderson_update
from solvers.causal import add_multiple, causal_product, dot, full_product


class Model(NamedTuple):
    """The formulation as compiled code sees it."""

    sizes: np.ndarray  # (G,) float
    roots: np.ndarray  # (G,) sqrt(sizes)
    slot: np.ndarray  # (G,) index of the group's T mode, -1 for a group of one neuron
    width: float
    alpha: float
    covariance: np.ndarray
    offset: float
    exponents: np.ndarray
    coefficients: np.ndarray
    train_second_layer: bool
    residual_sector: bool


class Tables(NamedTuple):
    """Accepted rows, (capacity, ...) each. Symmetric functions are stored in full."""

    a: np.ndarray  # (N, G)
    v: np.ndarray  # (N, G, k) scaled overlaps V
    overlap: np.ndarray  # (N, G) phihat(v_g)
    c_s: np.ndarray  # (N G, N G)
    c_t: np.ndarray  # (GT, N, N)
    r_s: np.ndarray  # (N G, N G) causal
    r_t: np.ndarray  # (GT, N, N) causal
    s_r: np.ndarray  # (N, N) causal
    r_a: np.ndarray  # (N, N) causal
    q: np.ndarray  # (N, N)


class Work(NamedTuple):
    """The row under construction. The first index of a ``rows`` array is one of the names below.

    Few packed arrays instead of many named ones: every array handed to a compiled function costs compile time.
    """

    rows_s: np.ndarray  # (8, G, N G)
    rows_t: np.ndarray  # (8, GT, N)
    rows: np.ndarray  # (8, N) functions of the residual sector
    cov_other: np.ndarray  # (3, N, G, G) h, h', h'' at C_o(n, k)
    cov_own: np.ndarray  # (3, N, G) h, h', h'' at C_d(n, k)
    vectors: np.ndarray  # (4, G)


# Rows in modes; + 1 is the derivative along the Newton direction in A.
RESPONSE, MEMORY, SUM, NOISE, OUT = 0, 2, 4, 6, 7
# Rows of the residual sector.
R_A, SUM_A, S_R, Q_ROW, Y_ROW, OUT_A = 0, 2, 4, 5, 6, 7
# Vectors: the multiplier nu, the Newton direction in A, L_d,nn - L_o,nn (L_d,nn for a lone neuron) and its derivative.
NU, DIRECTION, SELF_MEMORY, SELF_SLOPE = 0, 1, 2, 3


class Local(NamedTuple):
    """Small arrays for the equations at one pair of times, indexed by the names below."""

    s: np.ndarray  # (LOCALS, G, G) matrices in S modes
    t: np.ndarray  # (LOCALS, GT) T modes
    other: np.ndarray  # (LOCALS, G, G) elements of two different neurons
    own: np.ndarray  # (LOCALS, G + 1) elements of a neuron with itself, and scratch vectors
    inverse: np.ndarray  # (G, G + 1, G + 1) inverted column blocks
    dense: np.ndarray  # (size + 1, size) factorised local system and a vector, size = G^2 + GT; empty if large
    swap: np.ndarray  # (max(G + 1, size),) int
    gradient: np.ndarray  # (G, k)
    latent: np.ndarray  # (k,)


LOCALS = 12
# MATRIX: M = diag(A) + sqrt(sizes sizes) L_o,nn, and its derivative. PAST: R_kk. RHS: right-hand sides, then solutions.
# KERNEL: L_nk. DIAGONAL: equal-time response and derivative. EQUAL: right-hand side of the equal-time equation.
MATRIX, PAST, RHS, GIVEN, KERNEL, INVERSE, DIAGONAL, EQUAL = 0, 2, 3, 6, 7, 8, 9, 11
# PAIR: a pair (X_d, X_o), twice. H: h, h', h''. COUPLING: (alpha/m) a a. WEIGHT: coupling C_r h''.
PAIR, H, COUPLING, WEIGHT = 0, 2, 5, 6
# Scratch vectors over groups.
COLUMN, VALUES, TRIAL, OVERLAP, PREVIOUS = 7, 8, 9, 10, 11


LOC_WEIGHT = 1e-2
"""Weight of a relative change of A in the convergence test: it enters the curves through C only, weakly."""


PATIENCE = 12
"""Iterations after which a row is taken at the sufficient accuracy instead of the wanted one."""


LAST_PATIENCE = 16
"""Iterations after which a row is taken at the least accuracy: rounding stops it above the sufficient one."""


class Guess(NamedTuple):
    """Views of one flat vector of row unknowns."""

    flat: np.ndarray
    c_s: np.ndarray  # (G, (n + 1) G)
    c_t: np.ndarray  # (GT, n + 1)
    c_r: np.ndarray  # (n + 1,)
    a: np.ndarray  # (G,)
    v: np.ndarray  # (G, k)
    loc: np.ndarray  # (G,) A, when there is more than one; else empty


@kernel
def invert(matrix, size, swap):
    """Invert ``matrix[:size, :size]`` in place (Gauss-Jordan with row pivoting)."""
    for pivot in range(size):
        best = pivot
        for i in range(pivot + 1, size):
            if abs(matrix[i, pivot]) > abs(matrix[best, pivot]):
                best = i
        swap[pivot] = best
        if best != pivot:
            for j in range(size):
                matrix[pivot, j], matrix[best, j] = matrix[best, j], matrix[pivot, j]
        scale = 1.0 / matrix[pivot, pivot]
        matrix[pivot, pivot] = 1.0
        for j in range(size):
            matrix[pivot, j] *= scale
        for i in range(size):
            if i != pivot:
                factor = matrix[i, pivot]
                matrix[i, pivot] = 0.0
                for j in range(size):
                    matrix[i, j] -= factor * matrix[pivot, j]
    for pivot in range(size - 1, -1, -1):
        best = swap[pivot]
        if best != pivot:
            for i in range(size):
                matrix[i, pivot], matrix[i, best] = matrix[i, best], matrix[i, pivot]


@entry
def split(model, x_s, x_t, own, other):
    """S and T modes at one pair of times (G, G), (GT,) -> X_d (G,), X_o (G, G)."""
    groups = model.sizes.shape[0]
    for g in range(groups):
        for h in range(groups):
            other[g, h] = x_s[g, h] / (model.roots[g] * model.roots[h])
        slot = model.slot[g]
        if slot < 0:
            other[g, g] = 0.0
            own[g] = x_s[g, g]
        else:
            other[g, g] = (x_s[g, g] - x_t[slot]) / model.sizes[g]
            own[g] = other[g, g] + x_t[slot]


@inlined
def join(model, own, other, x_s, x_t):
    """X_d (G,), X_o (G, G) -> S and T modes at one pair of times."""
    groups = model.sizes.shape[0]
    for g in range(groups):
        for h in range(groups):
            x_s[g, h] = other[g, h] * model.roots[g] * model.roots[h]
        slot = model.slot[g]
        if slot < 0:
            x_s[g, g] = own[g]
        else:
            x_t[slot] = own[g] - other[g, g]
            x_s[g, g] = x_t[slot] + model.sizes[g] * other[g, g]


DENSE_LIMIT = 30
"""Largest local system (G^2 + number of T modes) that is factorised as a whole; larger ones are iterated."""


@kernel
def lu_factor(matrix, size, swap):
    """LU factorisation with row pivoting, in place."""
    for pivot in range(size):
        best = pivot
        for i in range(pivot + 1, size):
            if abs(matrix[i, pivot]) > abs(matrix[best, pivot]):
                best = i
        swap[pivot] = best
        if best != pivot:
            for j in range(size):
                matrix[pivot, j], matrix[best, j] = matrix[best, j], matrix[pivot, j]
        inverse = 1.0 / matrix[pivot, pivot]
        for i in range(pivot + 1, size):
            if matrix[i, pivot] != 0.0:
                factor = matrix[i, pivot] * inverse
                matrix[i, pivot] = factor
                for j in range(pivot + 1, size):
                    matrix[i, j] -= factor * matrix[pivot, j]


@kernel
def lu_solve(matrix, size, swap, x):
    """Solve with the factors of :func:`lu_factor`, in place."""
    for i in range(size):
        x[i], x[swap[i]] = x[swap[i]], x[i]
    for i in range(size):
        value = x[i]
        for j in range(i):
            value -= matrix[i, j] * x[j]
        x[i] = value
    for i in range(size - 1, -1, -1):
        value = x[i]
        for j in range(i + 1, size):
            value -= matrix[i, j] * x[j]
        x[i] = value / matrix[i, i]


@inlined
def self_weights(model, local, h, self_share):
    """(p, q, r, s) of group h: L_hh = p R_S + q R_T and L_T = r R_S + s R_T, times K_S and K_T in the equations."""
    w_own = local.own[WEIGHT, h]
    if model.slot[h] < 0:
        return -self_share * w_own, 0.0, 0.0, 0.0
    w_other = local.other[WEIGHT, h, h]
    tee_s = -self_share * (w_own - w_other) / model.sizes[h]
    tee_t = -self_share * (w_own * (model.sizes[h] - 1.0) + w_other) / model.sizes[h]
    return tee_s - w_other, tee_t + w_other, tee_s, tee_t


@kernel
def factor_groups(model, local, a_loc, self_share):
    """:func:`factor_local` for G > 1: the whole system at once, or column blocks to be iterated."""
    groups = model.sizes.shape[0]
    square = groups * groups
    size = square + local.t.shape[1]
    if size <= DENSE_LIMIT:
        b = local.dense
        for i in range(size):
            for j in range(size):
                b[i, j] = 0.0
        for g in range(groups):
            slot = model.slot[g]
            p, q, r, s = self_weights(model, local, g, self_share)
            for h in range(groups):
                row = g * groups + h
                for l in range(groups):
                    b[row, l * groups + h] += local.s[MATRIX, g, l]
                    if l != g:
                        b[row, g * groups + l] -= local.other[WEIGHT, g, l] * local.s[PAST, l, h]
                b[row, g * groups + g] += p * local.s[PAST, g, h]
                if slot >= 0:
                    b[row, square + slot] += q * local.s[PAST, g, h]
            if slot >= 0:
                b[square + slot, g * groups + g] += r * local.t[PAST, slot]
                b[square + slot, square + slot] += a_loc[g] + s * local.t[PAST, slot]
        lu_factor(b, size, local.swap)
        return
    for h in range(groups):
        slot = model.slot[h]
        p, q, r, s = self_weights(model, local, h, self_share)
        b = local.inverse[h]
        for g in range(groups):
            for l in range(groups):
                b[g, l] = local.s[MATRIX, g, l]
            b[g, groups] = 0.0
            b[groups, g] = 0.0
            if g != h:
                b[g, g] -= local.other[WEIGHT, g, h] * local.s[PAST, h, h]
        b[h, h] += p * local.s[PAST, h, h]
        if slot >= 0:
            b[h, groups] = q * local.s[PAST, h, h]
            b[groups, h] = r * local.t[PAST, slot]
            b[groups, groups] = a_loc[h] + s * local.t[PAST, slot]
        invert(b, groups + 1 if slot >= 0 else groups, local.swap)


@inlined
def factor_local(model, local, a_loc, self_share):
    """Prepare the solution of the local response equations at one pair (n, k).

    The operator acts on (R_S, R_T) as  M R_S + L_S[R] K_S  and  A R_T + L_T[R] K_T, with L[R] the part of the memory
    kernel that is linear in R_nk at fixed R_A,nk:
    L_o = -weight_other R_o, L_d = -weight_own R_d. ``self_share`` is 1.0,
    or 0.0 for the equal-time equation, where L_d - L_o is already inside M and A.

    Small systems are factorised as a whole. In large ones each column of R_S, with the T mode of its own group, is
    eliminated exactly, and the coupling of different columns through the off-diagonal of K_S is iterated.
    """
    if model.sizes.shape[0] > 1:
        factor_groups(model, local, a_loc, self_share)
        return
    p, q, r, s = self_weights(model, local, 0, self_share)
    b = local.inverse[0]
    first = local.s[MATRIX, 0, 0] + p * local.s[PAST, 0, 0]
    if model.slot[0] < 0:
        b[0, 0] = 1.0 / first
        return
    cross = q * local.s[PAST, 0, 0]
    back = r * local.t[PAST, 0]
    second = a_loc[0] + s * local.t[PAST, 0]
    determinant = first * second - cross * back
    b[0, 0] = second / determinant
    b[0, 1] = -cross / determinant
    b[1, 0] = -back / determinant
    b[1, 1] = first / determinant


@kernel
def solve_groups(model, local, rhs_s, rhs_t, self_share):
    """:func:`apply_local` for G > 1."""
    groups = model.sizes.shape[0]
    square = groups * groups
    size = square + local.t.shape[1]
    if size <= DENSE_LIMIT:
        x = local.dense[size]
        for g in range(groups):
            for h in range(groups):
                x[g * groups + h] = rhs_s[g, h]
        for slot in range(local.t.shape[1]):
            x[square + slot] = rhs_t[slot]
        lu_solve(local.dense, size, local.swap, x)
        for g in range(groups):
            for h in range(groups):
                rhs_s[g, h] = x[g * groups + h]
        for slot in range(local.t.shape[1]):
            rhs_t[slot] = x[square + slot]
        return
    for g in range(groups):
        for h in range(groups):
            local.s[GIVEN, g, h] = rhs_s[g, h]
            rhs_s[g, h] = 0.0
        if model.slot[g] >= 0:
            local.t[GIVEN, model.slot[g]] = rhs_t[model.slot[g]]
            rhs_t[model.slot[g]] = 0.0
    for _ in range(200):
        split(model, rhs_s, rhs_t, local.own[PAIR + 1], local.other[PAIR + 1])
        for g in range(groups):
            local.own[PAIR + 1, g] *= -local.own[WEIGHT, g]
            for h in range(groups):
                local.other[PAIR + 1, g, h] *= -local.other[WEIGHT, g, h]
            local.own[PAIR + 1, g] = (
                self_share * local.own[PAIR + 1, g] + (1.0 - self_share) * local.other[PAIR + 1, g, g]
            )
        join(model, local.own[PAIR + 1], local.other[PAIR + 1], local.s[KERNEL], local.t[KERNEL])
        change = 0.0
        largest = 0.0
        for h in range(groups):
            slot = model.slot[h]
            size = groups
            for g in range(groups):
                value = local.s[GIVEN, g, h]
                for l in range(groups):
                    if l != h:
                        value -= local.s[KERNEL, g, l] * local.s[PAST, l, h]
                local.own[COLUMN, g] = value
            if slot >= 0:
                size = groups + 1
                local.own[COLUMN, groups] = local.t[GIVEN, slot]
            for g in range(size):
                value = 0.0
                for l in range(size):
                    value += local.inverse[h, g, l] * local.own[COLUMN, l]
                if g < groups:
                    change = max(change, abs(value - rhs_s[g, h]))
                    rhs_s[g, h] = value
                else:
                    rhs_t[slot] = value
                largest = max(largest, abs(value))
        if change <= 1e-13 * largest:
            break


@inlined
def apply_local(model, local, rhs_s, rhs_t, self_share):
    """Solve the local response equations for one right-hand side, in place."""
    groups = model.sizes.shape[0]
    if groups == 1:
        b = local.inverse[0]
        if model.slot[0] < 0:
            rhs_s[0, 0] *= b[0, 0]
        else:
            u = rhs_s[0, 0]
            w = rhs_t[0]
            rhs_s[0, 0] = b[0, 0] * u + b[0, 1] * w
            rhs_t[0] = b[1, 0] * u + b[1, 1] * w
        return
    solve_groups(model, local, rhs_s, rhs_t, self_share)


@inlined
def local_memory(model, local, a_t, a_s, r_s, r_t, own, other):
    """S_R(t, s) of a response given in modes; leaves R_d, R_o in ``own``, ``other``."""
    split(model, r_s, r_t, own, other)
    return residual_memory(model.sizes, a_t, a_s, local.own[H + 1], local.other[H + 1], own, other)


@inlined
def memory_modes(model, local, rho, c_r):
    """Memory kernel at one pair of times in modes, from the response left in pair 0 of ``local``."""
    groups = model.sizes.shape[0]
    for g in range(groups):
        local.own[PAIR + 1, g] = memory_element(
            local.other[COUPLING, g, g], rho, c_r, local.own[H + 1, g], local.own[H + 2, g], local.own[PAIR, g]
        )
        for h in range(groups):
            local.other[PAIR + 1, g, h] = memory_element(
                local.other[COUPLING, g, h],
                rho,
                c_r,
                local.other[H + 1, g, h],
                local.other[H + 2, g, h],
                local.other[PAIR, g, h],
            )
    join(model, local.own[PAIR + 1], local.other[PAIR + 1], local.s[KERNEL], local.t[KERNEL])


@inlined
def open_pair(model, local, work, k, a_t, a_s, c_r):
    """Load couplings, covariance derivatives and curvature weights of the pair (n, k)."""
    groups = model.sizes.shape[0]
    for g in range(groups):
        for h in range(groups):
            local.other[COUPLING, g, h] = model.alpha / model.width * a_t[g] * a_s[h]
            local.other[H + 1, g, h] = work.cov_other[1, k, g, h]
            local.other[H + 2, g, h] = work.cov_other[2, k, g, h]
            local.other[WEIGHT, g, h] = local.other[COUPLING, g, h] * c_r * work.cov_other[2, k, g, h]
        local.own[H + 1, g] = work.cov_own[1, k, g]
        local.own[H + 2, g] = work.cov_own[2, k, g]
        local.own[WEIGHT, g] = local.other[COUPLING, g, g] * c_r * work.cov_own[2, k, g]


@inlined
def mode_size(model, g, h):
    """sqrt(sizes[g] sizes[h]); 0 for a lone neuron with itself, whose kernel is all in X_d."""
    if g == h and model.slot[g] < 0:
        return 0.0
    return model.roots[g] * model.roots[h]


@inlined
def equal_time_matrix(model, local, a_loc, rho):
    """M = diag(A) + sqrt(sizes sizes) L_o,nn for the response left in ``local.other[PAIR]``."""
    groups = model.sizes.shape[0]
    for g in range(groups):
        for h in range(groups):
            local.s[MATRIX, g, h] = mode_size(model, g, h) * (
                rho * local.other[COUPLING, g, h] * local.other[H + 1, g, h]
                - local.other[WEIGHT, g, h] * local.other[PAIR, g, h]
            )
        local.s[MATRIX, g, g] += a_loc[g]


@kernel
def equal_time_response(model, local, a_now, a_loc, direction):
    """R_nn from M R_S = 1 with M = diag(A) + sqrt(sizes sizes) L_o,nn and R_A,nn = 1/(1 + S_R,nn), by Newton.

    Needs :func:`open_pair` at (n, n). Fills the DIAGONAL slots of ``local`` with R_nn and its derivative along
    ``direction`` in A, and ``local.s[MATRIX]`` with M. Returns R_A,nn, its derivative and whether Newton converged.
    """
    groups = model.sizes.shape[0]
    r_s = local.s[DIAGONAL]
    r_t = local.t[DIAGONAL]
    for g in range(groups):
        if model.slot[g] >= 0:
            r_t[model.slot[g]] = 1.0 / a_loc[g]
            local.t[DIAGONAL + 1, model.slot[g]] = -direction[g] / (a_loc[g] * a_loc[g])
    # Start below the root, R_A,nn = 1 and no curvature term: Newton then climbs monotonically.
    for g in range(groups):
        for h in range(groups):
            local.s[INVERSE, g, h] = 0.0
            if model.residual_sector:
                local.s[INVERSE, g, h] = mode_size(model, g, h) * local.other[COUPLING, g, h] * local.other[H + 1, g, h]
        local.s[INVERSE, g, g] += a_loc[g]
    invert(local.s[INVERSE], groups, local.swap)
    for g in range(groups):
        for h in range(groups):
            r_s[g, h] = local.s[INVERSE, g, h]
    converged = False
    rho = 0.0
    slope = 0.0
    for iteration in range(60):
        last = converged or iteration == 59
        s_r = local_memory(model, local, a_now, a_now, r_s, r_t, local.own[PAIR], local.other[PAIR])
        if model.residual_sector:
            rho = 1.0 / (1.0 + s_r)
        equal_time_matrix(model, local, a_loc, rho)
        # rhs 0: the defect of M R = 1, or on the last pass its derivative in A; rhs 1: per unit change of R_A,nn.
        largest = 0.0
        for g in range(groups):
            slot = model.slot[g]
            for h in range(groups):
                value = 1.0 if g == h else 0.0
                change = 0.0
                local.s[PAST, g, h] = r_s[g, h]
                for l in range(groups):
                    value -= local.s[MATRIX, g, l] * r_s[l, h]
                    change -= (
                        mode_size(model, g, l) * local.other[COUPLING, g, l] * local.other[H + 1, g, l] * r_s[l, h]
                    )
                largest = max(largest, abs(value))
                if last:
                    value = -direction[g] * r_s[g, h]
                    if slot >= 0:  # R_o,gg depends on R_T as well
                        value -= local.other[WEIGHT, g, g] * local.t[DIAGONAL + 1, slot] * r_s[g, h]
                local.s[RHS, g, h] = value
                local.s[RHS + 1, g, h] = change
            if slot >= 0:
                local.t[PAST, slot] = 0.0
                local.t[RHS, slot] = 0.0
                local.t[RHS + 1, slot] = 0.0
        factor_local(model, local, a_loc, 0.0)
        for column in range(2):
            apply_local(model, local, local.s[RHS + column], local.t[RHS + column], 0.0)
        slope = 0.0
        if model.residual_sector:
            if last:
                for g in range(groups):
                    if model.slot[g] >= 0:
                        local.t[RHS, model.slot[g]] = local.t[DIAGONAL + 1, model.slot[g]]
            free = 0.0
            fed = 0.0
            for column in range(2):
                free = fed
                fed = local_memory(
                    model,
                    local,
                    a_now,
                    a_now,
                    local.s[RHS + column],
                    local.t[RHS + column],
                    local.own[PAIR + 1],
                    local.other[PAIR + 1],
                )
            slope = -rho * rho * free / (1.0 + rho * rho * fed)
        for g in range(groups):
            for h in range(groups):
                change = local.s[RHS, g, h] + slope * local.s[RHS + 1, g, h]
                if last:
                    local.s[DIAGONAL + 1, g, h] = change
                else:
                    r_s[g, h] += change
        if last:
            break
        if largest < 1e-12:
            converged = True  # the step just taken squares the remaining error away
    return rho, slope, converged


@inlined
def memory_diagonal(model, local, rho, c_r, g):
    """L_d,nn - L_o,nn of group g (L_d,nn for a lone neuron) for the equal-time response in ``local.s[DIAGONAL]``."""
    split(model, local.s[DIAGONAL], local.t[DIAGONAL], local.own[PAIR], local.other[PAIR])
    return local.other[COUPLING, g, g] * (
        rho * (local.own[H + 1, g] - local.other[H + 1, g, g])
        - c_r * (local.own[H + 2, g] * local.own[PAIR, g] - local.other[H + 2, g, g] * local.other[PAIR, g, g])
    )


@inlined
def covariance_tables(model, work, k, c_s, c_t):
    """h, h', h'' at C_o(n, k) and C_d(n, k) from the guessed rows of C."""
    groups = model.sizes.shape[0]
    for g in range(groups):
        slot = model.slot[g]
        for h in range(groups):
            value = c_s[g, k * groups + h]
            if g != h:
                value /= model.roots[g] * model.roots[h]
            elif slot >= 0:
                value = (value - c_t[slot, k]) / model.sizes[g]
            else:
                continue
            h0, h1, h2 = covariance_derivatives(model.covariance, value)
            work.cov_other[0, k, g, h] = h0
            work.cov_other[1, k, g, h] = h1
            work.cov_other[2, k, g, h] = h2
        value = c_s[g, k * groups + g]
        if slot >= 0:
            value = (value - c_t[slot, k]) / model.sizes[g] + c_t[slot, k]
        else:
            for order in range(3):
                work.cov_other[order, k, g, g] = 0.0
        h0, h1, h2 = covariance_derivatives(model.covariance, value)
        work.cov_own[0, k, g] = h0
        work.cov_own[1, k, g] = h1
        work.cov_own[2, k, g] = h2


@entry
def response_sweep(model, tables, work, local, n, al, guess, loc):
    """Rows n of R, R_A, S_R and of the memory kernel, with their derivatives along ``work.vectors[DIRECTION]`` in A.

    (1 + S_R) o R_A = delta is used in the form R_A o (1 + S_R) = delta, so that R_A,nk and hence L_nk are linear in
    R_nk once every later k is known: k runs from n down to 0.
    """
    groups = model.sizes.shape[0]
    past = al.shape[0]
    for k in range(n + 1):
        covariance_tables(model, work, k, guess.c_s, guess.c_t)

    # Equal times.
    open_pair(model, local, work, n, guess.a, guess.a, guess.c_r[n])
    rho_nn, slope_nn, converged = equal_time_response(model, local, guess.a, loc, work.vectors[DIRECTION])
    if not converged:
        return False
    work.rows[R_A, n] = rho_nn
    work.rows[R_A + 1, n] = slope_nn
    work.rows[S_R, n] = 1.0 / rho_nn - 1.0 if model.residual_sector else 0.0
    for step in range(2):
        split(model, local.s[DIAGONAL + step], local.t[DIAGONAL + step], local.own[PAIR], local.other[PAIR])
        memory_modes(model, local, rho_nn if step == 0 else slope_nn, guess.c_r[n])
        for g in range(groups):
            slot = model.slot[g]
            if slot >= 0:
                work.rows_t[RESPONSE + step, slot, n] = local.t[DIAGONAL + step, slot]
                work.rows_t[MEMORY + step, slot, n] = local.t[KERNEL, slot]
            work.vectors[SELF_MEMORY + step, g] = local.own[PAIR + 1, g] - local.other[PAIR + 1, g, g]
            for h in range(groups):
                work.rows_s[RESPONSE + step, g, n * groups + h] = local.s[DIAGONAL + step, g, h]
                work.rows_s[MEMORY + step, g, n * groups + h] = local.s[KERNEL, g, h]
                local.s[MATRIX + step, g, h] = mode_size(model, g, h) * local.other[PAIR + 1, g, h]
            local.s[MATRIX + step, g, g] += loc[g] if step == 0 else work.vectors[DIRECTION, g]

    # Accumulators start with the multistep history of R.
    for step in range(2):
        for g in range(groups):
            for p in range(n * groups):
                work.rows_s[SUM + step, g, p] = 0.0
        for slot in range(work.rows_t.shape[1]):
            for k in range(n):
                work.rows_t[SUM + step, slot, k] = 0.0
        for k in range(n):
            work.rows[SUM_A + step, k] = 0.0
    for i in range(1, past):
        row = n - i
        for g in range(groups):
            add_multiple(work.rows_s[SUM, g], al[i], tables.r_s[row * groups + g], (row + 1) * groups)
        for slot in range(work.rows_t.shape[1]):
            add_multiple(work.rows_t[SUM, slot], al[i], tables.r_t[slot, row], row + 1)

    for k in range(n - 1, -1, -1):
        a_past = tables.a[k]
        c_r = guess.c_r[k]
        open_pair(model, local, work, k, guess.a, a_past, c_r)
        for g in range(groups):
            for h in range(groups):
                local.s[PAST, g, h] = tables.r_s[k * groups + g, k * groups + h]
            if model.slot[g] >= 0:
                local.t[PAST, model.slot[g]] = tables.r_t[model.slot[g], k, k]
        factor_local(model, local, loc, 1.0)
        # Superposition: response without R_A,nk (0), per unit of R_A,nk (1), and the derivative at fixed R_A,nk (2).
        rho = 0.0
        rho_slope = 0.0
        free = 0.0
        fed = 0.0
        denominator = 1.0
        for column in range(3):
            if column == 0:
                for g in range(groups):
                    for h in range(groups):
                        local.s[RHS, g, h] = -work.rows_s[SUM, g, k * groups + h]
                    if model.slot[g] >= 0:
                        local.t[RHS, model.slot[g]] = -work.rows_t[SUM, model.slot[g], k]
            elif column == 1:
                if not model.residual_sector:
                    continue
                for g in range(groups):
                    local.own[PAIR + 1, g] = local.other[COUPLING, g, g] * local.own[H + 1, g]
                    for h in range(groups):
                        local.other[PAIR + 1, g, h] = local.other[COUPLING, g, h] * local.other[H + 1, g, h]
                join(model, local.own[PAIR + 1], local.other[PAIR + 1], local.s[KERNEL], local.t[KERNEL])
                for g in range(groups):
                    for h in range(groups):
                        value = 0.0
                        for l in range(groups):
                            value -= local.s[KERNEL, g, l] * local.s[PAST, l, h]
                        local.s[RHS + 1, g, h] = value
                    if model.slot[g] >= 0:
                        slot = model.slot[g]
                        local.t[RHS + 1, slot] = -local.t[KERNEL, slot] * local.t[PAST, slot]
            else:
                if model.residual_sector:
                    denominator = 1.0 + tables.s_r[k, k] + rho_nn * fed
                    rho = -(work.rows[SUM_A, k] + rho_nn * free) / denominator
                    work.rows[S_R, k] = free + rho * fed
                    for g in range(groups):
                        for h in range(groups):
                            local.s[RHS, g, h] += rho * local.s[RHS + 1, g, h]
                        if model.slot[g] >= 0:
                            local.t[RHS, model.slot[g]] += rho * local.t[RHS + 1, model.slot[g]]
                for g in range(groups):
                    for h in range(groups):
                        value = -work.rows_s[SUM + 1, g, k * groups + h]
                        for l in range(groups):
                            value -= local.s[MATRIX + 1, g, l] * local.s[RHS, l, h]
                        local.s[RHS + 2, g, h] = value
                    if model.slot[g] >= 0:
                        slot = model.slot[g]
                        local.t[RHS + 2, slot] = (
                            -work.rows_t[SUM + 1, slot, k] - work.vectors[DIRECTION, g] * local.t[RHS, slot]
                        )
            apply_local(model, local, local.s[RHS + column], local.t[RHS + column], 1.0)
            if model.residual_sector:
                value = local_memory(
                    model,
                    local,
                    guess.a,
                    a_past,
                    local.s[RHS + column],
                    local.t[RHS + column],
                    local.own[PAIR],
                    local.other[PAIR],
                )
                if column == 0:
                    free = value
                elif column == 1:
                    fed = value
                else:
                    rho_slope = -(work.rows[SUM_A + 1, k] + slope_nn * work.rows[S_R, k] + rho_nn * value) / denominator
                    for g in range(groups):
                        for h in range(groups):
                            local.s[RHS + 2, g, h] += rho_slope * local.s[RHS + 1, g, h]
                        if model.slot[g] >= 0:
                            local.t[RHS + 2, model.slot[g]] += rho_slope * local.t[RHS + 1, model.slot[g]]
        work.rows[R_A, k] = rho
        work.rows[R_A + 1, k] = rho_slope
        for step in range(2):
            solution_s = local.s[RHS + 2 * step]
            solution_t = local.t[RHS + 2 * step]
            response = rho if step == 0 else rho_slope
            split(model, solution_s, solution_t, local.own[PAIR], local.other[PAIR])
            memory_modes(model, local, response, c_r)
            for g in range(groups):
                for h in range(groups):
                    work.rows_s[RESPONSE + step, g, k * groups + h] = solution_s[g, h]
                    work.rows_s[MEMORY + step, g, k * groups + h] = local.s[KERNEL, g, h]
                if model.slot[g] >= 0:
                    work.rows_t[RESPONSE + step, model.slot[g], k] = solution_t[model.slot[g]]
                    work.rows_t[MEMORY + step, model.slot[g], k] = local.t[KERNEL, model.slot[g]]
            # This k now acts on every earlier one.
            for l in range(groups):
                for g in range(groups):
                    add_multiple(
                        work.rows_s[SUM + step, g],
                        work.rows_s[MEMORY + step, g, k * groups + l],
                        tables.r_s[k * groups + l],
                        k * groups,
                    )
            for slot in range(work.rows_t.shape[1]):
                add_multiple(work.rows_t[SUM + step, slot], work.rows_t[MEMORY + step, slot, k], tables.r_t[slot, k], k)
            if model.residual_sector:
                add_multiple(work.rows[SUM_A + step], response, tables.s_r[k], k)
    return True


@kernel
def residual_row(model, tables, work, n, guess, overlap, out):
    """C_r = R_A o Q o R_A^T on row n: ``out`` (n + 1,)."""
    for k in range(n + 1):
        a_past = guess.a if k == n else tables.a[k]
        overlap_past = overlap if k == n else tables.overlap[k]
        work.rows[Q_ROW, k] = residual_covariance(
            model.sizes, model.offset, guess.a, a_past, overlap, overlap_past, work.cov_own[0, k], work.cov_other[0, k]
        )
    r_a = work.rows[R_A]
    for i in range(n):
        work.rows[Y_ROW, i] = dot(r_a, tables.q[i], n) + r_a[n] * work.rows[Q_ROW, i]
    work.rows[Y_ROW, n] = dot(r_a, work.rows[Q_ROW], n + 1)
    causal_product(work.rows[Y_ROW : Y_ROW + 1], tables.r_a, n, 1, work.rows[OUT_A : OUT_A + 1])
    for i in range(n):
        out[i] = work.rows[OUT_A, i]
    out[n] = dot(work.rows[Y_ROW], r_a, n + 1)


@inlined
def noise_modes(model, tables, work, local, n, k, a_now, c_r):
    """Noise kernel N_nk in modes, from the covariance tables, into the NOISE rows."""
    groups = model.sizes.shape[0]
    a_past = a_now if k == n else tables.a[k]
    for g in range(groups):
        factor = model.alpha / model.width * a_now[g]
        local.own[PAIR + 1, g] = noise_element(factor * a_past[g], c_r, work.cov_own[1, k, g])
        for h in range(groups):
            local.other[PAIR + 1, g, h] = noise_element(factor * a_past[h], c_r, work.cov_other[1, k, g, h])
    join(model, local.own[PAIR + 1], local.other[PAIR + 1], local.s[KERNEL], local.t[KERNEL])
    for g in range(groups):
        if model.slot[g] >= 0:
            work.rows_t[NOISE, model.slot[g], k] = local.t[KERNEL, model.slot[g]]
        for h in range(groups):
            work.rows_s[NOISE, g, k * groups + h] = local.s[KERNEL, g, h]


@kernel
def correlation_rows(model, tables, work, local, n, al, guess, image, loc, rho):
    """Rows j < n of C and the overlaps: M X_n = drive - multistep history - sum_{k<n} L X + sum_{k<=j} N R.

    N depends on the new row itself, and near marginality as strongly as M: j runs upwards, N_nk with k < j is taken at
    the new C_nk, and N_nj is linearised about the guess, which gives the local operator of the response equations
    with R_jj transposed.
    """
    groups = model.sizes.shape[0]
    latents = model.exponents.shape[1]
    past = al.shape[0]
    for g in range(groups):
        for h in range(groups):
            local.s[MATRIX, g, h] = work.rows_s[MEMORY, g, n * groups + h]
        local.s[MATRIX, g, g] += loc[g] - work.vectors[SELF_MEMORY, g]
        for h in range(groups):
            local.s[INVERSE, g, h] = local.s[MATRIX, g, h]
    invert(local.s[INVERSE], groups, local.swap)

    full_product(work.rows_s[MEMORY], tables.c_s, n * groups, work.rows_s[OUT])
    for g in range(groups):
        line = work.rows_s[OUT, g]
        for i in range(1, past):
            add_multiple(line, al[i], tables.c_s[(n - i) * groups + g], n * groups)
        slope = model.roots[g] * model.alpha * guess.a[g] * rho
        for i in range(latents):
            if local.gradient[g, i] != 0.0:
                for k in range(n):
                    for h in range(groups):
                        line[k * groups + h] -= slope * local.gradient[g, i] * tables.v[k, h, i]
        slot = model.slot[g]
        if slot >= 0:
            line = work.rows_t[OUT, slot]
            for q in range(n):
                line[q] = dot(work.rows_t[MEMORY, slot], tables.c_t[slot, q], n)
            for i in range(1, past):
                add_multiple(line, al[i], tables.c_t[slot, n - i], n)

    for j in range(n):
        a_past = tables.a[j]
        c_r = image.c_r[j]
        open_pair(model, local, work, j, guess.a, a_past, c_r)
        for g in range(groups):
            slot = model.slot[g]
            if slot >= 0:
                local.t[PAST, slot] = tables.r_t[slot, j, j]
            for h in range(groups):
                local.s[PAST, g, h] = tables.r_s[j * groups + h, j * groups + g]
        factor_local(model, local, loc, 1.0)
        # N_nj and its linear part at the guess.
        noise_modes(model, tables, work, local, n, j, guess.a, c_r)
        for g in range(groups):
            for h in range(groups):
                local.s[GIVEN, g, h] = guess.c_s[g, j * groups + h]
            if model.slot[g] >= 0:
                local.t[GIVEN, model.slot[g]] = guess.c_t[model.slot[g], j]
        split(model, local.s[GIVEN], local.t[GIVEN], local.own[PAIR], local.other[PAIR])
        for g in range(groups):
            local.own[PAIR, g] *= local.own[WEIGHT, g]
            for h in range(groups):
                local.other[PAIR, g, h] *= local.other[WEIGHT, g, h]
        join(model, local.own[PAIR], local.other[PAIR], local.s[KERNEL], local.t[KERNEL])
        for g in range(groups):
            slot = model.slot[g]
            for h in range(groups):
                value = dot(work.rows_s[NOISE, g], tables.r_s[j * groups + h], j * groups)
                for l in range(groups):
                    value += (work.rows_s[NOISE, g, j * groups + l] - local.s[KERNEL, g, l]) * local.s[PAST, l, h]
                local.s[RHS, g, h] = value - work.rows_s[OUT, g, j * groups + h]
            if slot >= 0:
                value = dot(work.rows_t[NOISE, slot], tables.r_t[slot, j], j)
                value += (work.rows_t[NOISE, slot, j] - local.t[KERNEL, slot]) * local.t[PAST, slot]
                local.t[RHS, slot] = value - work.rows_t[OUT, slot, j]
        apply_local(model, local, local.s[RHS], local.t[RHS], 1.0)
        for g in range(groups):
            for h in range(groups):
                image.c_s[g, j * groups + h] = local.s[RHS, g, h]
            if model.slot[g] >= 0:
                image.c_t[model.slot[g], j] = local.t[RHS, model.slot[g]]
        covariance_tables(model, work, j, image.c_s, image.c_t)
        noise_modes(model, tables, work, local, n, j, guess.a, c_r)

    for i in range(latents):
        for g in range(groups):
            value = model.roots[g] * model.alpha * guess.a[g] * rho * local.gradient[g, i]
            for step in range(1, past):
                value -= al[step] * tables.v[n - step, g, i]
            for k in range(n):
                for h in range(groups):
                    value -= work.rows_s[MEMORY, g, k * groups + h] * tables.v[k, h, i]
            local.own[COLUMN, g] = value
        for g in range(groups):
            value = 0.0
            for l in range(groups):
                value += local.s[INVERSE, g, l] * local.own[COLUMN, l]
            image.v[g, i] = value


@kernel
def newton_step(model, work, local, n, al, guess, loc, rho, rho_slope):
    """Correct A to the guessed C row, and the response rows with it, to first order.

    The equation for C(t_n, t_n) in the element of a neuron with itself, where C_d,nn = 1, reads A_g + E_g(A) = 0.
    E depends on A through the response rows, violently when marginal; their derivative along the common direction of
    A is at hand. Each group takes the slope of its own equation along that direction; exact for one group.
    """
    groups = model.sizes.shape[0]
    latents = model.exponents.shape[1]
    past = al.shape[0]
    length = n * groups
    mean = 0.0
    for g in range(groups):
        slot = model.slot[g]
        row = guess.c_s[g]
        total = dot(work.rows_s[MEMORY, g], row, length) - dot(
            work.rows_s[NOISE, g], work.rows_s[RESPONSE, g], length + groups
        )
        slope = dot(work.rows_s[MEMORY + 1, g], row, length) - dot(
            work.rows_s[NOISE, g], work.rows_s[RESPONSE + 1, g], length + groups
        )
        for step in range(1, past):
            total += al[step] * row[(n - step) * groups + g]
        drive = 0.0
        for i in range(latents):
            drive += local.gradient[g, i] * guess.v[g, i]
        drive *= model.roots[g] * model.alpha * guess.a[g]
        total -= drive * rho
        slope -= drive * rho_slope
        for l in range(groups):  # what L_nn C_nn adds to A C_d,nn = A
            coupling = work.rows_s[MEMORY, g, length + l]
            coupling_slope = work.rows_s[MEMORY + 1, g, length + l]
            if l == g:
                coupling -= work.vectors[SELF_MEMORY, g]
                coupling_slope -= work.vectors[SELF_SLOPE, g]
            total += coupling * row[length + l]
            slope += coupling_slope * row[length + l]
        if slot >= 0:
            others = model.sizes[g] - 1.0
            row = guess.c_t[slot]
            value = dot(work.rows_t[MEMORY, slot], row, n) - dot(
                work.rows_t[NOISE, slot], work.rows_t[RESPONSE, slot], n + 1
            )
            for step in range(1, past):
                value += al[step] * row[n - step]
            total = (total + others * value) / model.sizes[g]
            value = dot(work.rows_t[MEMORY + 1, slot], row, n) - dot(
                work.rows_t[NOISE, slot], work.rows_t[RESPONSE + 1, slot], n + 1
            )
            slope = (slope + others * value) / model.sizes[g]
        shift = -(loc[g] + total) / (1.0 + slope)
        bound = 0.3 * loc[g]
        if not abs(shift) <= bound:  # far from the solution: at most a moderate step, downhill in the defect
            shift = -bound if loc[g] + total > 0.0 else bound
        local.own[TRIAL, g] = shift
        mean += shift / groups
    for g in range(groups):
        loc[g] += local.own[TRIAL, g]
        for p in range(length + groups):
            work.rows_s[RESPONSE, g, p] += mean * work.rows_s[RESPONSE + 1, g, p]
            work.rows_s[MEMORY, g, p] += mean * work.rows_s[MEMORY + 1, g, p]
        work.vectors[SELF_MEMORY, g] += mean * work.vectors[SELF_SLOPE, g]
        work.vectors[NU, g] = loc[g] - al[0] - work.vectors[SELF_MEMORY, g]
    for slot in range(work.rows_t.shape[1]):
        for k in range(n + 1):
            work.rows_t[RESPONSE, slot, k] += mean * work.rows_t[RESPONSE + 1, slot, k]
            work.rows_t[MEMORY, slot, k] += mean * work.rows_t[MEMORY + 1, slot, k]
    for k in range(n + 1):
        work.rows[R_A, k] += mean * work.rows[R_A + 1, k]


@kernel
def equal_time_rows(model, work, local, n, al, guess, image, rho):
    """C_nn from its own equation; C_d,nn = 1 fixes the T modes."""
    groups = model.sizes.shape[0]
    latents = model.exponents.shape[1]
    length = n * groups
    for g in range(groups):
        for h in range(groups):
            row = image.c_s[h]
            value = dot(work.rows_s[NOISE, g], work.rows_s[RESPONSE, h], length + groups) - dot(
                work.rows_s[MEMORY, g], row, length
            )
            for step in range(1, al.shape[0]):
                value -= al[step] * row[(n - step) * groups + g]
            drive = 0.0
            for i in range(latents):
                drive += local.gradient[g, i] * guess.v[h, i]
            local.s[EQUAL, g, h] = value + drive * model.roots[g] * model.alpha * guess.a[g] * rho
    for h in range(groups):
        for g in range(groups):
            value = 0.0
            for l in range(groups):
                value += local.s[INVERSE, g, l] * local.s[EQUAL, l, h]
            image.c_s[g, length + h] = value
    for g in range(groups):  # symmetric at the fixed point; so must the guess be
        for h in range(g):
            value = 0.5 * (image.c_s[g, length + h] + image.c_s[h, length + g])
            image.c_s[g, length + h] = value
            image.c_s[h, length + g] = value
        slot = model.slot[g]
        if slot < 0:
            image.c_s[g, length + g] = 1.0
        else:
            image.c_t[slot, n] = (model.sizes[g] - image.c_s[g, length + g]) / (model.sizes[g] - 1.0)


@kernel
def second_layer(model, tables, work, local, n, al, guess, image, rho):
    """al_0 a_n + (multistep history) = force on a; the part proportional to a_n is taken implicitly."""
    groups = model.sizes.shape[0]
    if not model.train_second_layer:
        for g in range(groups):
            image.a[g] = tables.a[n - 1, g]
        return
    for g in range(groups):
        value = model.alpha * rho * local.own[OVERLAP, g]
        for step in range(1, al.shape[0]):
            value -= al[step] * tables.a[n - step, g]
        local.own[COLUMN, g] = value
    for k in range(n + 1):
        for g in range(groups):
            for h in range(groups):
                local.s[KERNEL, g, h] = work.rows_s[RESPONSE, g, k * groups + h]
            if model.slot[g] >= 0:
                local.t[KERNEL, model.slot[g]] = work.rows_t[RESPONSE, model.slot[g], k]
        split(model, local.s[KERNEL], local.t[KERNEL], local.own[PAIR], local.other[PAIR])
        for g in range(groups):
            own = image.c_r[k] * work.cov_own[1, k, g] * local.own[PAIR, g] - work.rows[R_A, k] * work.cov_own[0, k, g]
            for h in range(groups):
                local.own[VALUES, h] = (
                    image.c_r[k] * work.cov_other[1, k, g, h] * local.other[PAIR, g, h]
                    - work.rows[R_A, k] * work.cov_other[0, k, g, h]
                )
            if k < n:
                local.own[COLUMN, g] += model.alpha * output_field(model.sizes, g, tables.a[k], own, local.own[VALUES])
            else:
                for h in range(groups):
                    share = model.sizes[h] * local.own[VALUES, h]
                    if h == g:
                        share = own + (model.sizes[g] - 1.0) * local.own[VALUES, g]
                    local.s[GIVEN, g, h] = -model.alpha / model.width * share
                local.s[GIVEN, g, g] += al[0]
    invert(local.s[GIVEN], groups, local.swap)
    for g in range(groups):
        value = 0.0
        for h in range(groups):
            value += local.s[GIVEN, g, h] * local.own[COLUMN, h]
        image.a[g] = value


class Acceleration(NamedTuple):
    """Memory of the accelerator, see :func:`solvers.accelerate.anderson_update`."""

    scale: np.ndarray
    x_steps: np.ndarray
    f_steps: np.ndarray
    x_last: np.ndarray
    f_last: np.ndarray
    gram: np.ndarray
    normal: np.ndarray
    mixed: np.ndarray
    order: np.ndarray


@entry
def update_row(model, tables, work, local, memory, n, al, guess, image, loc):
    """Everything after the response sweep: image of the guess, and A. Returns the scaled change, and that of C_r."""
    groups = model.sizes.shape[0]
    latents = model.exponents.shape[1]
    for g in range(groups):
        for i in range(latents):
            local.latent[i] = guess.v[g, i] / model.roots[g]
        local.own[OVERLAP, g] = overlap_and_gradient(
            model.exponents, model.coefficients, local.latent, local.gradient[g]
        )
        local.own[PREVIOUS, g] = loc[g]
    rho = 0.0
    rho_slope = 0.0
    for k in range(n + 1):
        rho += work.rows[R_A, k]
        rho_slope += work.rows[R_A + 1, k]
        noise_modes(model, tables, work, local, n, k, guess.a, guess.c_r[k])
    newton_step(model, work, local, n, al, guess, loc, rho, rho_slope)
    if model.residual_sector:
        rho = 0.0
        for k in range(n + 1):
            rho += work.rows[R_A, k]
        residual_row(model, tables, work, n, guess, local.own[OVERLAP], image.c_r)
        noise_modes(model, tables, work, local, n, n, guess.a, image.c_r[n])
    else:
        for k in range(n + 1):
            image.c_r[k] = 1.0
    correlation_rows(model, tables, work, local, n, al, guess, image, loc, rho)
    equal_time_rows(model, work, local, n, al, guess, image, rho)
    second_layer(model, tables, work, local, n, al, guess, image, rho)
    change = 0.0
    for g in range(groups):
        change = max(change, LOC_WEIGHT * abs(loc[g] - local.own[PREVIOUS, g]) / loc[g])
    residual_change = 0.0
    first = guess.c_s.size + guess.c_t.size
    for p in range(guess.flat.shape[0]):
        value = abs(image.flat[p] - guess.flat[p]) * memory.scale[p]
        if not np.isfinite(value):  # at once: the next finite value would hide it
            return np.inf, np.inf
        if first <= p <= first + n:
            residual_change = max(residual_change, value)
        else:
            change = max(change, value)
    return change, residual_change


def solve_row(model, tables, work, local, memory, n, al, guess, image, loc, limits, max_iterations):
    """Iterate row n from ``guess`` to a fixed point: a change ``limits[0]``, after a while ``[1]``, at last ``[2]``.

    Each is a pair: the change of C, a, v and A, and the change of C_r, both scaled.
    Returns (converged, iterations, last change); on success ``image`` and ``work`` hold the row of every function.
    The loop itself is not compiled: three calls an iteration cost little, compiling it twice would cost seconds.
    """
    change = np.inf
    for iteration in range(max_iterations):
        if not np.all(loc > 0.0) or not response_sweep(model, tables, work, local, n, al, guess, loc):
            return False, iteration, np.inf
        mixed = guess.loc.size
        guess.loc[:] = image.loc[:] = loc[:mixed]
        rest, residual = update_row(model, tables, work, local, memory, n, al, guess, image, loc)
        change = max(rest, residual)
        image.loc[:] = loc[:mixed]
        if not np.isfinite(change):
            return False, iteration + 1, change
        limit = limits[0 if iteration < PATIENCE else 1 if iteration < LAST_PATIENCE else 2]
        if rest <= limit[0] and residual <= limit[1]:
            return True, iteration + 1, change
        anderson_update(
            guess.flat,
            image.flat,
            memory.scale,
            iteration,
            memory.x_steps,
            memory.f_steps,
            memory.x_last,
            memory.f_last,
            memory.gram,
            memory.mixed,
            memory.normal,
            memory.order,
        )
        if mixed:
            loc[:] = np.where(guess.loc > 0.0, guess.loc, image.loc)
    return False, max_iterations, change


SECTIONS = 24
"""Golden sections in ln A: a bracket of e^28 shrinks to e^0.0003, and the minimum is known to its square."""


@entry
def prepare_row(model, work, local, n, al0, guess, loc, nu):
    """A on row n from a prediction of nu, into ``loc``, and the growth rate of the most unstable bulk mode.

    A is the larger root of A = al_0 + nu + L_loc,nn(A), approached from above. The bulk of the local Hessian starts
    at ``nu - min_A [A - L_loc,nn(A)]``; its negative is returned (the largest over the groups), positive while the
    flow still descends along bulk directions and falling to zero at marginal stability. Golden-section search in ln A,
    with everything but A frozen at the guess. One compiled function for both: they share the equal-time equation.
    """
    groups = model.sizes.shape[0]
    covariance_tables(model, work, n, guess.c_s, guess.c_t)
    open_pair(model, local, work, n, guess.a, guess.a, guess.c_r[n])
    trial = local.own[TRIAL]
    fastest = -np.inf
    ratio = 0.6180339887498949
    for g in range(-1, groups):  # -1: the root, for all groups together; g >= 0: the edge of group g
        low = 0.0
        high = 0.0
        f1 = np.inf
        f2 = np.inf
        lower = np.inf
        side = 0  # two points, then one new one for each shrinking of the bracket
        if g >= 0:
            # A - L is smallest near sqrt(weight), or near the direct coupling: both are rates, in any unit of time.
            scale = np.sqrt(local.own[WEIGHT, g]) + abs(local.other[COUPLING, g, g] * local.own[H + 1, g])
            if not scale > 0.0:
                continue
            low = np.log(scale) - 14.0
            high = np.log(scale) + 14.0
        x = high - ratio * (high - low)
        for h in range(groups):  # above the root: R_A,nn <= 1, and the curvature only lowers L
            trial[h] = al0 + max(nu[h], 0.0)
            trial[h] += local.other[COUPLING, h, h] * abs(local.own[H + 1, h] - local.other[H + 1, h, h])
        for step in range(100 if g < 0 else SECTIONS):
            if g >= 0:
                for h in range(groups):
                    trial[h] = np.exp(x)
            rho, _, converged = equal_time_response(model, local, guess.a, trial, work.vectors[DIRECTION])
            if g < 0:
                change = 0.0
                for h in range(groups):
                    value = al0 + nu[h] + memory_diagonal(model, local, rho, guess.c_r[n], h)
                    if not value > 0.5 * trial[h]:
                        value = 0.5 * trial[h]
                    change = max(change, abs(value / trial[h] - 1.0))
                    local.own[COLUMN, h] = value
                for h in range(groups):
                    trial[h] = local.own[COLUMN, h]
                    loc[h] = trial[h]
                if change < 1e-10:
                    break
                continue
            value = trial[g] - memory_diagonal(model, local, rho, guess.c_r[n], g) if converged else np.inf
            lower = min(lower, value)
            if side == 0:
                f1 = value
            else:
                f2 = value
            if step == 0:
                side = 1
            elif f1 < f2:
                high = low + ratio * (high - low)
                f2 = f1
                side = 0
            else:
                low = high - ratio * (high - low)
                f1 = f2
                side = 1
            x = high - ratio * (high - low) if side == 0 else low + ratio * (high - low)
        if g >= 0:
            fastest = max(fastest, lower - nu[g])
            # The larger root lies above the minimum; where the predicted nu leaves none, the minimum is nearest to it.
            loc[g] = max(loc[g], np.exp(x))
    return fastest

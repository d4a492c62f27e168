"""One row of the exact DMFT of gradient descent with momentum and minibatches, in the group form.

The process is w~ = (1 + beta lam_n) w_n - beta w_{n-1} + Delta F_n, lam_{n+1} = |w~|, w_{n+1} = w~/lam_{n+1}: heavy
ball with normalised rows, whose velocity is (lam_n w_n - w_{n-1})/Delta. Its force on any vector x is

    <F_n, x> = drive.x - sum_{k<=n} L_nk <w_k, x> + sum_{k<=n} N_nk R_xk ,

explicit in rows up to n: R_nk carries the step, R_nn = 0, and R_A = (1 + S_R)^{-1} has a unit diagonal. With x = w_j
this is the next row of C, with x = w~ its norm. For minibatches the correlation V of the weighted residuals takes the
place of C_r.

Two-time tables are packed lower triangles over pairs p = time * G + group: element (p, q) is at p (p + 1)/2 + q. Each
is read once a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dmft._jit import entry, inlined, kernel, summation
from dmft.equations import (
    covariance_derivatives,
    memory_element,
    noise_element,
    output_field,
    overlap_and_gradient,
    residual_covariance,
    residual_memory,
)
from solvers.causal import dot
from solvers.row import join, split


class Tables(NamedTuple):
    """Rows so far, N at most. Two-time functions are packed lower triangles."""

    a: np.ndarray  # (N, G)
    v: np.ndarray  # (N, G, k) scaled overlaps sqrt(sizes[g]) v_g
    overlap: np.ndarray  # (N, G) phihat(v_g)
    lam: np.ndarray  # (N, G) norm of w~ in the update that leaves the row
    errors: np.ndarray  # (N, 2) E[r^2] and Q(t, t)
    own_s: np.ndarray  # (N, K) S_R between the updates of one epoch, K of them, by place in the epoch
    own_g: np.ndarray  # (N, K) E[r'_n r'_k] likewise
    r_a: np.ndarray  # (N (N + 1)/2,)
    v_r: np.ndarray  # (N (N + 1)/2,) V, correlation of the weighted residuals
    c_s: np.ndarray  # (N G (N G + 1)/2,)
    r_s: np.ndarray  # (N G (N G + 1)/2,) causal
    c_t: np.ndarray  # (GT, N (N + 1)/2)
    r_t: np.ndarray  # (GT, N (N + 1)/2) causal


class Merged(NamedTuple):
    """R at equal times in the rows that thinning has left, M of them: what dropped updates did to the row itself."""

    s: np.ndarray  # (M, G, G)
    t: np.ndarray  # (GT, M, 1, 1)


class Work(NamedTuple):
    """The row under construction. The first index of a ``rows`` array is one of the names below."""

    rows_s: np.ndarray  # (9, G, (N + 1) G)
    rows_t: np.ndarray  # (9, GT, 1, N + 1)
    rows: np.ndarray  # (6, 1, N + 1) functions of the residual sector
    cov_own: np.ndarray  # (4, N, G) h, h', h'' at C_d(n, k); R_d(n, k)
    cov_other: np.ndarray  # (4, N, G, G) the same of two different neurons
    a: np.ndarray  # (G,) next row
    v: np.ndarray  # (G, k) next row


# Rows in modes: rows n and n - 1, the next row, kernels and what they are multiplied to.
C_NOW, C_BEFORE, C_NEXT, R_NEXT, MEMORY, NOISE, LC, NR, LR = 0, 1, 2, 3, 4, 5, 6, 7, 8
# Rows of the residual sector.
Q_ROW, S_R, QP, R_A, V_ROW, SV = 0, 1, 2, 3, 4, 5


class Local(NamedTuple):
    """Small arrays for the equations at one pair of times."""

    s: np.ndarray  # (2, G, G)
    t: np.ndarray  # (2, GT)
    own: np.ndarray  # (4, G)
    other: np.ndarray  # (4, G, G)
    gradient: np.ndarray  # (G, k)
    latent: np.ndarray  # (k,)
    factor: np.ndarray  # (G,) 1 + beta lam_n
    size: np.ndarray  # (1,) of the terms of E[r_n^2]


@inlined
def triangle(p):
    """Place of element (p, 0) in a packed lower triangle."""
    return p * (p + 1) // 2


@summation
def symmetric_product(x, table, length, out):
    """out[g, p] = sum_{q < length} x[g, q] M[q, p] of a symmetric matrix."""
    rows = x.shape[0]
    for g in range(rows):
        for p in range(length):
            out[g, p] = 0.0
    for q in range(length):
        start = q * (q + 1) // 2
        for g in range(rows):
            xq = x[g, q]
            total = 0.0
            for p in range(q):
                total += x[g, p] * table[start + p]
                out[g, p] += xq * table[start + p]
            out[g, q] += total + xq * table[start + q]


@summation
def causal_products(left, right, table, length, width, diagonal, sums, dots):
    """sums[g, p] = sum_q left[g, q] M[q, p] and dots[g, q] = sum_p right[g, p] M[q, p] of a causal matrix.

    ``diagonal`` is 1 where M has a diagonal (then ``width`` = 1), 0 where its equal-time blocks of ``width`` vanish.
    """
    rows = left.shape[0]
    for g in range(rows):
        for p in range(length):
            sums[g, p] = 0.0
    for q in range(length):
        start = q * (q + 1) // 2
        end = (q // width) * width + diagonal
        for g in range(rows):
            xq = left[g, q]
            total = 0.0
            for p in range(end):
                total += right[g, p] * table[start + p]
                sums[g, p] += xq * table[start + p]
            dots[g, q] = total


@kernel
def equal_time_products(left, right, now, sums, dots):
    """Add to the result of `causal_products` what blocks (k, k) give, of which the first are known."""
    width = now.shape[1]
    for k in range(now.shape[0]):
        for g in range(left.shape[0]):
            for i in range(width):
                for j in range(width):
                    sums[g, k * width + j] += left[g, k * width + i] * now[k, i, j]
                    dots[g, k * width + i] += right[g, k * width + j] * now[k, i, j]


@inlined
def symmetric_row(table, p, length, out):
    """Row p of a symmetric matrix, q < length, into ``out``."""
    start = triangle(p)
    for q in range(min(p + 1, length)):
        out[q] = table[start + q]
    for q in range(p + 1, length):
        out[q] = table[triangle(q) + p]


@kernel
def covariance_rows(model, tables, work, local, n):
    """h, h', h'' and R at (n, k), k <= n, and from them the rows of Q and S_R."""
    groups = model.sizes.shape[0]
    modes = tables.c_t.shape[0]
    for g in range(groups):
        symmetric_row(tables.c_s, n * groups + g, (n + 1) * groups, work.rows_s[C_NOW, g])
        if n > 0:
            symmetric_row(tables.c_s, (n - 1) * groups + g, (n + 1) * groups, work.rows_s[C_BEFORE, g])
    for slot in range(modes):
        symmetric_row(tables.c_t[slot], n, n + 1, work.rows_t[C_NOW, slot, 0])
        if n > 0:
            symmetric_row(tables.c_t[slot], n - 1, n + 1, work.rows_t[C_BEFORE, slot, 0])
    for g in range(groups):
        for i in range(local.latent.shape[0]):
            local.latent[i] = tables.v[n, g, i] / model.roots[g]
        tables.overlap[n, g] = overlap_and_gradient(
            model.exponents, model.coefficients, local.latent, local.gradient[g]
        )
    for k in range(n + 1):
        for g in range(groups):
            for h in range(groups):
                local.s[0, g, h] = work.rows_s[C_NOW, g, k * groups + h]
                local.s[1, g, h] = tables.r_s[triangle(n * groups + g) + k * groups + h] if k < n else 0.0
        for slot in range(modes):
            local.t[0, slot] = work.rows_t[C_NOW, slot, 0, k]
            local.t[1, slot] = tables.r_t[slot, triangle(n) + k] if k < n else 0.0
        split(model, local.s[0], local.t[0], local.own[0], local.other[0])
        split(model, local.s[1], local.t[1], work.cov_own[3, k], work.cov_other[3, k])
        for g in range(groups):
            h0, h1, h2 = covariance_derivatives(model.covariance, local.own[0, g])
            work.cov_own[0, k, g] = h0
            work.cov_own[1, k, g] = h1
            work.cov_own[2, k, g] = h2
            for h in range(groups):
                h0, h1, h2 = covariance_derivatives(model.covariance, local.other[0, g, h])
                work.cov_other[0, k, g, h] = h0
                work.cov_other[1, k, g, h] = h1
                work.cov_other[2, k, g, h] = h2
        work.rows[Q_ROW, 0, k] = residual_covariance(
            model.sizes,
            model.offset,
            tables.a[n],
            tables.a[k],
            tables.overlap[n],
            tables.overlap[k],
            work.cov_own[0, k],
            work.cov_other[0, k],
        )
        work.rows[S_R, 0, k] = residual_memory(
            model.sizes,
            tables.a[n],
            tables.a[k],
            work.cov_own[1, k],
            work.cov_other[1, k],
            work.cov_own[3, k],
            work.cov_other[3, k],
        )


@kernel
def residual_rows(tables, work, local, n, batch_fraction):
    """Rows of R_A and V, stored as row n; (sum_k |R_A,nk| sqrt(Q_kk))^2, the size of what E[r_n^2] is summed from.

    A batch is of samples that the epoch has not used, so that their residual is r', which the updates of the own epoch
    have not moved: with S cut there, R_A = (1 + S)^{-1} and E[r'_n r'_k] = (Q R_A^T)_nk - sum_{l<n} S_nl V_lk. That is
    V_nk when k is in an earlier epoch, b V_nn for k = n, and V_nk = 0 in between. Then r_n = r'_n - sum_{l<n} S_nl r~_l
    over the own epoch gives E[r_n^2]. Batches drawn afresh are epochs of one update.
    """
    memory = work.rows[S_R, 0]
    first = n - n % tables.own_s.shape[1]
    for k in range(first, n):
        tables.own_s[n, k - first] = memory[k]
        memory[k] = 0.0
    causal_products(work.rows[S_R], work.rows[Q_ROW], tables.r_a, n, 1, 1, work.rows[R_A], work.rows[QP])
    symmetric_product(work.rows[S_R], tables.v_r, n, work.rows[SV])
    start = triangle(n)
    square = work.rows[Q_ROW, 0, n]
    size = np.sqrt(abs(square))
    for k in range(n):
        r_a = -work.rows[R_A, 0, k]
        v_r = work.rows[QP, 0, k] - work.rows[SV, 0, k]
        if k >= first:
            tables.own_g[n, k - first] = v_r
            r_a = 0.0
            v_r = 0.0
        work.rows[R_A, 0, k] = r_a
        work.rows[V_ROW, 0, k] = v_r
        tables.r_a[start + k] = r_a
        tables.v_r[start + k] = v_r
        square += work.rows[Q_ROW, 0, k] * r_a - memory[k] * v_r
        size += abs(r_a) * np.sqrt(abs(tables.errors[k, 1]))
    work.rows[R_A, 0, n] = 1.0
    work.rows[V_ROW, 0, n] = square / batch_fraction
    tables.r_a[start + n] = 1.0
    tables.v_r[start + n] = square / batch_fraction
    tables.own_g[n, n - first] = square
    for k in range(first, n):
        seen = tables.own_s[n, k - first]
        square += seen * (seen * tables.v_r[triangle(k) + k] - 2.0 * tables.own_g[n, k - first])
    local.size[0] = size * size
    tables.errors[n, 0] = square
    tables.errors[n, 1] = work.rows[Q_ROW, 0, n]


@kernel
def force_rows(model, tables, work, local, n):
    """Rows of L and N in modes, and the force on a, into ``work.a``."""
    groups = model.sizes.shape[0]
    modes = tables.c_t.shape[0]
    rho = 0.0
    for k in range(n + 1):
        rho += work.rows[R_A, 0, k]
    for g in range(groups):
        work.a[g] = rho * tables.overlap[n, g]
    for k in range(n + 1):
        r_a = work.rows[R_A, 0, k]
        v_r = work.rows[V_ROW, 0, k]
        for g in range(groups):
            factor = model.alpha / model.width * tables.a[n, g]
            c = factor * tables.a[k, g]
            dh = work.cov_own[1, k, g]
            response = work.cov_own[3, k, g]
            local.own[0, g] = memory_element(c, r_a, v_r, dh, work.cov_own[2, k, g], response)
            local.own[1, g] = noise_element(c, v_r, dh)
            local.own[2, g] = dh * response
            for h in range(groups):
                c = factor * tables.a[k, h]
                dh = work.cov_other[1, k, g, h]
                response = work.cov_other[3, k, g, h]
                local.other[0, g, h] = memory_element(c, r_a, v_r, dh, work.cov_other[2, k, g, h], response)
                local.other[1, g, h] = noise_element(c, v_r, dh)
                local.other[2, g, h] = dh * response
        for g in range(groups):
            mean = output_field(model.sizes, g, tables.a[k], work.cov_own[0, k, g], work.cov_other[0, k, g])
            moved = output_field(model.sizes, g, tables.a[k], local.own[2, g], local.other[2, g])
            work.a[g] += v_r * moved - r_a * mean
        for kind in range(2):
            join(model, local.own[kind], local.other[kind], local.s[0], local.t[0])
            for g in range(groups):
                for h in range(groups):
                    work.rows_s[MEMORY + kind, g, k * groups + h] = local.s[0, g, h]
            for slot in range(modes):
                work.rows_t[MEMORY + kind, slot, 0, k] = local.t[0, slot]
    return rho


@kernel
def next_rows(model, tables, work, local, merged, n, step, beta, rho):
    """The rows of w~ of C, R and V, and its norm; then all divided by that norm."""
    groups = model.sizes.shape[0]
    modes = tables.c_t.shape[0]
    latents = local.latent.shape[0]
    width = (n + 1) * groups
    symmetric_product(work.rows_s[MEMORY], tables.c_s, width, work.rows_s[LC])
    causal_products(
        work.rows_s[MEMORY], work.rows_s[NOISE], tables.r_s, width, groups, 0, work.rows_s[LR], work.rows_s[NR]
    )
    equal_time_products(work.rows_s[MEMORY], work.rows_s[NOISE], merged.s, work.rows_s[LR], work.rows_s[NR])
    for slot in range(modes):
        symmetric_product(work.rows_t[MEMORY, slot], tables.c_t[slot], n + 1, work.rows_t[LC, slot])
        causal_products(
            work.rows_t[MEMORY, slot],
            work.rows_t[NOISE, slot],
            tables.r_t[slot],
            n + 1,
            1,
            0,
            work.rows_t[LR, slot],
            work.rows_t[NR, slot],
        )
        equal_time_products(
            work.rows_t[MEMORY, slot],
            work.rows_t[NOISE, slot],
            merged.t[slot],
            work.rows_t[LR, slot],
            work.rows_t[NR, slot],
        )
    now = triangle(n)
    before = triangle(n - 1)
    for g in range(groups):
        factor = local.factor[g]
        drive = model.roots[g] * model.alpha * tables.a[n, g] * rho
        c_now = work.rows_s[C_NOW, g]
        c_before = work.rows_s[C_BEFORE, g]
        c_next = work.rows_s[C_NEXT, g]
        r_next = work.rows_s[R_NEXT, g]
        r_now = triangle(n * groups + g)
        r_before = triangle((n - 1) * groups + g)
        for q in range(width):
            force = work.rows_s[NR, g, q] - work.rows_s[LC, g, q]
            for i in range(latents):
                force += drive * local.gradient[g, i] * tables.v[q // groups, q % groups, i]
            c_next[q] = factor * c_now[q] + step * force
            r_next[q] = -step * work.rows_s[LR, g, q]
        for q in range(n * groups):
            r_next[q] += factor * tables.r_s[r_now + q]
        if beta != 0.0:
            for q in range(width):
                c_next[q] -= beta * c_before[q]
            for q in range((n - 1) * groups):
                r_next[q] -= beta * tables.r_s[r_before + q]
        r_next[n * groups + g] += step
        for i in range(latents):
            value = drive * local.gradient[g, i]
            for q in range(width):
                value -= work.rows_s[MEMORY, g, q] * tables.v[q // groups, q % groups, i]
            value = factor * tables.v[n, g, i] + step * value
            if beta != 0.0:
                value -= beta * tables.v[n - 1, g, i]
            work.v[g, i] = value
        slot = model.slot[g]
        if slot >= 0:
            for q in range(n + 1):
                force = work.rows_t[NR, slot, 0, q] - work.rows_t[LC, slot, 0, q]
                work.rows_t[C_NEXT, slot, 0, q] = factor * work.rows_t[C_NOW, slot, 0, q] + step * force
                work.rows_t[R_NEXT, slot, 0, q] = -step * work.rows_t[LR, slot, 0, q]
            for q in range(n):
                work.rows_t[R_NEXT, slot, 0, q] += factor * tables.r_t[slot, now + q]
            if beta != 0.0:
                for q in range(n + 1):
                    work.rows_t[C_NEXT, slot, 0, q] -= beta * work.rows_t[C_BEFORE, slot, 0, q]
                for q in range(n - 1):
                    work.rows_t[R_NEXT, slot, 0, q] -= beta * tables.r_t[slot, before + q]
            work.rows_t[R_NEXT, slot, 0, n] += step

    # <w~, w~>, from the force on w~ itself: <w~_g, x> of x = w~_h reads the rows of h.
    for g in range(groups):
        drive = model.roots[g] * model.alpha * tables.a[n, g] * rho
        for h in range(groups):
            c_next = work.rows_s[C_NEXT, h]
            force = dot(work.rows_s[NOISE, g], work.rows_s[R_NEXT, h], width)
            force -= dot(work.rows_s[MEMORY, g], c_next, width)
            for i in range(latents):
                force += drive * local.gradient[g, i] * work.v[h, i]
            value = local.factor[g] * c_next[n * groups + g] + step * force
            if beta != 0.0:
                value -= beta * c_next[(n - 1) * groups + g]
            local.s[0, g, h] = value
        slot = model.slot[g]
        if slot >= 0:
            c_row = work.rows_t[C_NEXT, slot, 0]
            force = dot(work.rows_t[NOISE, slot, 0], work.rows_t[R_NEXT, slot, 0], n + 1)
            force -= dot(work.rows_t[MEMORY, slot, 0], c_row, n + 1)
            value = local.factor[g] * c_row[n] + step * force
            if beta != 0.0:
                value -= beta * c_row[n - 1]
            local.t[0, slot] = value
    split(model, local.s[0], local.t[0], local.own[0], local.other[0])
    for g in range(groups):
        tables.lam[n, g] = np.sqrt(local.own[0, g])
    for g in range(groups):
        scale = 1.0 / tables.lam[n, g]
        for q in range(width):
            work.rows_s[C_NEXT, g, q] *= scale
            work.rows_s[R_NEXT, g, q] *= scale
        for h in range(groups):
            product = 0.5 * (local.s[0, g, h] + local.s[0, h, g])
            work.rows_s[C_NEXT, g, width + h] = product / (tables.lam[n, g] * tables.lam[n, h])
            work.rows_s[R_NEXT, g, width + h] = 0.0
        for i in range(latents):
            work.v[g, i] *= scale
        slot = model.slot[g]
        if slot >= 0:
            for q in range(n + 1):
                work.rows_t[C_NEXT, slot, 0, q] *= scale
                work.rows_t[R_NEXT, slot, 0, q] *= scale
            work.rows_t[C_NEXT, slot, 0, n + 1] = local.t[0, slot] * scale * scale
            work.rows_t[R_NEXT, slot, 0, n + 1] = 0.0


@entry
def descent_row(model, tables, work, local, merged, n, step, momentum, batch_fraction):
    """Row n of the residual sector, into ``tables``, and row n + 1 of everything else, into ``work``."""
    groups = model.sizes.shape[0]
    beta = momentum if n > 0 else 0.0
    covariance_rows(model, tables, work, local, n)
    residual_rows(tables, work, local, n, batch_fraction)
    rho = force_rows(model, tables, work, local, n)
    for g in range(groups):
        local.factor[g] = 1.0
        force = model.alpha * step * work.a[g]
        work.a[g] = tables.a[n, g]
        if model.train_second_layer:
            work.a[g] += force
        if beta != 0.0:
            local.factor[g] += beta * tables.lam[n - 1, g]
            if model.train_second_layer:
                work.a[g] += beta * (tables.a[n, g] - tables.a[n - 1, g])
    next_rows(model, tables, work, local, merged, n, step, beta, rho)

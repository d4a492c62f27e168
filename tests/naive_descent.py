"""Slow, obvious twin of `solvers.descent`: loops over updates, matrices over neurons, nothing shared with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from naive import neurons
from numpy.typing import NDArray

from dmft.formulation import Formulation

FloatArray = NDArray[np.float64]


@dataclass
class Updates:
    """Everything on the rows 0 ... steps; two-time functions hold (m, m) matrices, C in both orders of its times."""

    a: FloatArray  # (N, m)
    v: FloatArray  # (N, m, k)
    lam: FloatArray  # (N, m), norm before normalisation in the update to the row
    train_error: FloatArray  # (N,)
    test_error: FloatArray  # (N,)
    correlation: FloatArray  # (N, N, m, m)
    response: FloatArray  # (N, N, m, m)
    residual_response: FloatArray  # (N, N)
    weighted: FloatArray  # (N, N), correlation of the weighted residuals
    residual_correlation: FloatArray  # (N, N)


def sampled(s: FloatArray, q: FloatArray, batch: float, epoch: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Response and correlation of the weighted residuals, and correlation of the plain ones: (N, N) each.

    A sample is in at most one batch of every epoch. All its histories are gone through, each with its probability: in
    one of them r = z - S D r with weights D, z of covariance Q.
    """
    size = len(s)
    p, weighted, plain = (np.zeros((size, size)) for _ in range(3))
    epochs = [range(first, min(first + epoch, size)) for first in range(0, size, epoch)]
    for used in itertools.product(*[(*updates, None) for updates in epochs]):
        chance, weight = 1.0, np.zeros(size)
        for updates, one in zip(epochs, used, strict=True):
            chance *= batch if one is not None else 1.0 - batch * len(updates)
            if one is not None:
                weight[one] = 1.0 / batch
        bare = np.linalg.inv(np.eye(size) + s * weight)  # r = bare z
        full = weight[:, None] * bare
        p += chance * full
        weighted += chance * full @ q @ full.T
        plain += chance * bare @ q @ bare.T
    return p, weighted, plain


def descent(
    form: Formulation, steps: int, step: float, momentum: float = 0.0, batch: float = 1.0, epoch: int = 0
) -> Updates:
    """Rows of the exact DMFT of ``steps`` updates; batches are drawn afresh unless an epoch of updates is given."""
    net = neurons(form)
    m, k, size, alpha = net.m, net.v0.shape[1], steps + 1, form.alpha
    c, r = np.zeros((size, size, m, m)), np.zeros((size, size, m, m))
    a, v, lam = np.zeros((size, m)), np.zeros((size, m, k)), np.ones((size, m))
    s, p, weighted, plain = (np.zeros((size, size)) for _ in range(4))
    train, test, outer = np.zeros(size), np.zeros(size), np.zeros((size, size))
    c[0, 0], a[0], v[0] = net.gram0, net.a0, net.v0

    def output(n: int) -> float:
        return sum(a[n, i] * net.phihat(v[n, i]) for i in range(m)) / m

    for n in range(size):
        h, dh, d2h = (np.array([f(c[n, j]) for j in range(n + 1)]) for f in (net.h, net.dh, net.d2h))
        aa = np.array([np.outer(a[n], a[j]) for j in range(n + 1)])
        q = np.array([form.offset - output(n) - output(j) + (aa[j] * h[j]).sum() / m**2 for j in range(n + 1)])
        for j in range(n):
            s[n, j] = (aa[j] * dh[j] * r[n, j]).sum() / m**2
        p[n, n] = 1.0
        for j in range(n):
            p[n, j] = -sum(s[n, l] * p[l, j] for l in range(j, n))
        source = [sum(q[i] * p[j, i] for i in range(j + 1)) for j in range(n + 1)]  # (Q P^T)_nj
        for j in range(n):
            weighted[n, j] = weighted[j, n] = source[j] - sum(s[n, l] * weighted[l, j] for l in range(n))
            # E[r~_l r_j]: the weight of the later time is free of everything before it.
            mixed = [plain[l, j] if l >= j else weighted[j, l] for l in range(n)]
            plain[n, j] = plain[j, n] = source[j] - sum(s[n, l] * mixed[l] for l in range(n))
        square = source[n] - sum(s[n, l] * weighted[l, n] for l in range(n))
        plain[n, n], weighted[n, n] = square, square / batch
        if epoch:
            outer[n, : n + 1] = outer[: n + 1, n] = q
            known = slice(0, n + 1)
            p[known, known], weighted[known, known], plain[known, known] = sampled(
                s[known, known], outer[known, known], batch, epoch
            )
            square = plain[n, n]
        train[n], test[n] = square / 2, q[n] / 2
        if n == steps:
            break

        x = p[n, : n + 1, None, None]
        y = weighted[n, : n + 1, None, None]
        memory = alpha / m * aa * (x * dh - y * d2h * r[n, : n + 1])
        noise = alpha / m * aa * y * dh
        rho = p[n].sum()
        drive = np.array([alpha * a[n, i] * rho * net.gradient(v[n, i]) for i in range(m)])

        def force(along_w: FloatArray, along_b: FloatArray, overlap: FloatArray, memory: FloatArray = memory,
                  noise: FloatArray = noise, drive: FloatArray = drive) -> FloatArray:  # fmt: skip
            """<F_i, x_j> from <w_l(t_k), x_j> as [k, l, j], the response of x_j as [k, j, l], and its overlaps."""
            total = drive @ overlap.T
            for l in range(len(memory)):
                total = total - memory[l] @ along_w[l] + noise[l] @ along_b[l].T
            return total

        beta = momentum if n > 0 else 0.0
        last = max(n - 1, 0)
        keep = 1.0 + beta * lam[n]
        raw_c = [  # <w~_i, w_l(t_j)>
            keep[:, None] * c[n, j] - beta * c[last, j] + step * force(c[: n + 1, j], r[j, : n + 1], v[j])
            for j in range(n + 1)
        ]
        raw_r = []
        for j in range(n + 1):
            field = (np.eye(m) if j == n else 0.0) - sum(memory[l] @ r[l, j] for l in range(j, n + 1))
            raw_r.append(keep[:, None] * r[n, j] - beta * r[last, j] + step * field)
        raw_v = keep[:, None] * v[n] - beta * v[last]
        raw_v = raw_v + step * (drive - sum(memory[l] @ v[l] for l in range(n + 1)))
        along = np.array([row.T for row in raw_c])
        gram = keep[:, None] * along[n] - beta * along[last] + step * force(along, np.array(raw_r), raw_v)
        assert np.abs(gram - gram.T).max() < 1e-10 * np.abs(gram).max()
        norm = lam[n + 1] = np.sqrt(np.diag(gram))
        for j in range(n + 1):
            c[n + 1, j] = raw_c[j] / norm[:, None]
            c[j, n + 1] = c[n + 1, j].T
            r[n + 1, j] = raw_r[j] / norm[:, None]
        c[n + 1, n + 1] = gram / np.outer(norm, norm)
        v[n + 1] = raw_v / norm[:, None]
        a[n + 1] = a[n]
        if form.train_second_layer:
            speed = np.array([alpha * rho * net.phihat(v[n, i]) for i in range(m)])
            for j in range(n + 1):
                speed += alpha / m * (weighted[n, j] * (dh[j] * r[n, j]) - p[n, j] * h[j]) @ a[j]
            a[n + 1] += beta * (a[n] - a[last]) + step * speed
    return Updates(a, v, lam, train, test, c, r, p, weighted, plain)

"""Slow, obvious twins of the solvers: plain loops over times, small matrices over neurons, nothing shared.

Everything works on one matrix per pair of times, ``C[n, j][i, l] = <w_i(t_n), w_l(t_j)>``, as in theory section 2,
whatever the grouping of the problem, so that the group form of section 3 is tested too.

* :func:`euler` is [MU]'s explicit scheme on a uniform grid (theory section 6.3).
* :func:`multistep` is the implicit scheme of section 6.1, each row solved by a general-purpose root finder on the
  equations as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root

from dmft.formulation import Formulation

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Neurons:
    """A formulation written out neuron by neuron."""

    a0: FloatArray  # (m,)
    v0: FloatArray  # (m, k)
    gram0: FloatArray  # (m, m)
    form: Formulation

    @property
    def m(self) -> int:
        return len(self.a0)

    def h(self, q: FloatArray) -> FloatArray:
        return sum((c * q**p for p, c in enumerate(self.form.covariance)), start=0.0 * q)

    def dh(self, q: FloatArray) -> FloatArray:
        return sum((c * p * q ** (p - 1) for p, c in enumerate(self.form.covariance) if p >= 1), start=0.0 * q)

    def d2h(self, q: FloatArray) -> FloatArray:
        terms = (c * p * (p - 1) * q ** (p - 2) for p, c in enumerate(self.form.covariance) if p >= 2)
        return sum(terms, start=0.0 * q)

    def phihat(self, v: FloatArray) -> float:
        total = 0.0
        for powers, c in zip(self.form.overlap_exponents, self.form.overlap_coefficients, strict=True):
            term = float(c)
            for x, e in zip(v, powers, strict=True):
                term *= float(x) ** int(e)
            total += term
        return total

    def gradient(self, v: FloatArray) -> FloatArray:
        """g(v), each component a complex-step derivative of phihat: no differentiation rule to get wrong."""
        result = np.zeros(len(v))
        for b in range(len(v)):
            total = 0.0
            for powers, c in zip(self.form.overlap_exponents, self.form.overlap_coefficients, strict=True):
                term: complex = complex(c)
                for axis, (x, e) in enumerate(zip(v, powers, strict=True)):
                    term *= (complex(x) + (1e-30j if axis == b else 0.0)) ** int(e)
                total += term.imag / 1e-30
            result[b] = total
        return result


def neurons(form: Formulation) -> Neurons:
    """Expand groups into neurons: C_d on the diagonal, C_o off it."""
    group = np.repeat(np.arange(form.groups), form.sizes)
    m = len(group)
    gram = np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            g, k = group[i], group[j]
            root_sizes = np.sqrt(form.sizes[g] * form.sizes[k])
            if g != k:
                gram[i, j] = form.correlation_s0[g, k] / root_sizes
            elif form.sizes[g] == 1:
                gram[i, j] = form.correlation_s0[g, g]
            else:
                other = (form.correlation_s0[g, g] - form.correlation_t0[g]) / form.sizes[g]
                gram[i, j] = other + (form.correlation_t0[g] if i == j else 0.0)
    return Neurons(a0=form.a0[group], v0=form.v0[group], gram0=gram, form=form)


@dataclass
class Rows:
    """Everything on the grid. Two-time functions hold (m, m) matrices and C both orders of its times.

    ``response`` is a density for :func:`euler`, and carries the time weight for :func:`multistep`; there R_A is
    ``residual_response`` with its delta function, in both.
    """

    t: FloatArray
    a: FloatArray = field(init=False)  # (N, m)
    v: FloatArray = field(init=False)  # (N, m, k)
    nu: FloatArray = field(init=False)  # (N, m)
    correlation: FloatArray = field(init=False)  # (N, N, m, m)
    response: FloatArray = field(init=False)  # (N, N, m, m)
    residual_response: FloatArray = field(init=False)  # (N, N)
    residual_correlation: FloatArray = field(init=False)  # (N, N)
    q: FloatArray = field(init=False)  # (N, N)
    s_r: FloatArray = field(init=False)  # (N, N)
    energy: FloatArray = field(init=False)  # (N,), p-spin only

    def start(self, net: Neurons) -> Rows:
        size, m, k = len(self.t), net.m, net.v0.shape[1]
        self.a, self.v, self.nu = np.zeros((size, m)), np.zeros((size, m, k)), np.zeros((size, m))
        self.correlation, self.response = np.zeros((size, size, m, m)), np.zeros((size, size, m, m))
        self.residual_response, self.residual_correlation = np.zeros((size, size)), np.zeros((size, size))
        self.q, self.s_r, self.energy = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
        self.a[0], self.v[0], self.correlation[0, 0] = net.a0, net.v0, net.gram0
        return self

    @property
    def train_error(self) -> FloatArray:
        return np.array([self.residual_correlation[n, n] / 2 for n in range(len(self.t))])

    @property
    def test_error(self) -> FloatArray:
        return np.array([self.q[n, n] / 2 for n in range(len(self.t))])

    def residual_sector(self, net: Neurons, n: int, weight: float) -> None:
        """Row n of Q, S_R, R_A, C_r from rows up to n of C, R, a, v. ``weight`` turns ``response`` into weights."""
        if not net.form.residual_sector:  # the p-spin model
            self.residual_correlation[n, : n + 1] = self.residual_correlation[: n + 1, n] = 1.0
            return
        m = net.m
        for j in range(n + 1):
            q, s = net.form.offset, 0.0
            c = self.correlation[n, j]
            for i in range(m):
                q -= (self.a[n, i] * net.phihat(self.v[n, i]) + self.a[j, i] * net.phihat(self.v[j, i])) / m
                for other in range(m):
                    aa = self.a[n, i] * self.a[j, other] / m**2
                    q += aa * net.h(c[i, other])
                    s += aa * net.dh(c[i, other]) * self.response[n, j][i, other] * weight
            self.q[n, j] = self.q[j, n] = q
            self.s_r[n, j] = s
        # (1 + S_R) R_A = 1
        for j in range(n + 1):
            total = 1.0 if j == n else 0.0
            for k in range(j, n):
                total -= self.s_r[n, k] * self.residual_response[k, j]
            self.residual_response[n, j] = total / (1.0 + self.s_r[n, n])
        ra = self.residual_response[: n + 1, : n + 1]
        row = ra[n] @ self.q[: n + 1, : n + 1] @ ra.T
        self.residual_correlation[n, : n + 1] = self.residual_correlation[: n + 1, n] = row

    def kernels(self, net: Neurons, n: int, weight: float) -> tuple[FloatArray, FloatArray]:
        """Row n of L (with its time weight, as R_A holds a delta function) and N (without): (n + 1, m, m) each."""
        big_l, big_n = np.zeros((n + 1, net.m, net.m)), np.zeros((n + 1, net.m, net.m))
        for k in range(n + 1):
            c, r = self.correlation[n, k], self.response[n, k] * weight
            ra, cr = self.residual_response[n, k], self.residual_correlation[n, k]
            for i in range(net.m):
                for j in range(net.m):
                    pair = net.form.alpha / net.m * self.a[n, i] * self.a[k, j]
                    big_l[k, i, j] = pair * (ra * net.dh(c[i, j]) - cr * net.d2h(c[i, j]) * r[i, j])
                    big_n[k, i, j] = pair * cr * net.dh(c[i, j])
        return big_l, big_n

    def second_layer_force(self, net: Neurons, n: int, weight: float) -> FloatArray:
        """da/dt at row n."""
        force = np.zeros(net.m)
        if not net.form.train_second_layer:
            return force
        for i in range(net.m):
            force[i] = self.residual_response[n, : n + 1].sum() * net.phihat(self.v[n, i])
            for k in range(n + 1):
                c, r = self.correlation[n, k], self.response[n, k] * weight
                for o in range(net.m):
                    force[i] -= self.residual_response[n, k] * self.a[k, o] * net.h(c[i, o]) / net.m
                    force[i] += self.residual_correlation[n, k] * self.a[k, o] * net.dh(c[i, o]) * r[i, o] / net.m
        return net.form.alpha * force

    def drive(self, net: Neurons, n: int) -> FloatArray:
        """(m, k): alpha a_i rho g(v_i) at row n."""
        rho = self.residual_response[n, : n + 1].sum()
        return np.array([net.form.alpha * self.a[n, i] * rho * net.gradient(self.v[n, i]) for i in range(net.m)])

    def set_energy(self, net: Neurons, n: int, weight: float) -> None:
        if not net.form.residual_sector:
            c, r = self.correlation[n, : n + 1, 0, 0], self.response[n, : n + 1, 0, 0]
            self.energy[n] = -weight * float(sum(net.dh(x) * y for x, y in zip(c, r, strict=True)))


def euler(form: Formulation, eta: float, steps: int) -> Rows:
    """[MU]'s scheme, theory section 6.3: explicit Euler with step ``eta``, R(t, t) = 0, R(t + eta, t) = 1."""
    net = neurons(form)
    rows = Rows(eta * np.arange(steps + 1, dtype=np.float64)).start(net)
    m = net.m
    for n in range(steps + 1):
        rows.residual_sector(net, n, eta)
        rows.set_energy(net, n, eta)
        big_l, big_n = rows.kernels(net, n, eta)
        drive = rows.drive(net, n)
        force = np.zeros((n + 1, m, m))
        for j in range(n + 1):
            force[j] = drive @ rows.v[j].T
            for k in range(n + 1):
                force[j] -= big_l[k] @ rows.correlation[k, j]
            for k in range(j):
                force[j] += eta * big_n[k] @ rows.response[j, k].T
        rows.nu[n] = np.diagonal(force[n])  # d/dt C_ii(t, t) = 0 with C_ii = 1
        if n == steps:
            break
        shrink = np.diag(rows.nu[n])
        for j in range(n + 1):
            rows.correlation[n + 1, j] = rows.correlation[n, j] + eta * (force[j] - shrink @ rows.correlation[n, j])
            rows.correlation[j, n + 1] = rows.correlation[n + 1, j].T
            rows.response[n + 1, j] = rows.response[n, j] - eta * shrink @ rows.response[n, j]
            for k in range(j, n + 1):
                rows.response[n + 1, j] -= eta * big_l[k] @ rows.response[k, j]
        rows.response[n + 1, n] = np.eye(m)
        change = force[n] - shrink @ rows.correlation[n, n]
        rows.correlation[n + 1, n + 1] = rows.correlation[n, n] + eta * (change + change.T)
        for i in range(m):
            rows.correlation[n + 1, n + 1, i, i] = 1.0
        rows.v[n + 1] = rows.v[n] + eta * (drive - shrink @ rows.v[n])
        for k in range(n + 1):
            rows.v[n + 1] -= eta * big_l[k] @ rows.v[k]
        rows.a[n + 1] = rows.a[n] + eta * rows.second_layer_force(net, n, eta)
    return rows


def derivative_weights(nodes: FloatArray, x: float) -> FloatArray:
    """Weights of the first derivative at ``x`` of the polynomial through ``nodes``, from the monomials."""
    p = len(nodes)
    shifted = (np.asarray(nodes, dtype=np.float64) - x) / max(abs(nodes[-1] - nodes[0]), 1e-300)
    vandermonde = np.array([[s**k for s in shifted] for k in range(p)])
    target = np.zeros(p)
    target[1] = 1.0
    return np.linalg.solve(vandermonde, target) / max(abs(nodes[-1] - nodes[0]), 1e-300)


def multistep(form: Formulation, t: FloatArray, order: int = 1, tolerance: float = 1e-12) -> Rows:
    """The implicit multistep scheme of theory section 6.1 on the grid ``t``; rows n < order use order n.

    The unknowns of a row are C_nj for all j <= n (with C_nn full and its diagonal pinned to 1 by nu), R_nk for
    1 <= k <= n (the start w_0 feels no force, so R_n0 = 0), nu_n, v_n and a_n; R_A and C_r follow from them.
    That C_nn comes out symmetric is a property of the scheme, not imposed.

    Raises
    ------
    RuntimeError
        If a row is not solved to ``tolerance`` in the largest residual.
    """
    net = neurons(form)
    t = np.asarray(t, dtype=np.float64)
    rows = Rows(t).start(net)
    m, latent = net.m, net.v0.shape[1]
    rows.residual_sector(net, 0, 1.0)  # R_00 = S_R,00 = 0, so R_A,00 = 1
    rows.set_energy(net, 0, 1.0)

    for n in range(1, len(t)):
        used = min(order, n)
        back = np.arange(n, n - used - 1, -1)  # t_n, t_{n-1}, ..., t_{n-K}
        al = np.zeros(used + 1)

        def unpack(x: FloatArray, n: int = n) -> None:
            c, r, rest = np.split(x, [(n + 1) * m * m, (2 * n + 1) * m * m])
            rows.correlation[n, : n + 1] = c.reshape(n + 1, m, m)
            for j in range(n):
                rows.correlation[j, n] = rows.correlation[n, j].T
            rows.response[n, 1 : n + 1] = r.reshape(n, m, m)
            rows.nu[n], rows.a[n] = rest[:m], rest[m : 2 * m]
            rows.v[n] = rest[2 * m :].reshape(m, latent)
            rows.residual_sector(net, n, 1.0)

        def residual(x: FloatArray, n: int = n, back: Any = back, al: FloatArray = al) -> FloatArray:
            unpack(x)
            big_l, big_n = rows.kernels(net, n, 1.0)
            drive, shrink = rows.drive(net, n), np.diag(rows.nu[n])
            # Rates are large when steps are small or forces stiff; R x rate is of order one.
            scale = max(1.0, al[0], float(np.abs(big_l).max()))
            left: list[FloatArray] = []
            for j in range(n + 1):
                eq = shrink @ rows.correlation[n, j] - drive @ rows.v[j].T
                for w, b in zip(al, back, strict=True):
                    eq = eq + w * rows.correlation[b, j]
                for k in range(n + 1):
                    eq = eq + big_l[k] @ rows.correlation[k, j]
                for k in range(j + 1):
                    eq = eq - big_n[k] @ rows.response[j, k].T
                left.append(eq.ravel() / scale)
            for k in range(1, n + 1):
                eq = shrink @ rows.response[n, k] - (np.eye(m) if k == n else 0.0)
                for w, b in zip(al, back, strict=True):
                    eq = eq + w * rows.response[b, k]
                for u in range(k, n + 1):
                    eq = eq + big_l[u] @ rows.response[u, k]
                left.append(eq.ravel())
            left.append(np.diagonal(rows.correlation[n, n]) - 1.0)
            eq = -rows.second_layer_force(net, n, 1.0)
            for w, b in zip(al, back, strict=True):
                eq = eq + w * rows.a[b]
            left.append(eq / scale)
            eq = shrink @ rows.v[n] - drive
            for w, b in zip(al, back, strict=True):
                eq = eq + w * rows.v[b]
            for k in range(n + 1):
                eq = eq + big_l[k] @ rows.v[k]
            left.append(eq.ravel() / scale)
            return np.concatenate(left)

        # The whole step at once; should that fail, through ever longer steps from one where nothing moves.
        for ladder in ([1.0], 2.0 ** np.arange(-16, 1)):
            guess_c = np.concatenate([rows.correlation[n - 1, :n], rows.correlation[n - 1 : n, n - 1]])
            guess_r = rows.response[n - 1, 1 : n + 1].copy()
            guess_r[n - 1] = np.eye(m) * (t[n] - t[n - 1]) * ladder[0]
            rest = [rows.nu[n - 1], rows.a[n - 1], rows.v[n - 1].ravel()]
            guess = np.concatenate([guess_c.ravel(), guess_r.ravel(), *rest])
            for fraction in ladder:
                nodes = t[back].copy()
                nodes[0] = t[n - 1] + fraction * (t[n] - t[n - 1])
                al[:] = derivative_weights(nodes, nodes[0])
                found = root(residual, guess, method="hybr", options={"xtol": 1e-15, "maxfev": 200 * len(guess)})
                guess = found.x
            error = float(np.abs(residual(guess)).max())  # leaves the row filled in
            if error <= tolerance:
                break
        else:
            raise RuntimeError(f"row {n} at t = {t[n]:g} is solved to {error:.1e} only: {found.message}")
        rows.set_energy(net, n, 1.0)
    return rows

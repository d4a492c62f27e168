"""The DMFT equations, element by element, in the group form of :mod:`dmft.formulation`.

Each function is one formula of the DMFT of [MU] (arXiv:2502.21269, appendix C), compiled, on plain numbers and
arrays. None of them knows a time step: an engine decides at which pairs of times they are evaluated and how their
causal sums are taken. ``c`` stands for the coupling (alpha/m) a_i(t) a_j(s) throughout.
"""

from __future__ import annotations

from dmft._jit import entry, summation


@entry
def covariance_derivatives(coefficients, q):
    """h(q), h'(q), h''(q) by one Horner pass over the ascending coefficients of h."""
    h = 0.0
    dh = 0.0
    d2h = 0.0
    for i in range(coefficients.shape[0] - 1, -1, -1):
        d2h = d2h * q + dh
        dh = dh * q + h
        h = h * q + coefficients[i]
    return h, dh, 2.0 * d2h


@summation
def memory_element(c, residual_response, residual_correlation, dh, d2h, response):
    """L_ij(t,s) = (alpha/m) a_i a_j [R_A h'(C_ij) - C_r h''(C_ij) R_ij]  (C.46)."""
    return c * (residual_response * dh - residual_correlation * d2h * response)


@summation
def noise_element(c, residual_correlation, dh):
    """N_ij(t,s) = (alpha/m) a_i a_j C_r h'(C_ij)  (C.46)."""
    return c * residual_correlation * dh


@entry
def overlap_and_gradient(exponents, coefficients, v, gradient):
    """phihat(v); writes its gradient g(v) into ``gradient`` (k,)."""
    terms, k = exponents.shape
    gradient[:] = 0.0
    value = 0.0
    for term in range(terms):
        monomial = coefficients[term]
        for i in range(k):
            monomial *= v[i] ** exponents[term, i]
        value += monomial
        for j in range(k):
            if exponents[term, j] > 0:
                partial = coefficients[term] * exponents[term, j]
                for i in range(k):
                    partial *= v[i] ** (exponents[term, i] - (1 if i == j else 0))
                gradient[j] += partial
    return value


@summation
def residual_memory(sizes, a_t, a_s, dh_self, dh_other, response_self, response_other):
    """S_R(t,s) = (1/m^2) sum_ij a_i(t) a_j(s) h'(C_ij) R_ij, summed over groups.

    ``dh_self``, ``response_self`` are (G,), ``dh_other``, ``response_other`` (G, G).
    """
    groups = sizes.shape[0]
    m = 0.0
    total = 0.0
    for g in range(groups):
        m += sizes[g]
        total += (
            sizes[g]
            * a_t[g]
            * a_s[g]
            * (dh_self[g] * response_self[g] + (sizes[g] - 1.0) * dh_other[g, g] * response_other[g, g])
        )
        for h in range(groups):
            if h != g:
                total += sizes[g] * sizes[h] * a_t[g] * a_s[h] * dh_other[g, h] * response_other[g, h]
    return total / (m * m)


@entry
def residual_covariance(sizes, offset, a_t, a_s, overlap_t, overlap_s, h_self, h_other):
    """Covariance Q(t, s) of the residual at given weights.

    Q = tau^2 + |phi|^2 - (1/m) sum_l [a_l(t) phihat_l(t) + a_l(s) phihat_l(s)] + (1/m^2) sum_ij a_i a_j h(C_ij).
    ``overlap_t``, ``overlap_s`` (G,) are phihat(v_g); ``h_self`` (G,), ``h_other`` (G, G).
    """
    groups = sizes.shape[0]
    m = 0.0
    linear = 0.0
    quadratic = 0.0
    for g in range(groups):
        m += sizes[g]
        linear += sizes[g] * (a_t[g] * overlap_t[g] + a_s[g] * overlap_s[g])
        quadratic += sizes[g] * a_t[g] * a_s[g] * (h_self[g] + (sizes[g] - 1.0) * h_other[g, g])
        for h in range(groups):
            if h != g:
                quadratic += sizes[g] * sizes[h] * a_t[g] * a_s[h] * h_other[g, h]
    return offset - linear / m + quadratic / (m * m)


@summation
def output_field(sizes, g, weight_s, self_value, other_values):
    """(1/m) sum_l w_l X_gl over all neurons l seen by one neuron of group g; w_l constant inside a group.

    With w = a(s) and X = h(C) or h'(C) R this is the sum in the equation of motion of a_i.
    """
    groups = sizes.shape[0]
    m = 0.0
    total = weight_s[g] * (self_value + (sizes[g] - 1.0) * other_values[g])
    for h in range(groups):
        m += sizes[h]
        if h != g:
            total += sizes[h] * weight_s[h] * other_values[h]
    return total / m

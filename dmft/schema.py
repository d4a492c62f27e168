"""Schema version 1: the names of the arrays in files, and what they mean in words."""

from __future__ import annotations

# name -> (dimensions, long name, description); dimensions of length one in group or latent space are dropped.
CURVE_TEXTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "train_error": (
        ("t",),
        "train error",
        "C_r(t,t)/2, half the mean squared residual on the training set; [MU] (C.46)",
    ),
    "test_error": (("t",), "test error", "Q(t,t)/2, half the mean squared residual on fresh data, noise included"),
    "test_error_fresh": (("t",), "test error on fresh samples", "half the mean squared residual on a test set"),
    "energy": (("t",), "energy per dimension", "E = <H>/d of the spherical p-spin model"),
    "a": (("t", "group"), "second-layer weight", "a_i(t) of each group of neurons; [MU] (C.34)"),
    "gamma": (("t", "group"), "second-layer weight over sqrt(m)", "a_i(t)/sqrt(m)"),
    "v": (("t", "group", "latent"), "overlap with the target", "v_i(t) = U^T w_i(t); [MU] (C.34)"),
    "nu": (("t", "group"), "spherical multiplier", "nu_i(t), keeps C_ii(t,t) = 1; [MU] (C.34)"),
    "energy_balance": (
        ("t",),
        "violation of the energy balance",
        "|lhs-rhs|/max(|lhs|,|rhs|) of the energy identity, an a-posteriori error",
    ),
}
UPDATE_TEXT = ("update", "updates made before each row; one advances t by (learning rate) d/n")
TWO_TIME_TEXTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "correlation": (
        ("mode", "t", "t_prime"),
        "correlation",
        "C(t,t') = <w_i(t), w_j(t')> in the group-symmetric modes: within a group of n neurons C_ii = T + (S-T)/n and "
        "C_ij = (S-T)/n, between groups g and h C_ij = S_gh/sqrt(n_g n_h); [MU] (C.34)",
    ),
    "integrated_response": (
        ("mode", "t", "t_prime"),
        "integrated response",
        "integral over u from t' to t of R(t,u), zero for t' >= t, in the modes of the correlation; [MU] (C.34)",
    ),
    "residual_correlation": (
        ("t", "t_prime"),
        "residual correlation",
        "C_r(t,t') = lim (1/n) <r(t), r(t')>; [MU] (C.46)",
    ),
}
SCALE_TEXTS = {
    "t": ("time", "training time, d theta/dt = -(n/d) grad of the empirical risk"),
    "t_prime": ("earlier time", "second time argument, on the rows of t"),
    "mode": ("mode", "group-symmetric (S) and intra-group (T) modes"),
    "group": ("group", "group of exchangeable neurons; neuron where every group has one"),
    "replica": ("replica", "independent data, initial weights and, for SGD, order of the samples"),
    "latent": ("latent direction", "direction that the target depends on"),
    "ratio": ("s/t", "earlier time over later time"),
    "curve": ("curve", "curve that is compared"),
    "run": ("run", "the run itself, and its check"),
}
VERIFICATION_TEXTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "largest_difference": (
        ("curve",),
        "largest difference",
        "between run and check: over max |curve| for a, v, nu, energy; pointwise relative for the errors",
    ),
    "time": (("curve",), "time", "where the largest difference is found"),
    "amplification": (
        ("curve",),
        "amplification",
        "change of the run by a tenfold smaller rtol, over rtol; NaN where nothing had to be explained",
    ),
    "balance_median": (("run",), "energy balance", "median of energy_balance"),
    "balance_largest": (("run",), "largest energy balance", "maximum of energy_balance"),
    "drift": (("run",), "drift off the sphere", "max |C_d(t,t) - 1|; NaN without two-time functions"),
    "wall_time": (("run",), "wall time", "wall time of the run"),
}
SCALED_TEXTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "correlation": (("mode", "t", "ratio"), "correlation", "C(t, s) of the modes, s = ratio t"),
    "response": (("mode", "t", "ratio"), "response", "R(t, s) of the modes"),
    "integrated_response": (("mode", "t", "ratio"), "integrated response", "integral of R(t, u) over u from s to t"),
    "residual_correlation": (("t", "ratio"), "residual correlation", "C_r(t, s) = (1/n) <r(t), r(s)>"),
}

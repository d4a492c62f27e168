"""The second engine: implicit collocation of the two-time equations in (ln t, s/t).

It shares nothing with the main engine but the equations: that one writes down the exact DMFT of a discretised gradient
flow, this one discretises the integro-differential equations of the flow. A row at time t lives on the ratios s/t of
:mod:`dmft.scaled_time` and is advanced by BDF-4 in ln t at fixed ratio, so that the cost grows with ln t as long as the
nodes resolve the row (limits: docs/engines.md). Older rows are read by interpolation; all unknowns of a row are found
together by chord Newton with an analytic Jacobian. The grid is stretched as t grows, so that the final time need not be
known.

``grid`` is the axis of ratios, ``kernels`` the compiled loops, ``history`` the rows and what the next one needs of
them, ``system`` what a set of equations must say, ``pspin`` and ``network`` the two sets, ``march`` Newton and the
control of step and grid, ``engine`` the contract of :mod:`solvers.base`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solvers.collocation.engine import CollocationEngine

if TYPE_CHECKING:
    from dmft.problems import Problem

__all__ = ["CollocationEngine", "supports"]


def supports(problem: Problem) -> bool:
    """Whether the problem is a p-spin model or a network of exchangeable neurons with at most one latent direction."""
    form = problem.formulation()
    return form.groups == 1 and form.latent_dimension == 1

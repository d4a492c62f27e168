"""The result of a run: curves, two-time functions, how it went, and how to look at it.

A solution is a set of arrays on the rows of the integrator together with the polynomial order each row was computed
with; everything between the rows is interpolated with that order (:mod:`dmft.interpolation`), so no accuracy is lost
and none is invented. Two-time functions are kept in the group-symmetric modes S and T of :mod:`dmft.formulation` and
combined to those of a neuron with itself (d) or of two different neurons (o) on request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft.formulation import Formulation
from dmft.interpolation import cell_degree, check_inside, fit_stencil, interpolate, local_stencil
from dmft.status import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dmft.optimizers import Optimizer
    from dmft.problems import Problem
    from dmft.scaled_time import ScaledTwoTime
    from dmft.simulation import Simulation
    from dmft.verification import Verification

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CHUNK = 1 << 16
"""Points handled at once in two-time interpolation: bounds the memory of a dense query, not its result."""

_UNRESOLVED = 0.25
"""A response that integrates to less than this fraction of the last step has decayed inside it. Every R starts at 1,
so a resolved one integrates to about the step; the first weight of BDF-K is no less than 0.43 of it (K = 5)."""

_FITS = ((3, 9), (2, 7))
"""(degree, rows) of the two local fits whose derivative gives the response: the value and its check."""


class Minimum(NamedTuple):
    """Minimum of the test error: where, how low, and whether it lies inside the run or at one of its ends."""

    time: float
    value: float
    found_interior: bool


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Work done by the integrator.

    Attributes
    ----------
    rows : int
        Accepted time rows.
    rejected : int
        Rows computed and thrown away.
    iterations : int
        Fixed-point iterations over all rows.
    row_solves : int
        Row solutions, accepted or not.
    wall_time : float
        Seconds.
    thinnings : int
        How often the stored history was thinned.
    estimated_error : float
        The integrator's own estimate of its largest local error, in the measure that ``rtol`` bounds.
    """

    rows: int
    rejected: int
    iterations: int
    row_solves: int
    wall_time: float
    thinnings: int
    estimated_error: float


def mode_names(formulation: Formulation) -> tuple[str, ...]:
    """Names of the stored modes, in the order of their storage.

    The S modes come first, row-major over the pairs of groups, then T for each group of more than one neuron. With
    one group they are plain ``S`` and ``T``, otherwise numbered (``S01``; ``S3_11`` beyond ten groups).
    """
    groups = formulation.groups
    if groups == 1:
        return ("S", "T") if formulation.sizes[0] > 1 else ("S",)
    join = "" if groups <= 10 else "_"
    pairs = tuple(f"S{g}{join}{h}" for g in range(groups) for h in range(groups))
    return pairs + tuple(f"T{g}" for g in range(groups) if formulation.sizes[g] > 1)


def _frozen(name: str, value: ArrayLike, shape: tuple[int, ...], dtype: type = np.float64) -> NDArray[Any]:
    """Read-only view of an array of the given shape without NaN or infinity."""
    array: NDArray[Any] = np.ascontiguousarray(value, dtype=dtype).view()
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    # The sum is finite exactly when all are, short of overflow, and makes no temporary array.
    if not np.isfinite(array.sum()) and not np.all(np.isfinite(array)):
        raise ValueError(f"{name} contains NaN or infinity; a solution holds finite numbers only")
    array.flags.writeable = False
    return array


class Curves:
    """One-time functions at given times.

    Attributes
    ----------
    t : (N,)
        Times.
    a, nu, gamma : (N,), or (N, G) for grouped and general problems
        Second-layer weights, spherical-constraint multipliers, and ``gamma = a / sqrt(m)``.
    v : (N,) or (N, G), with a last axis k for more than one latent direction
        Overlaps <w, U> of the first-layer weights with the latent directions.
    train_error, test_error : (N,)
        C_r(t,t)/2 and Q(t,t)/2, noise included.
    energy : (N,)
        <H>/d, for the p-spin model only, which has ``nu`` but none of ``a``, ``v``, ``gamma`` and the errors.
    energy_balance : (N,)
        |lhs - rhs| / max(|lhs|, |rhs|) of the energy identity, an a-posteriori error.
    """

    def __init__(
        self,
        *,
        problem: Problem,
        t: ArrayLike,
        a: ArrayLike | None,
        v: ArrayLike | None,
        nu: ArrayLike,
        train_error: ArrayLike | None,
        test_error: ArrayLike | None,
        energy: ArrayLike | None,
        energy_balance: ArrayLike,
    ) -> None:
        self.problem = problem
        self.formulation = formulation = problem.formulation()
        rows, groups, latent = np.size(t), formulation.groups, formulation.latent_dimension
        self._t = _frozen("t", t, (rows,))
        self._nu = _frozen("nu", nu, (rows, groups))
        self._energy_balance = _frozen("energy_balance", energy_balance, (rows,))
        self._network: dict[str, FloatArray] = {}
        self._energy: FloatArray | None = None
        if formulation.residual_sector:
            network: dict[str, tuple[ArrayLike | None, tuple[int, ...]]] = {
                "a": (a, (rows, groups)),
                "v": (v, (rows, groups, latent)),
                "train_error": (train_error, (rows,)),
                "test_error": (test_error, (rows,)),
            }
            for name, (value, shape) in network.items():
                if value is None:
                    raise ValueError(f"{name} = None, but a network problem needs an array of shape {shape}")
                self._network[name] = _frozen(name, value, shape)
            if not formulation.infinite_width:
                gamma = self._network["a"] / np.sqrt(formulation.width)
                self._network["gamma"] = _frozen("gamma", gamma, (rows, groups))
        else:
            if energy is None:
                raise ValueError(f"energy = None, but a problem without residuals needs an array of shape {(rows,)}")
            self._energy = _frozen("energy", energy, (rows,))

    @property
    def curve_names(self) -> tuple[str, ...]:
        """Names of the curves this problem has, besides ``t``."""
        if not self.formulation.residual_sector:
            return ("energy", "nu", "energy_balance")
        second = ("a",) if self.formulation.infinite_width else ("a", "gamma")
        return ("train_error", "test_error", *second, "v", "nu", "energy_balance")

    def _squeeze(self, array: FloatArray) -> FloatArray:
        """Drop the group axis where there is one kind of neuron, and the latent axis where there is one direction."""
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        return array[:, 0] if self.problem.exchangeable else array

    def _of_network(self, name: str) -> FloatArray:
        if name not in self._network:
            raise AttributeError(f"a {self.problem.kind} solution has no {name}; it has {', '.join(self.curve_names)}")
        return self._network[name]

    @property
    def t(self) -> FloatArray:
        """Times, (N,)."""
        return self._t

    @property
    def a(self) -> FloatArray:
        """Second-layer weights, (N,) or (N, G)."""
        return self._squeeze(self._of_network("a"))

    @property
    def gamma(self) -> FloatArray:
        """Second-layer weights over sqrt(m), (N,) or (N, G)."""
        return self._squeeze(self._of_network("gamma"))

    @property
    def v(self) -> FloatArray:
        """Overlaps with the latent directions, (N,), (N, k), (N, G) or (N, G, k)."""
        return self._squeeze(self._of_network("v"))

    @property
    def nu(self) -> FloatArray:
        """Multipliers of the spherical constraint, (N,) or (N, G)."""
        return self._squeeze(self._nu)

    @property
    def train_error(self) -> FloatArray:
        """Train error C_r(t,t)/2, (N,)."""
        return self._of_network("train_error")

    @property
    def test_error(self) -> FloatArray:
        """Test error Q(t,t)/2, noise included, (N,)."""
        return self._of_network("test_error")

    @property
    def energy(self) -> FloatArray:
        """Energy <H>/d of the p-spin model, (N,)."""
        if self._energy is None:
            raise AttributeError(f"a {self.problem.kind} solution has no energy; it has {', '.join(self.curve_names)}")
        return self._energy

    @property
    def energy_balance(self) -> FloatArray:
        """Relative violation of the energy identity, (N,)."""
        return self._energy_balance

    def columns(self) -> dict[str, FloatArray]:
        """Return the curves as named columns (N,), group and latent indices appended as ``_0``, ``_0_1``."""
        table = {"t": self.t}
        for name in self.curve_names:
            curve = getattr(self, name)
            for place in np.ndindex(curve.shape[1:]):
                table["_".join([name, *map(str, place)])] = curve[(slice(None), *place)]
        return table


@dataclass(frozen=True)
class TwoTime:
    """Two-time functions on the stored rows.

    Attributes
    ----------
    t : (M,)
        Times of the stored rows.
    order : (M,) int
        Polynomial order of each.
    modes : tuple of str
        Names of the modes, see `mode_names`.
    correlation : (modes, M, M)
        C at (t, t'); symmetric when the mode is transposed together with the times.
    integrated_response : (modes, M, M)
        Integral of R(t, u) over u from t' to t; zero for t' >= t.
    residual_correlation : (M, M) or None
        C_r; None for the p-spin model.
    """

    t: FloatArray
    order: IntArray
    modes: tuple[str, ...]
    correlation: FloatArray
    integrated_response: FloatArray
    residual_correlation: FloatArray | None


class Solution(Curves):
    """Result of `dmft.solve`; the engine builds it, `dmft.load` reads it back.

    Besides the curves of `Curves` on the integrator's rows:

    Attributes
    ----------
    problem
        What was solved.
    order : (N,) int
        Polynomial order of each row.
    row_index : (M,) int
        Rows kept in two-time storage.
    two_time : TwoTime
        The stored two-time functions; some limits have none (``has_two_time``).
    status : Status
        How the run ended; everything but DONE keeps the curves up to the last accepted time.
    message : str
        The same as a sentence, with advice.
    stats : Stats
        Work done.
    rtol : float
        Requested tolerance.
    method : str
        Engine and scheme.
    config_text : str
        TOML text that the run came from, empty otherwise.
    verification : Verification or None
        What a second run has found, when it was asked for.
    scaled : ScaledTwoTime or None
        The two-time functions on (ln t, s/t), of engines that have them so. `correlation` and the other functions of
        two times then interpolate there, which resolves t - s down to the fastest time scale; ``two_time`` holds
        samples.
    optimizer : Optimizer or None
        The discrete optimiser; None for gradient flow. With one, rows are exact and ``rtol`` is 0, ``nu`` is
        (|w~| - 1)/Delta of the update that leaves the row, Delta the time of an update and w~ its first layer before
        normalisation, and ``energy_balance`` measures the distance from gradient flow.
    updates : (N,) int or None
        Updates made before each row, where there is an optimizer.

    Raises
    ------
    ValueError
        On construction, when an array has the wrong shape, holds NaN or infinity, or its times do not increase.
    """

    def __init__(
        self,
        *,
        problem: Problem,
        t: ArrayLike,
        order: ArrayLike,
        nu: ArrayLike,
        energy_balance: ArrayLike,
        row_index: ArrayLike | None,
        modes: tuple[str, ...],
        correlation: ArrayLike | None,
        integrated_response: ArrayLike | None,
        residual_correlation: ArrayLike | None = None,
        status: Status,
        message: str,
        stats: Stats,
        rtol: float,
        method: str,
        a: ArrayLike | None = None,
        v: ArrayLike | None = None,
        train_error: ArrayLike | None = None,
        test_error: ArrayLike | None = None,
        energy: ArrayLike | None = None,
        config_text: str = "",
        verification: Verification | None = None,
        scaled: ScaledTwoTime | None = None,
        optimizer: Optimizer | None = None,
        updates: ArrayLike | None = None,
    ) -> None:
        super().__init__(
            problem=problem,
            t=t,
            a=a,
            v=v,
            nu=nu,
            train_error=train_error,
            test_error=test_error,
            energy=energy,
            energy_balance=energy_balance,
        )
        rows = len(self.t)
        if rows == 0 or np.any(np.diff(self.t) <= 0.0):
            raise ValueError("t must hold at least one time, in increasing order")
        self.order: IntArray = _frozen("order", order, (rows,), np.int64)
        if tuple(modes) != mode_names(self.formulation):
            raise ValueError(f"modes = {tuple(modes)!r}; expected {mode_names(self.formulation)!r}")
        self.row_index: IntArray = np.zeros(0, dtype=np.int64)
        self._two_time: TwoTime | None = None
        if correlation is not None and integrated_response is not None and row_index is not None:
            self._store_two_time(row_index, tuple(modes), correlation, integrated_response, residual_correlation)
        self.status = status
        self.message = message
        self.stats = stats
        self.rtol = float(rtol)
        self.method = method
        self.config_text = config_text
        self.verification = verification
        self.scaled = scaled
        if (optimizer is None) != (updates is None):
            raise ValueError("updates are needed exactly when there is an optimizer")
        self.optimizer = optimizer
        self.updates: IntArray | None = None
        if updates is not None:
            self.updates = _frozen("updates", updates, (rows,), np.int64)
            if self.updates[0] < 0 or np.any(np.diff(self.updates) <= 0):
                raise ValueError("updates must count from 0 or more, in increasing order")

    def _store_two_time(
        self,
        row_index: ArrayLike,
        modes: tuple[str, ...],
        correlation: ArrayLike,
        integrated_response: ArrayLike,
        residual_correlation: ArrayLike | None,
    ) -> None:
        rows = len(self.t)
        self.row_index = _frozen("row_index", row_index, (np.size(row_index),), np.int64)
        kept = len(self.row_index)
        ends = (self.row_index[0], self.row_index[-1]) if kept else ()
        if ends != (0, rows - 1) or np.any(np.diff(self.row_index) <= 0):
            raise ValueError(f"row_index must increase from 0 to {rows - 1}, the first and the last row")
        shape = (len(modes), kept, kept)
        if self.formulation.residual_sector != (residual_correlation is not None):
            raise ValueError("residual_correlation is needed exactly when the problem has residuals")
        self._two_time = TwoTime(
            t=_frozen("t", self.t[self.row_index], (kept,)),
            order=_frozen("order", self.order[self.row_index], (kept,), np.int64),
            modes=modes,
            correlation=self._symmetric("correlation", _frozen("correlation", correlation, shape)),
            integrated_response=_frozen("integrated_response", integrated_response, shape),
            residual_correlation=None
            if residual_correlation is None
            else self._symmetric(
                "residual_correlation", _frozen("residual_correlation", residual_correlation, shape[1:])[None]
            )[0],
        )

    @property
    def two_time(self) -> TwoTime:
        """The stored two-time functions.

        Raises
        ------
        ValueError
            When there are none: some limits know the curves only.
        """
        if self._two_time is None:
            raise ValueError(f"this solution ({self.method}) holds curves only, no two-time functions")
        return self._two_time

    @property
    def has_two_time(self) -> bool:
        """Whether there are two-time functions."""
        return self._two_time is not None

    def _symmetric(self, name: str, array: FloatArray) -> FloatArray:
        """Fill the half above the diagonal from the causal half below it, where it is not there already."""
        mirror = array[self._transposed_modes()[: len(array)]].transpose(0, 2, 1)
        if np.array_equal(array, mirror):
            return array
        return _frozen(name, np.tril(array) + np.triu(mirror, 1), array.shape)

    def _transposed_modes(self) -> IntArray:
        """Mode that takes the place of each one when its two times are exchanged: S_gh becomes S_hg."""
        groups = self.formulation.groups
        place = np.arange(len(mode_names(self.formulation)))
        place[: groups * groups] = np.arange(groups * groups).reshape(groups, groups).T.ravel()
        return place

    def _mode_t(self, group: int) -> int:
        """Storage place of T_g; S_gg for a group of one neuron, by the convention of the formulation."""
        sizes = self.formulation.sizes
        if sizes[group] == 1:
            return group * self.formulation.groups + group
        return self.formulation.groups**2 + int(np.count_nonzero(sizes[:group] > 1))

    def _combination(self, mode: str | None, groups: tuple[int, int]) -> list[tuple[float, int]]:
        """Coefficients and storage places whose sum is the requested element."""
        count, sizes = self.formulation.groups, self.formulation.sizes
        try:
            g, h = (int(group) for group in groups)
        except (TypeError, ValueError):
            raise ValueError(f"groups = {groups!r} is not a pair of group numbers") from None
        if not (0 <= g < count and 0 <= h < count):
            raise ValueError(f"groups = {groups!r} is not a pair of group numbers from 0 to {count - 1}")
        place, share = g * count + h, 1.0 / float(sizes[g])
        if mode is None:
            mode = "d" if g == h else "o"
        if mode == "S":
            return [(1.0, place)]
        if mode in ("d", "T") and g != h:
            raise ValueError(f"mode = {mode!r} exists inside one group only; groups = {groups!r}")
        if mode == "T":
            if sizes[g] == 1:
                raise ValueError(f"mode = 'T' does not exist in group {g} of one neuron")
            return [(1.0, self._mode_t(g))]
        if mode == "d":
            # Coefficients of order one and 1/size: at width 10^6 nothing is multiplied by 10^6 and subtracted again.
            return [(1.0, place)] if sizes[g] == 1 else [(1.0 - share, self._mode_t(g)), (share, place)]
        if mode == "o":
            if g != h:
                return [(1.0 / float(np.sqrt(float(sizes[g]) * float(sizes[h]))), place)]
            if sizes[g] == 1:
                raise ValueError(f"mode = 'o' does not exist in group {g} of one neuron")
            return [(share, place), (-share, self._mode_t(g))]
        raise ValueError(f"mode = {mode!r} is unknown; allowed are 'd', 'o', 'S', 'T'")

    def _evaluate(
        self,
        t: ArrayLike,
        s: ArrayLike,
        mode: str | None,
        groups: tuple[int, int],
        kernel: Callable[[FloatArray, FloatArray, int], FloatArray],
        errors: bool = False,
    ) -> FloatArray:
        """Broadcast t and s, check them, and add up the modes of the requested element in bounded chunks."""
        times = [np.asarray(value, dtype=float) for value in (t, s)]
        for name, value in zip(("t", "s"), times, strict=True):
            check_inside(name, value, self.two_time.t)
        left, right = np.broadcast_arrays(*times)
        shape, left, right = left.shape, left.ravel(), right.ravel()
        terms = self._combination(mode, groups)
        result = np.zeros(left.shape)
        for begin in range(0, len(left), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            for coefficient, place in terms:
                result[part] += (abs(coefficient) if errors else coefficient) * kernel(left[part], right[part], place)
        return result.reshape(shape)

    def correlation(
        self, t: ArrayLike, s: ArrayLike, mode: str | None = None, groups: tuple[int, int] = (0, 0)
    ) -> FloatArray:
        """Correlation C(t, s) = <w_i(t), w_j(s)>.

        Parameters
        ----------
        t, s : arrays that broadcast
            Times of the first and the second neuron, in either order.
        mode : {"d", "o", "S", "T"}, optional
            A neuron with itself, two different neurons, or a raw mode. Default "d" inside a group, "o" between two.
        groups : (int, int)
            Groups of the two neurons.

        Returns
        -------
        array of the broadcast shape
            Exactly symmetric when times and groups are exchanged together.

        Raises
        ------
        ValueError
            For times outside the solved range, unknown modes or groups, and elements that do not exist.
        """
        return self._evaluate(t, s, mode, groups, self._correlation_kernel)

    def residual_correlation(self, t: ArrayLike, s: ArrayLike) -> FloatArray:
        """Residual correlation C_r(t, s) = lim (1/n) <r(t), r(s)>; times broadcast, in either order.

        Raises
        ------
        ValueError
            For times outside the solved range, and for the p-spin model, which has no residuals.
        """
        stored = self.two_time.residual_correlation
        if stored is None:
            raise ValueError(f"a {self.problem.kind} solution has no residual_correlation")
        scaled = self.scaled

        def kernel(left: FloatArray, right: FloatArray, _: int) -> FloatArray:
            if scaled is not None and scaled.residual_correlation is not None:
                return scaled.evaluate(scaled.residual_correlation, np.maximum(left, right), np.minimum(left, right))
            return self._tensor(left, right, stored)

        return self._evaluate(t, s, "S", (0, 0), kernel)

    def _correlation_kernel(self, t: FloatArray, s: FloatArray, place: int) -> FloatArray:
        # Later time first: exchanged arguments then run through the very same sums, and symmetry is exact.
        if self.scaled is not None:
            return self.scaled.evaluate(self.scaled.correlation[place], np.maximum(t, s), np.minimum(t, s))
        later = t >= s
        stored = self.two_time.correlation
        result = self._tensor(np.maximum(t, s), np.minimum(t, s), stored[place])
        transposed = int(self._transposed_modes()[place])
        if transposed != place and not np.all(later):
            early = ~later
            result[early] = self._tensor(s[early], t[early], stored[transposed])
        return result

    def _tensor(self, t: FloatArray, s: FloatArray, stored: FloatArray) -> FloatArray:
        """Tensor-product interpolation of a function that is smooth across the diagonal."""
        nodes, order = self.two_time.t, self.two_time.order
        if len(nodes) == 1:
            return np.full(t.shape, stored[0, 0])
        t, s = np.maximum(t, s), np.minimum(t, s)
        first = local_stencil(nodes, cell_degree(nodes, order, t), t)
        second = local_stencil(nodes, cell_degree(nodes, order, s), s)
        block = stored[first.index[:, :, None], second.index[:, None, :]]
        return np.asarray(np.einsum("xp,xpq,xq->x", first.weight, block, second.weight), dtype=float)

    def integrated_response(
        self, t: ArrayLike, s: ArrayLike, mode: str | None = None, groups: tuple[int, int] = (0, 0)
    ) -> FloatArray:
        """Integral of the response R(t, u) over u from s to t: the effect of a constant field switched on at s.

        Parameters and errors are those of `correlation`. Zero for s >= t. Where the response decays within less than
        one step, the value inside that last step is linear: it is not known better.
        """
        return self._evaluate(t, s, mode, groups, self._integrated_kernel)

    def response(
        self, t: ArrayLike, s: ArrayLike, mode: str | None = None, groups: tuple[int, int] = (0, 0)
    ) -> FloatArray:
        """Response R(t, s) = (1/d) tr dw_i(t)/db_j(s).

        Parameters and errors are those of `correlation`. Zero for s > t, the exact R(t+, t) at s = t. The main engine
        knows R only under integrals: there it is minus the s-derivative of the integral, and comes with
        `response_error`.
        """
        return self._evaluate(t, s, mode, groups, self._response_kernel)

    def response_error(
        self, t: ArrayLike, s: ArrayLike, mode: str | None = None, groups: tuple[int, int] = (0, 0)
    ) -> FloatArray:
        """Error of `response`: differences between local fits (interpolations) of different order, along s and t."""
        return self._evaluate(t, s, mode, groups, self._response_error_kernel, errors=True)

    def _causal_points(
        self, t: FloatArray, s: FloatArray, place: int, extra: int = 0
    ) -> tuple[FloatArray, IntArray, FloatArray, IntArray, IntArray]:
        """Where to read a causal function along each row of the stencil in t.

        A function that ends at the diagonal cannot be interpolated on a square block. Rows are therefore read at
        the same ratio s/t, so that every row stays on its own side of the diagonal, and a polynomial of (t, s) is
        still one of t. ``extra`` raises the degree in t.

        Returns
        -------
        weight, row : (X, P)
            The stencil in t.
        point : (X*P,)
            Second time on each row.
        last : (X*P,)
            Last row the stencil in s may use.
        degree : (X*P,)
            Degree of interpolation in s.
        """
        nodes, order = self.two_time.t, self.two_time.order
        stencil = local_stencil(nodes, cell_degree(nodes, order, t) + extra, t)
        row = stencil.index
        ratio = np.divide(s, t, out=np.zeros_like(s), where=t > 0.0)
        point = np.clip(s[:, None] + ratio[:, None] * (nodes[row] - t[:, None]), 0.0, nodes[row]).ravel()
        degree = cell_degree(nodes, order, point)
        flat = row.ravel()
        # A response that decays within one step leaves a jump at the diagonal, which no polynomial may cross.
        previous = np.maximum(flat - 1, 0)
        groups = self.formulation.groups
        size = np.inf
        for group in {*divmod(place, groups)} if place < groups * groups else ():
            size = np.minimum(size, self.two_time.integrated_response[group * groups + group, flat, previous])
        if place >= groups * groups:
            size = self.two_time.integrated_response[place, flat, previous]
        jump = (size < _UNRESOLVED * (nodes[flat] - nodes[previous])) & (flat > 1)
        inside = point > nodes[previous]
        last = np.where(jump & ~inside, previous, flat)
        return stencil.weight, row, point, last, np.where(jump & inside, 1, degree)

    def _integrated_kernel(self, t: FloatArray, s: FloatArray, place: int) -> FloatArray:
        result = np.zeros(t.shape)
        causal = s < t
        if self.scaled is not None:
            result[causal] = self.scaled.evaluate(self.scaled.integrated_response[place], t[causal], s[causal])
            return result
        if not np.any(causal):
            return result
        weight, row, point, last, degree = self._causal_points(t[causal], s[causal], place)
        along = local_stencil(self.two_time.t, degree, point, last)
        stored = self.two_time.integrated_response[place]
        rows = (along.weight * stored[row.reshape(-1, 1), along.index]).sum(axis=1)
        result[causal] = (weight * rows.reshape(weight.shape)).sum(axis=1)
        return result

    def _response_kernel(self, t: FloatArray, s: FloatArray, place: int) -> FloatArray:
        groups = self.formulation.groups
        diagonal = place >= groups * groups or place % (groups + 1) == 0
        result = np.where((t == s) & diagonal, 1.0, 0.0)
        causal = s < t
        if self.scaled is not None:
            result[causal] = self.scaled.evaluate(self.scaled.response[place], t[causal], s[causal])
        elif np.any(causal):
            weight, rows = self._response_rows(t[causal], s[causal], place, _FITS[0])
            result[causal] = (weight * rows).sum(axis=1)
        return result

    def _response_error_kernel(self, t: FloatArray, s: FloatArray, place: int) -> FloatArray:
        result = np.zeros(t.shape)
        causal = s < t
        if self.scaled is not None:
            result[causal] = self.scaled.error(self.scaled.response[place], t[causal], s[causal])
        elif np.any(causal):
            weight, rows = self._response_rows(t[causal], s[causal], place, _FITS[0])
            _, check = self._response_rows(t[causal], s[causal], place, _FITS[1])
            finer, finer_rows = self._response_rows(t[causal], s[causal], place, _FITS[0], extra=1)
            # Along s row by row, so that differences of opposite sign do not hide each other; along t one degree more.
            result[causal] = (np.abs(weight) * np.abs(rows - check)).sum(axis=1)
            result[causal] += np.abs((weight * rows).sum(axis=1) - (finer * finer_rows).sum(axis=1))
        return result

    def _response_rows(
        self, t: FloatArray, s: FloatArray, place: int, fit: tuple[int, int], extra: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        """Stencil weights in t, and the response on each row of the stencil, (X, P) both."""
        weight, row, point, last, _ = self._causal_points(t, s, place, extra)
        along = fit_stencil(self.two_time.t, *fit, point, last)
        stored = self.two_time.integrated_response[place]
        rows = -(along.weight * stored[row.reshape(-1, 1), along.index]).sum(axis=1)
        return weight, rows.reshape(weight.shape)

    def at(self, times: ArrayLike) -> Curves:
        """Curves at other times, by local polynomials of the order of the rows around them.

        Parameters
        ----------
        times : float or (X,) float
            Times in [0, t[-1]]; the stored values where a time is a row.

        Raises
        ------
        ValueError
            For times outside the solved range.
        """
        x = np.atleast_1d(np.asarray(times, dtype=float)).ravel()
        check_inside("times", x, self.t)

        def curve(values: FloatArray | None) -> FloatArray | None:
            return None if values is None else interpolate(self.t, values, self.order, x)

        nu = curve(self._nu)
        assert nu is not None
        return Curves(
            problem=self.problem,
            t=x,
            a=curve(self._network.get("a")),
            v=curve(self._network.get("v")),
            nu=nu,
            train_error=curve(self._network.get("train_error")),
            test_error=curve(self._network.get("test_error")),
            energy=curve(self._energy),
            # The modulus of an error is not smooth: straight lines keep it positive.
            energy_balance=interpolate(self.t, self._energy_balance, 1, x),
        )

    def minimum(self) -> Minimum:
        """Minimum of the test error, refined between the rows.

        Returns
        -------
        Minimum
            ``found_interior`` is False when the smallest value is the first or the last one, so that it may be no
            minimum at all.
        """
        best = int(np.argmin(self.test_error))
        time, value = float(self.t[best]), float(self.test_error[best])
        if best in (0, len(self.t) - 1):
            return Minimum(time, value, False)
        low, high = float(self.t[best - 1]), float(self.t[best + 1])
        for _ in range(8):  # each pass narrows the bracket 32 times; a minimum is flat, sqrt(rounding) is reached first
            points = np.linspace(low, high, 65)
            # At least a parabola: straight lines have their minimum at a row.
            degree = np.maximum(cell_degree(self.t, self.order, points), 2)
            values = local_stencil(self.t, degree, points).apply(self.test_error)
            place = int(np.argmin(values))
            if values[place] < value:
                time, value = float(points[place]), float(values[place])
            low, high = float(points[max(place - 1, 0)]), float(points[min(place + 1, 64)])
        return Minimum(time, value, True)

    @property
    def interrupted(self) -> bool:
        """Whether the run or its check was interrupted, so that there is something to resume."""
        checked = self.verification
        return self.status is Status.INTERRUPTED or (checked is not None and checked.status is Status.INTERRUPTED)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to an HDF5 file, whole or not at all; see `dmft.files`."""
        from dmft.files import save

        save(self, path)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write the curves to a CSV file with commented header lines, whole or not at all."""
        from dmft.files import save_csv

        save_csv(self, path)

    def plot(self, path: str | PathLike[str] | None = None, simulations: Sequence[Simulation] = ()) -> Figure:
        """Draw the story of the run against logarithmic time; also write it to ``path`` when given.

        Finite-size ``simulations`` of the same problem are added as points with two standard errors.
        """
        from dmft.plots import plot

        return plot(self, path, simulations)

    def summary(self) -> str:
        """Short table: start, minimum of the test error, end, and how far to trust them."""
        formulation = self.formulation
        if formulation.residual_sector:
            size = f"m = {formulation.width}, n/(m d) = {formulation.alpha:g}"
            if formulation.infinite_width:
                size = f"m = infinity, n/d = {formulation.alpha * formulation.width:g}, time alpha t"
            head = f"{self.problem.name} network, {size}"
            if not self.problem.exchangeable:
                head += f", {formulation.groups} groups"
        else:
            head = f"{self.problem.name} model"
        if self.optimizer is not None:
            head += f", {self.optimizer.describe()}"
        moments = [("start", float(self.t[0]))]
        if formulation.residual_sector and self.minimum().found_interior:
            moments.append(("test minimum", self.minimum().time))
        if len(self.t) > 1:
            moments.append(("end", float(self.t[-1])))
        curves = self.at([time for _, time in moments])
        table = [["", "t", *(name for name, _ in _summary_columns(curves))]]
        for row, (label, time) in enumerate(moments):
            table.append([label, f"{time:.6g}", *(f"{column[row]:.6g}" for _, column in _summary_columns(curves))])
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs))
            for pairs in ([*zip(line, widths, strict=True)] for line in table)
        ]
        stats = self.stats
        balance = float(np.median(self.energy_balance))
        error = f"error  estimated {stats.estimated_error:.1e} (rtol {self.rtol:.1e}), "
        error += f"energy balance {balance:.1e} (median)"
        if self.method.startswith("limit:"):  # what a limit leaves out is of higher order in 1/m, and not measured here
            error = f"error  not estimated: a limit, solved at rtol {self.rtol:.1e}"
        if self.optimizer is not None:
            error = f"error  {self.stats.estimated_error:.1e} of e_tr (rounding and thinning), estimated"
            if self.optimizer.batch_fraction == 1.0:
                error += f"; energy balance {balance:.1e} (median) is the distance from flow"
        check = [] if self.verification is None else [f"check  {self.verification.verdict}"]
        return "\n".join(
            [
                head,
                *lines,
                f"status {self.status.value}: {self.message}",
                error,
                *check,
                f"work   {stats.rows} rows, {stats.rejected} rejected, {stats.iterations} iterations, "
                f"{stats.wall_time:.2f} s, {self.method}",
            ]
        )

    def __repr__(self) -> str:
        return (
            f"<Solution of {self.problem.kind}: {len(self.t)} rows to t = {float(self.t[-1]):g}, {self.status.value}>"
        )


def _summary_columns(curves: Curves) -> list[tuple[str, FloatArray]]:
    """Curves of the summary table; averages over neurons where they differ."""
    if not curves.formulation.residual_sector:
        return [("energy", curves.energy), ("nu", curves.nu)]
    share = curves.formulation.sizes / curves.formulation.width
    a, v = curves._network["a"], curves._network["v"]
    infinite = curves.formulation.infinite_width
    root = 1.0 if infinite else np.sqrt(curves.formulation.width)
    size = np.sqrt(a**2 @ share) / root
    overlap = np.sqrt((v**2).sum(axis=2) @ share)
    learned = np.einsum("ng,ngk,g->nk", a, v, share)
    second = "a" if infinite else "a/sqrt(m)"
    if curves.problem.exchangeable and v.shape[2] == 1:
        names = (second, "v", "a v")
        size, overlap, product = a[:, 0] / root, curves.v, learned[:, 0]
    else:
        names = (f"rms {second}", "rms |v|", "|mean a v|")
        product = np.linalg.norm(learned, axis=1)
    return [
        ("train error", curves.train_error),
        ("test error", curves.test_error),
        *zip(names, (size, overlap, product), strict=True),
    ]

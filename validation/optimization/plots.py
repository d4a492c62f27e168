"""Figures of the optimization threshold."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.limits.base import LimitError
from dmft.limits.plateau import predicted_threshold
from dmft.plots import _BLUE, _GREEN, _GREY, _ORANGE, _PURPLE, _STYLE, _write
from dmft.targets import Target
from validation.optimization import study as _study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from validation.optimization.study import Study
    from validation.optimization.threshold import OptimizationThreshold

FloatArray = NDArray[np.float64]

_RATIO = r"$\bar\alpha = n/d$"
_TIME = r"$t_{\mathrm{mf}} = \alpha t$"
_COLORS = (_BLUE, _ORANGE, _GREEN, _PURPLE, "#E69F00", "#56B4E9", _GREY)
_NAMES = {"cubic": r"$0.9z + z^3/6$", "quad": r"$0.9z + z^2/2$"}


def plot_threshold(found: OptimizationThreshold, path: str | PathLike[str] | None = None) -> Figure:
    """Time of unlearning against the distance to the threshold, and v at the end of the runs against n/d.

    Parameters
    ----------
    found : OptimizationThreshold
    path : path, optional
        Where to write it as well.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.
    """

    def draw(left: Axes, right: Axes) -> None:
        _divergence(left, found, _BLUE, "")
        runs = [run for run in found.evidence if run.regime == "plateau" or run.leaves]
        for regimes, marker, color, label in (
            (("interpolates", "unlearns"), "v", _ORANGE, "unlearns"),
            (("plateau",), "o", _BLUE, "plateau"),
        ):
            chosen = [run for run in runs if run.regime in regimes]
            right.semilogx(
                [run.sample_ratio for run in chosen], [run.v_end for run in chosen], marker, ms=4, color=color,
                label=label,
            )  # fmt: skip
        right.axvspan(found.low, found.high, color=_GREY, alpha=0.3, lw=0)
        if found.predicted is not None:
            right.axvline(found.predicted, color=_GREY, lw=0.8, ls=(0, (4, 3)), label="end of the plateau, theory")
        right.set_xlabel(_RATIO)
        right.set_ylabel("overlap $v$ at the end")
        right.set_ylim(0.0, 1.0)
        right.legend(loc="best")

    title = rf"$\tau$ = {found.noise_std:g}: {found.value:.5g} in [{found.low:.5g}, {found.high:.5g}]"
    return _figure(draw, path, title)


def all_figures(found: Study, out: str | PathLike[str]) -> list[Path]:
    """Draw every figure that there are runs for, as PNG.

    Parameters
    ----------
    found : Study
    out : path
        Directory.

    Returns
    -------
    list of Path
        What was written.
    """
    drawings: dict[str, tuple[tuple[Callable[[Axes, Study], None], Callable[[Axes, Study], None]], str]] = {
        "optimization_plane": (
            (_plane, _stopping),
            rf"index target, $a(0) = 1$, $m = \infty$; single runs and right panel: $h$ = {_NAMES['cubic']}",
        ),
        "optimization_plateau": (
            (_plateau_curves, _plateau_laws),
            "the plateau: theory (lines) and DMFT (points)",
        ),
        "optimization_divergence": (
            (_lingering, _divergences),
            "lingering, then unlearning",
        ),
        "optimization_dependence": (
            (_widths, _starts),
            rf"width ($\tau$ = {_study.ALPHA_NOISE:g}) and initial second layer ($\tau$ = 1), {_NAMES['cubic']}",
        ),
        "optimization_width": (
            (_growing, _expansion),
            rf"$m \to \infty$ at fixed $\alpha$ = {_study.ALPHA:g}, {_NAMES['cubic']}, $\tau$ = {_study.ALPHA_NOISE:g}",
        ),
    }
    written = []
    for name, ((on_left, on_right), title) in drawings.items():
        path = Path(out) / f"{name}.png"

        def draw(left: Axes, right: Axes, first: Any = on_left, second: Any = on_right) -> None:
            first(left, found)
            second(right, found)

        _figure(draw, path, title)
        written.append(path)
    return written


def _figure(draw: Callable[[Axes, Axes], None], path: str | PathLike[str] | None, title: str) -> Figure:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(7.4, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw(left, right)
        figure.suptitle(title, fontsize=9, color=_GREY)
        if path is not None:
            _write(figure, path)
    return figure


def _divergence(panel: Axes, found: OptimizationThreshold, color: str, label: str) -> None:
    left = [run for run in found.evidence if run.leaves and run.unlearning is not None]
    center = found.divergence.value if found.divergence is not None else found.value
    distance = np.array([center / run.sample_ratio - 1.0 for run in left])
    times = np.array([run.unlearning for run in left], dtype=float)
    inside = distance > 0.0
    panel.loglog(distance[inside], times[inside], "o", color=color, ms=3.5, label=label or "runs")
    if found.exponent is not None and inside.any():
        near = int(np.argmin(np.where(inside, distance, np.inf)))
        grid = np.geomspace(distance[near], min(0.15, distance[inside].max()), 50)
        law = times[near] * (grid / distance[near]) ** -found.exponent.value
        panel.loglog(grid, law, color=color, lw=0.9, label=None if label else f"exponent {found.exponent.value:.2f}")
    panel.set_xlabel(r"$\bar\alpha_c/\bar\alpha - 1$")
    panel.set_ylabel("time of unlearning, " + _TIME)
    panel.legend(loc="best")


def _theory(name: str, noises: FloatArray) -> FloatArray:
    sigma = _study.activation(name)
    values = []
    for tau in noises:
        try:
            values.append(predicted_threshold(sigma, Target.same_as(sigma), float(tau)))
        except LimitError:
            values.append(np.nan)
    return np.array(values)


def _plane(panel: Axes, found: Study) -> None:
    noises = np.geomspace(0.1, 8.0, 15)
    for name, color in (("cubic", _BLUE), ("quad", _ORANGE)):
        panel.loglog(noises, _theory(name, noises), color=color, lw=1.2, label=f"theory, {_NAMES[name]}")
        pairs = found.select(activation=name, a0=1.0, width=None, third=None)
        panel.loglog([p[0].noise_std for p in pairs], [p[1].value for p in pairs], "o", color=color, ms=4.5, mfc="w")
    panel.plot([], [], "o", color=_GREY, ms=4.5, mfc="w", label="thresholds found")
    for regime, marker, size, label in (
        ("interpolates", "x", 4.0, "run interpolates"),
        ("unlearns", "+", 5.0, "run unlearns"),
        ("plateau", ".", 4.0, "run stays on a plateau"),
    ):
        chosen = [f for f in found.group("plane") if f.run.regime == regime]
        panel.loglog(
            [f.what.noise_std for f in chosen], [f.what.sample_ratio for f in chosen], marker, color=_GREY, ms=size,
            label=label,
        )  # fmt: skip
    panel.set_xlabel(r"label noise $\tau$")
    panel.set_ylabel(_RATIO)
    panel.set_ylim(None, 30.0 * max(_study.PLANE_RATIOS))
    panel.legend(loc="upper left", ncols=2, fontsize=7)


def _stopping(panel: Axes, found: Study) -> None:
    noises = sorted({f.what.noise_std for f in found.group("plane")})
    for place, tau in enumerate(noises[::2]):
        runs = sorted(found.group("plane", noise_std=tau), key=lambda f: f.what.sample_ratio)
        x = np.array([f.what.sample_ratio for f in runs]) / tau**2
        color = _COLORS[place % len(_COLORS)]
        panel.loglog(x, [f.run.test_minimum - 1.0 for f in runs], "-", color=color, label=rf"$\tau$ = {tau:g}")
        stay = [f.run.regime == "plateau" for f in runs]
        panel.loglog(x[stay], [f.run.test_end - 1.0 for f, keep in zip(runs, stay, strict=True) if keep], "--", lw=1,
                     color=color)  # fmt: skip
        left = [f.run.leaves for f in runs]
        panel.loglog(x[left], [f.run.test_end - 1.0 for f, keep in zip(runs, left, strict=True) if keep], ":", lw=1,
                     color=color)  # fmt: skip
    panel.set_xlabel(r"$\bar\alpha/\tau^2$")
    panel.set_ylabel(r"$2e_{\mathrm{ts}}/\tau^2 - 1$: best (—), final (--, $\cdots$)")
    panel.legend(loc="best", fontsize=7)


def _plateau_curves(panel: Axes, found: Study) -> None:
    for name, color in (("cubic", _BLUE), ("quad", _ORANGE)):
        runs = sorted(found.group("plateau", activation=name, noise_std=1.0), key=lambda f: f.what.sample_ratio)
        theory = [_study.theory_of(f.what) for f in runs]
        x = np.array([f.what.sample_ratio for f in runs])
        for what, marker in (("a", "o"), ("v", "s")):
            points = np.array([abs(getattr(f.run, f"{what}_end") - 1.0) for f in runs])
            lines = np.array([np.nan if p is None else abs(getattr(p, what) - 1.0) for p in theory])
            label = f"{'a - 1' if what == 'a' else '1 - v'}, {_NAMES[name]}".replace("a - 1", "$a - 1$").replace(
                "1 - v", "$1 - v$"
            )
            panel.loglog(x, points, marker, color=color, ms=4, mfc="w" if what == "v" else color, label=label)
            panel.loglog(x, lines, color=color, lw=1.0)
    x = np.geomspace(2e4, 4e5, 10)
    panel.loglog(x, 3.0 * x**-0.5, color=_GREY, lw=0.8, ls=":", label=r"$\bar\alpha^{-1/2}$")
    panel.set_xlabel(_RATIO)
    panel.set_ylabel("distance to the truth")
    panel.legend(loc="best", fontsize=7)


def _plateau_laws(panel: Axes, found: Study) -> None:
    for place, (name, tau) in enumerate(_study.plateau_sets(found)):
        runs = sorted(found.group("plateau", activation=name, noise_std=tau), key=lambda f: f.what.sample_ratio)
        pairs = [(f, p) for f in runs if (p := _study.theory_of(f.what)) is not None and f.run.regime == "plateau"]
        start = min(p.sample_ratio for _, p in pairs)
        x = [f.what.sample_ratio / start * _study.LEVELS[0] - 1.0 for f, _ in pairs]
        color = _COLORS[place]
        for marker, values in (
            ("o", [abs(f.run.v_end / p.v - 1.0) for f, p in pairs]),
            ("s", [abs(f.run.a_end / p.a - 1.0) for f, p in pairs]),
            ("^", [abs(f.run.nu_end / p.nu - 1.0) for f, p in pairs]),
        ):
            panel.loglog(x, values, marker, color=color, ms=3.5, mfc="w" if marker == "s" else color)
        panel.loglog([], [], "o", color=color, ms=3.5, label=rf"{_NAMES[name]}, $\tau$ = {tau:g}")
    for marker, label in (("o", "$v$"), ("s", "$a$"), ("^", r"$\nu$")):
        panel.loglog([], [], marker, color=_GREY, ms=3.5, mfc="w" if marker == "s" else _GREY, label=label)
    panel.set_xlabel(r"$\bar\alpha/\bar\alpha_c - 1$")
    panel.set_ylabel("|DMFT/theory - 1|, at $10^4$ glass times")
    panel.legend(loc="lower left", fontsize=7)


def _lingering(panel: Axes, found: Study) -> None:
    runs = [f for f in found.group("growing") if f.what.width is not None and f.what.width >= 128]
    runs = sorted(runs, key=lambda f: f.what.sample_ratio)
    from matplotlib import colormaps

    for place, f in enumerate(runs):
        shade = colormaps["viridis"](0.92 * place / max(1, len(runs) - 1))
        panel.semilogx(f.curves["t"][1:], f.curves["v"][1:], color=shade, lw=1.0)
        if place in (0, len(runs) - 1):
            panel.semilogx([], [], color=shade, lw=1.0, label=rf"{_RATIO[:-1]} = {_number(f.what.sample_ratio)}$")
    panel.set_xlim(1e-1, None)
    panel.set_xlabel(_TIME)
    panel.set_ylabel("overlap $v$")
    title = rf"$h$ = {_NAMES['cubic']}," + "\n" + rf"$\tau$ = {_study.ALPHA_NOISE:g}, $\alpha$ = {_study.ALPHA:g}"
    panel.legend(loc="center right", fontsize=7, title=title, title_fontsize=7, alignment="left", handlelength=1.4)


def _number(x: float) -> str:
    """Four digits, in TeX; powers of ten from 10^5 on."""
    power = int(np.floor(np.log10(1.00005 * x)))
    return f"{x:.4g}" if power < 5 else rf"{x / 10.0**power:.2f} \cdot 10^{{{power}}}"


def _divergences(panel: Axes, found: Study) -> None:
    chosen = [("cubic", 1.0), ("cubic", 2.0), ("quad", 1.0), ("quad", 2.0)]
    for (name, tau), color in zip(chosen, _COLORS, strict=False):
        for _, threshold in found.select(activation=name, noise_std=tau, a0=1.0, width=None, third=None):
            z = "" if threshold.exponent is None else f": exponent {threshold.exponent.value:.2f}"
            _divergence(panel, threshold, color, rf"{_NAMES[name]}, $\tau$ = {tau:g}{z}")
    panel.legend(loc="best", fontsize=7)


def _widths(panel: Axes, found: Study) -> None:
    limits = found.select(activation="cubic", noise_std=_study.ALPHA_NOISE, a0=1.0, width=None, third=None)
    if not limits:
        return
    limit = limits[0]
    pairs = sorted(
        (pair for pair in found.select(activation="cubic", noise_std=_study.ALPHA_NOISE) if pair[0].width),
        key=lambda pair: pair[0].width or 0,
    )
    alpha = np.array([p[1].value / float(p[0].width or 1) for p in pairs])
    value = np.array([p[1].value for p in pairs])
    error = [value - [p[1].low for p in pairs], [p[1].high for p in pairs] - value]
    panel.errorbar(alpha, value, error, fmt="o", ms=4, color=_BLUE, label=r"finite $m$")
    panel.axhspan(limit[1].low, limit[1].high, color=_GREY, alpha=0.3, lw=0, label=r"$m = \infty$")
    panel.set_xscale("log")
    panel.set_ylim(0.9 * limit[1].value, 1.05 * limit[1].value)
    panel.set_xlabel(r"$\alpha = n/(md)$ at the threshold")
    panel.set_ylabel(r"$\bar\alpha_c$")
    panel.legend(loc="best")


def _starts(panel: Axes, found: Study) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    pairs = sorted(found.select(activation="cubic", noise_std=1.0, width=None, third=None), key=lambda pair: pair[0].a0)
    if not pairs:
        return
    panel.loglog([p[0].a0 for p in pairs], [p[1].value for p in pairs], "o", color=_BLUE, ms=4, label="found")
    predicted = pairs[0][1].predicted
    if predicted is not None:
        panel.axhline(predicted, color=_GREY, lw=0.8, ls=(0, (4, 3)), label="end of the plateau, theory")
    for axis, labelled in ((panel.xaxis, (1.0, 3.0)), (panel.yaxis, (1.0, 2.0, 5.0))):
        axis.set_major_locator(LogLocator(subs=labelled))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("$a(0)$")
    panel.set_ylabel(r"$\bar\alpha_c$")
    panel.legend(loc="upper left")


def _growing(panel: Axes, found: Study) -> None:
    rows = sorted(found.group("growing"), key=lambda f: f.what.width or 0)
    left = [f for f in rows if f.run.interpolation is not None]
    stay = [f for f in rows if f.run.regime == "plateau"]
    width = np.array([float(f.what.width or 0) for f in left])
    time = np.array([f.run.interpolation for f in left], dtype=float) / _study.ALPHA
    panel.loglog(width, time / width, "o-", color=_BLUE, ms=3.5, lw=1.0, label="interpolates")
    ends = np.array([f.run.t_end / _study.ALPHA / float(f.what.width or 1) for f in stay])
    panel.loglog([f.what.width for f in stay], ends, "^", color=_ORANGE, ms=4, label="no interpolation up to here")
    for pair in found.select(activation="cubic", noise_std=_study.ALPHA_NOISE, a0=1.0, width=None, third=None):
        panel.axvline(pair[1].value / _study.ALPHA, color=_GREY, lw=0.8, ls=(0, (4, 3)), label=r"$\bar\alpha_c/\alpha$")
    panel.set_xlabel("$m$")
    panel.set_ylabel("time $t$ of interpolation over $m$")
    panel.legend(loc="best")


def _expansion(panel: Axes, found: Study) -> None:
    t, growth, widths = _study.expansion(found)
    for (width, (times, difference)), color in zip(sorted(widths.items()), _COLORS, strict=False):
        good = difference > 1e-6
        panel.loglog(
            times[good] / np.sqrt(width), np.sqrt(width) * difference[good], color=color, lw=1.2, label=f"m = {width}"
        )
        panel.loglog(t / np.sqrt(width), growth / np.sqrt(width), color=color, lw=0.8, ls=":")
    panel.set_xlim(2e-2, 3e2)
    panel.set_ylim(1e-2, 1e2)
    panel.set_xlabel(r"$t/\sqrt{m}$")
    panel.set_ylabel(r"$\sqrt{m}\,(a - a_{\mathrm{mf}})$; first order in $1/m$ ($\cdots$)")
    panel.legend(loc="best", fontsize=7)

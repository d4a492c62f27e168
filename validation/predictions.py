"""Predicted time scales against true networks: where the theory says when something happens, and where it does not.

``python -m validation.predictions`` runs the ``predict_*`` configurations (through the gallery's machinery, so that
finished runs are reused), reads the events of `dmft.time_scales` off theory and simulations, and writes
``predictions.json``, ``predictions.md`` and ``predictions.png``: the ratio of the simulated to the predicted time of
every event. Nothing is extrapolated: the table takes the largest dimension, predictions.json has the smaller one too,
which shows what is left of finite d.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft import config as configuration
from dmft.files import atomic_path, atomic_write
from validation import experiment
from validation.scales import Event, time_scales

if TYPE_CHECKING:
    from dmft.simulation import Simulation
    from dmft.solution import Solution

PREFIX = "predict_"
EVENTS = ("learning_90", "minimum", "overfitting", "growth", "overlap_loss", "test_rise", "t0(0.3)", "interpolation")
"""Events of `validation.scales.events` that are compared, as far as a run has them."""
TOLERANCE = 0.25
"""A prediction holds when the times agree to this in their logarithm, beyond two standard errors of the simulation."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One event of one network beside its prediction.

    Attributes
    ----------
    setting : str
        Name of the configuration.
    width, dimension : int
    event : str
    predicted, simulated : float or None
        Times; None where the event did not happen.
    ratio, low, high : float or None
        Simulated over predicted time, with the range of the simulated one (one standard error and resolution).
    verdict : str
        "holds", "off", "only theory", "only simulation", "neither".
    """

    setting: str
    width: int
    dimension: int
    event: str
    predicted: float | None
    simulated: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str


def predictions(setting: str, solution: Solution, simulations: Sequence[Simulation]) -> list[Prediction]:
    """Compare the events of a solution with those of simulations of the same problem.

    Raises
    ------
    TypeError, ValueError
        As `dmft.time_scales`.
    """
    theory = {event.name: event for event in time_scales([solution]).events}
    records = []
    for simulation in simulations:
        found = {event.name: event for event in time_scales([simulation]).events}
        for name in dict.fromkeys((*theory, *found)):
            records.append(_record(setting, simulation, name, theory.get(name), found.get(name)))
    return records


def _record(setting: str, simulation: Simulation, name: str, theory: Event | None, found: Event | None) -> Prediction:
    predicted = theory.time if theory is not None else None
    simulated = found.time if found is not None else None
    ratio = low = high = None
    verdict = {(False, False): "neither", (True, False): "only theory", (False, True): "only simulation"}.get(
        (predicted is not None, simulated is not None), "off"
    )
    if predicted is not None and simulated is not None and found is not None and predicted > 0.0:
        ratio = simulated / predicted
        low = (found.low if found.low is not None else simulated) / predicted
        high = (found.high if found.high is not None else simulated) / predicted
        spread = 2.0 * max(abs(np.log(high / ratio)), abs(np.log(max(low, 1e-12) / ratio)))
        verdict = "holds" if abs(np.log(ratio)) <= TOLERANCE + spread else "off"
    return Prediction(
        setting=setting,
        width=simulation.formulation.width,
        dimension=simulation.settings.dimension,
        event=name,
        predicted=predicted,
        simulated=simulated,
        ratio=ratio,
        low=low,
        high=high,
        verdict=verdict,
    )


def table(records: Sequence[Prediction]) -> str:
    """Markdown: one row an event and activation, one column a width, of the largest dimension."""
    largest = max(record.dimension for record in records)
    widths = sorted({record.width for record in records})
    chosen = {(r.setting, r.event, r.width): r for r in records if r.dimension == largest}
    lines = [
        "| network | event | " + " | ".join(f"m = {m}" for m in widths) + " |",
        "|---|---|" + "---|" * len(widths),
    ]
    for setting, event in dict.fromkeys((r.setting, r.event) for r in records if r.event in EVENTS):
        row = [chosen.get((setting, event, m)) for m in widths]
        if all(one is None or one.verdict == "neither" for one in row):
            continue
        lines.append(f"| {setting.removeprefix(PREFIX)} | {event} | " + " | ".join(_cell(one) for one in row) + " |")
    return "\n".join(lines)


def _cell(record: Prediction | None) -> str:
    if record is None or record.verdict == "neither":
        return "-"
    if record.ratio is None or record.low is None or record.high is None:
        return record.verdict
    text = f"{record.ratio:.2f} ({record.low:.2f} to {record.high:.2f})"
    return text if record.verdict == "holds" else f"**{text}**"


def plot(records: Sequence[Prediction], path: Path) -> None:
    """Simulated against predicted times of all events, one panel an activation."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from dmft.plots import _STYLE

    largest = max(record.dimension for record in records)
    settings = list(dict.fromkeys(record.setting for record in records))
    shown = [r for r in records if r.dimension == largest and r.ratio is not None and r.event in EVENTS]
    names = [name for name in EVENTS if any(r.event == name for r in shown)]
    colors = ("#0072B2", "#D55E00", "#009E73", "#7B3294", "#E69F00", "#666666", "#56B4E9", "#000000")
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.0 * len(settings) + 0.6, 3.4), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(settings), sharex=True, sharey=True))
        for panel, setting in zip(panels, settings, strict=True):
            span = [t for r in shown for t in (r.predicted, r.simulated) if t]
            ends = np.array([0.7 * min(span), 1.4 * max(span)])
            panel.fill_between(ends, ends * np.exp(-TOLERANCE), ends * np.exp(TOLERANCE), color="#dddddd", lw=0)
            panel.plot(ends, ends, color="#666666", lw=0.7)
            for color, marker, name in zip(colors, "osD^vPX*", names, strict=False):
                rows = [r for r in shown if r.setting == setting and r.event == name]
                x = np.array([r.predicted for r in rows], dtype=float)
                y = np.array([r.simulated for r in rows], dtype=float)
                bars = [[(r.ratio - r.low) * r.predicted, (r.high - r.ratio) * r.predicted] for r in rows]  # type: ignore[operator]
                panel.errorbar(
                    x,
                    y,
                    np.maximum(np.array(bars).reshape(-1, 2).T, 0.0),
                    fmt=marker,
                    color=color,
                    ms=4,
                    mfc="white",
                    elinewidth=0.8,
                    label=name,
                )
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_title(setting.removeprefix(PREFIX), loc="left", fontsize=9)
            panel.set_xlabel("predicted time $t$")
        panels[0].set_ylabel(f"time in networks, $d$ = {largest}")
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside right upper")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lstrip("."), dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 1 when a run did not reach its end."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.predictions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("out/figures"), help="directory (default: %(default)s)")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="also write predictions.json there")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    records: list[Prediction] = []
    complete = True
    for name in [name for name in configuration.ready_names() if name.startswith(PREFIX)]:
        for member in configuration.read_members(name):
            result = experiment.run(member, options.out, workers=options.workers)
            complete &= result.solution.status.ok and all(s.status.ok for s in result.simulations)
            records += predictions(name, result.solution, result.simulations)
            print(f"== {member.name}", flush=True)
    text = json.dumps([_rounded(asdict(record)) for record in records], indent=1) + "\n"
    for directory in (options.out, options.reference):
        if directory is not None:
            atomic_write(directory / "predictions.json", text.encode())
    atomic_write(options.out / "predictions.md", (table(records) + "\n").encode())
    plot(records, options.out / "predictions.png")
    print(table(records))
    return 0 if complete else 1


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in record.items()}


if __name__ == "__main__":
    raise SystemExit(main())

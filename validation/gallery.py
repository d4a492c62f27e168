"""All ready configurations, each run to the end: figures, tables, and the small reference files of data/reference.

``python -m validation.gallery [NAME ...]`` takes configurations by name or by the beginning of one ("agree", "mu_fig");
without names all of them. What is in the output directory for just these parameters is not computed again, so an
interrupted gallery goes on where it stopped.

Beside the comparison of each configuration, three things are put together from several: a figure of each sweep, whether
the z-scores of all ``agree_*`` configurations are normal, and the gaps of all true networks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmft import config as configuration
from dmft.files import atomic_write
from validation import experiment, panel_plots, panels
from validation.comparison import Report, normality
from validation.comparison.plots import plot_family

AGREEMENT, NETWORKS = "agree_", "network_"
_CURVES = ("train_error", "test_error", "a", "v")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 1 when something that is to agree does not, or a run did not reach its end."""
    parser = argparse.ArgumentParser(prog="python -m validation.gallery", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="configurations, or beginnings of their names")
    parser.add_argument("--out", type=Path, default=Path("out/figures"), help="directory (default: %(default)s)")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="also write the small reference files there")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--dask", metavar="ADDRESS", help="run replicas on this dask.distributed scheduler")
    options = parser.parse_args(arguments)
    ready = configuration.ready_names()
    chosen = [name for name in ready if not options.names or any(_meant(name, word) for word in options.names)]
    if not chosen:
        parser.error(f"no configuration begins with {' or '.join(options.names)}; there are {', '.join(ready)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.reference is not None:
        options.reference.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Report] = {}
    complete = True
    for name in chosen:
        members = configuration.read_members(name)
        config = configuration.read(name)
        if config.figure is not None:
            complete &= _panels(config, members, options)
            continue
        results = []
        for member in members:
            started = time.perf_counter()
            result = experiment.run(member, options.out, workers=options.workers, dask=options.dask)
            results.append(result)
            complete &= result.solution.status.ok and all(s.status.ok for s in result.simulations)
            print(f"== {member.name}: {time.perf_counter() - started:.1f} s", flush=True)
            if result.report is None:
                print(result.solution.summary())
                continue
            reports[member.name] = result.report
            print(result.report.verdict, flush=True)
            if options.reference is not None:
                result.report.to_json(options.reference / f"{member.name}.json", digits=5)
        if len(members) > 1:
            plot_family([r.solution for r in results], [r.simulations for r in results], options.out / f"{name}.png")
    agreement = {name: report for name, report in reports.items() if name.startswith(AGREEMENT)}
    sound = True
    if agreement:
        sound = _write(options, "agreement", agreement_record(agreement))
    networks = {name: r for name, r in reports.items() if any(s.model == "network" for s in r.sections)}
    if networks:
        _write(options, "network_gaps", gap_record(networks))
    return 0 if complete and sound else 1


def _meant(name: str, word: str) -> bool:
    """Whether a configuration is asked for: by the beginning of its name, or as one of the figures it stands for."""
    if name.startswith(word):
        return True
    # The bare text: building the problem may warn, and is not needed for this.
    paper = tomllib.loads(configuration.ready_text(name)).get("figure", {}).get("paper", [])
    return re.fullmatch(r"mu_fig\d\d", word) is not None and int(word[-2:]) in paper


def _panels(config: configuration.Config, members: list[configuration.Config], options: argparse.Namespace) -> bool:
    """A figure with panels of its own; whether its runs ended as they should."""
    started = time.perf_counter()
    print(f"== {config.name}", flush=True)
    family = panels.solve(
        config, members, options.out, workers=options.workers, tell=lambda line: print(line, flush=True)
    )
    panel_plots.plot(family, options.out / f"{config.name}.png")
    found = panels.record(family)
    for number in found["numbers"]:
        print(f"   {number['name']}: {number['found']} (stated: {number['stated']})")
    atomic_write(options.out / f"{config.name}.json", (json.dumps(found, indent=1) + "\n").encode())
    print(f"== {config.name}: {time.perf_counter() - started:.1f} s", flush=True)
    return family.sound


def agreement_record(reports: dict[str, Report]) -> dict[str, Any]:
    """Largest |z| of each report, and whether all z-scores together are normal."""
    check = normality(list(reports.values()))
    return {
        "settings": {
            name: {
                "comparisons": len(report.rows),
                "max_abs_z": round(report.max_abs_z, 3),
                "family_wise_p": round(report.p_value, 4),
                "dimensions": list(report.sections[0].dimensions),
                "replicas": list(report.sections[0].replicas),
                "fit": report.sections[0].fit,
            }
            for name, report in reports.items()
        },
        "normality": {
            "z_scores": check.count,
            "independent": round(check.effective, 1),
            "distance": round(check.statistic, 4),
            "p_value": round(check.p_value, 4),
            "mean_square": round(check.mean_square, 4),
            "mean_square_p_value": round(check.mean_square_p_value, 4),
        },
        "sound": bool(
            all(report.max_abs_z <= 4.0 for report in reports.values())
            and min(check.p_value, check.mean_square_p_value) > 0.01
        ),
    }


def gap_record(reports: dict[str, Report]) -> dict[str, Any]:
    """Largest relative gap of each curve of the true networks, and how long it stays within 5 %."""
    record: dict[str, Any] = {}
    for name, report in reports.items():
        for section in report.sections:
            if section.model != "network":
                continue
            curves = [summary.observable for summary in section.summaries if summary.observable in _CURVES]
            within = {w.observable: w for w in report.within(0.05, series=section.name)}
            record[f"{name}: {section.name}"] = {
                "dimensions": list(section.dimensions),
                "curves": {
                    curve: {
                        "largest_gap": round(report.gap(curve, series=section.name).gap, 4),
                        "error": round(report.gap(curve, series=section.name).gap_error, 4),
                        "at_t": float(f"{report.gap(curve, series=section.name).t:.4g}"),
                        "within_5_percent_until": within[curve].until,
                        "beyond_from": within[curve].beyond,
                    }
                    for curve in curves
                },
            }
    return record


def _write(options: argparse.Namespace, name: str, record: dict[str, Any]) -> bool:
    text = json.dumps(record, indent=1) + "\n"
    print(f"== {name}\n{text}", flush=True)
    for directory in (options.out, options.reference):
        if directory is not None:
            atomic_write(directory / f"{name}.json", text.encode())
    return bool(record.get("sound", True))


if __name__ == "__main__":
    raise SystemExit(main())

"""Commands on finite networks: simulate, compare, and the demo, which does both."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dmft
from dmft.cli.border import (
    DONE,
    FAILED,
    BadInputError,
    StoppedError,
    bad_input,
    check_output,
    check_replaceable,
    one_line,
    print_json,
    read_config,
    say,
)
from dmft.cli.theory import Monitor, record, run_theory, verdict

if TYPE_CHECKING:
    from dmft.config import Config
    from dmft.solution import Solution
    from validation.comparison import Report


def simulate(arguments: argparse.Namespace) -> int:
    """Run the simulations of a configuration."""
    from validation import experiment

    with bad_input():
        config = read_config(arguments.config, arguments.set)
        if not config.simulate:
            raise BadInputError(f"config {arguments.config}: section [simulate] is missing.")
        out = Path(arguments.out if arguments.out is not None else f"{config.name}.h5")
        if out.is_dir():
            raise BadInputError(f"output {out} is a directory.")
        checked = experiment.check(config, workers=workers_of(arguments), dask=arguments.dask)
        single = arguments.out is not None and len(checked) == 1 and len(checked[0].settings) == 1
        stem = out.with_name(out.name.removesuffix(".h5"))
        for target in [out] if single else experiment.targets(config, stem, checked):
            check_output(target, keep=[Path(arguments.config)])
            check_replaceable(target)
            _check_no_theory(target)
        _say_unswept(config, "simulate")
    pairs = _guarded(
        lambda: experiment.run_simulations(
            config,
            stem,
            workers=workers_of(arguments),
            dask=arguments.dask,
            progress=Ticker(arguments),
            reuse=arguments.resume,
            checked=checked,
            file=out if single else None,
        ),
        advice=" What is finished is kept: repeat the command with --resume to go on.",
    )
    if arguments.json:
        print_json({"simulations": [simulation.record() | {"file": str(file)} for simulation, file in pairs]})
    elif not arguments.quiet:
        for simulation, file in pairs:
            print(simulation.summary())
            print(f"saved: {file}")
    failed = [simulation for simulation, _ in pairs if not simulation.status.ok]
    for simulation in failed:
        say(f"{simulation.status.value}: {one_line(simulation.message)}")
    return FAILED if failed else DONE


def _check_no_theory(path: Path) -> None:
    """Refuse to replace a run of the theory by a simulation."""
    from dmft.solution import Solution

    if path.exists():
        with contextlib.suppress(ValueError):
            if isinstance(dmft.load(path), Solution):
                raise BadInputError(f"output {path} holds a run of the theory; it is not overwritten by a simulation.")


def _say_unswept(config: Config, command: str) -> None:
    if config.swept:
        say(f"warning: [sweep] is for `dmft compare`; {command} uses the values of the other sections.")


def compare(arguments: argparse.Namespace) -> int:
    """Compare files, or run and compare a configuration (every member of its sweep)."""
    if len(arguments.files) == 1 and Path(arguments.files[0]).suffix not in (".h5", ".hdf5", ".nc"):
        return _compare_config(arguments)
    if len(arguments.files) == 1:
        raise BadInputError("compare needs a run and at least one simulation: dmft compare RUN.h5 SIMULATION.h5 ...")
    from dmft.simulation import Simulation

    with bad_input():
        if arguments.set:
            raise BadInputError("--set goes with a configuration, not with files.")
        loaded = [(Path(name), dmft.load(name)) for name in arguments.files]
        runs = [(file, found) for file, found in loaded if not isinstance(found, Simulation)]
        if len(runs) != 1:
            raise BadInputError(f"compare needs exactly one run of the theory among the files, not {len(runs)}.")
        file, solution = runs[0]
        simulations = [found for _, found in loaded if isinstance(found, Simulation)]
        report = dmft.compare(solution, simulations, level=arguments.level)
        files = []
        if arguments.out is not None:
            out = Path(arguments.out)
            out.mkdir(parents=True, exist_ok=True)
            for suffix, write in ((".csv", report.to_csv), (".json", report.to_json), (".png", report.plot)):
                target = out / f"{file.stem}-comparison{suffix}"
                check_output(target)
                write(target)
                files.append(target)
    _show(arguments, report, files)
    return DONE


def _compare_config(arguments: argparse.Namespace) -> int:
    from dmft import config as configuration
    from validation import experiment

    source = arguments.files[0]
    with bad_input():
        try:
            members = configuration.read_members(source, arguments.set)
        except (ValueError, TypeError) as error:
            raise BadInputError(f"config {source}: {error}") from None
        if not members[0].simulate:
            raise BadInputError(f"config {source}: section [simulate] is missing.")
        plans = [experiment.check(one, workers=workers_of(arguments), dask=arguments.dask) for one in members]
        out = Path(arguments.out if arguments.out is not None else f"out/{Path(source).stem}")
        out.mkdir(parents=True, exist_ok=True)
        check_output(out / "comparison.csv")
    code = DONE
    records = []
    for member, checked in zip(members, plans, strict=True):
        if len(members) > 1 and not arguments.quiet and not arguments.json:
            print(f"== {member.name}")
        result = _experiment(member, out, arguments, checked)
        assert result.report is not None
        records.append({"name": member.name, **result.report.to_dict(), "files": [str(file) for file in result.files]})
        if not arguments.json:
            _show(arguments, result.report, list(result.files))
        if not result.solution.status.ok:
            say(f"{result.solution.status.value}: {one_line(result.solution.message)}")
            code = FAILED
        for simulation in result.simulations:
            if not simulation.status.ok:
                say(f"{simulation.status.value}: {one_line(simulation.message)}")
                code = FAILED
    if arguments.json:
        print_json({"comparisons": records})
    return code


def demo(arguments: argparse.Namespace) -> int:
    """Solve and simulate the embedded example."""
    from validation import experiment

    out = Path(arguments.out)
    with bad_input():
        config = read_config("demo", arguments.set)
        out.mkdir(parents=True, exist_ok=True)
        check_output(out / "demo.csv")
        checked = experiment.check(config, workers=workers_of(arguments), dask=arguments.dask)
    if not arguments.quiet and not arguments.json:
        print("Mean-field training of a two-layer network on a single-index target (the first run compiles) ...")
    solution, saved = run_theory(config, out / "demo.h5", resume=False, quiet=arguments.quiet, bar=not arguments.json)
    with bad_input():
        solution.to_csv(out / "demo.csv")
    if not arguments.quiet and not arguments.json:
        print(_demo_table(solution))
    files = [saved, out / "demo.csv", out / "demo.png"]
    pairs = []
    if solution.status.ok and config.simulate:
        if not arguments.quiet and not arguments.json:
            print("Now small networks with the same parameters, trained on data ...")
        pairs = _guarded(
            lambda: experiment.run_simulations(
                config,
                out / "demo",
                workers=workers_of(arguments),
                dask=arguments.dask,
                progress=Ticker(arguments),
                reuse=False,
                checked=checked,
            ),
            advice="",
        )
        files += [file for _, file in pairs]
    with bad_input():
        simulations = [simulation for simulation, _ in pairs]
        solution.plot(out / "demo.png", simulations=simulations)
    if arguments.json:
        print_json(record(solution) | {"files": [str(file) for file in files]})
    elif not arguments.quiet:
        for simulation in simulations:
            print(simulation.summary())
        print("written: " + ", ".join(str(file) for file in files))
    return verdict(solution, saved)


def _demo_table(solution: Solution) -> str:
    facts = record(solution)
    minimum, final = facts["minimum"], facts["final"]
    overlap = final["v"] if isinstance(final["v"], float) else final["v"][0]
    rows = [
        ("time of the test-error minimum", minimum["t"]),
        ("test error there", minimum["test_error"]),
        (f"at t = {facts['t']:g}: test error", final["test_error"]),
        ("  train error e_tr", final["train_error"]),
        ("  a / sqrt(m)", final["gamma"]),
        ("  overlap v", overlap),
        ("  a v", final["a"] * overlap),
        ("estimated error of the curves", facts["estimated_error"]),
        ("energy balance violated by (median)", facts["energy_balance"]),
    ]
    return "\n".join(f"{name:<36} {value:>12.5g}" for name, value in rows)


# ---------------------------------------------------------------------------------------------------- running


def _experiment(config: Config, out: Path, arguments: argparse.Namespace, checked: Any) -> Any:
    from validation import experiment

    monitor = Monitor(not arguments.quiet and not arguments.json and sys.stderr.isatty(), arguments.quiet)
    return _guarded(
        lambda: experiment.run(
            config,
            out,
            workers=workers_of(arguments),
            dask=arguments.dask,
            rows=monitor,
            progress=Ticker(arguments),
            level=arguments.level,
            checked=checked,
        )
    )


def _guarded(call: Any, advice: str = " What is finished is kept: repeat the command to go on.") -> Any:
    """Run a computation: refusals are bad input, a failure or an interruption is said in one sentence."""
    from validation.simulations import SimulationError

    try:
        with bad_input(engine=True):
            return call()
    except SimulationError as error:
        raise StoppedError(one_line(error)) from None
    except KeyboardInterrupt as error:
        said = one_line(error) or "interrupted."
        raise StoppedError(f"{said}{advice}") from None


def workers_of(arguments: argparse.Namespace) -> int:
    """Number of processes asked for; all cores by default."""
    if arguments.workers is None:
        return len(os.sched_getaffinity(0))
    if arguments.workers < 1:
        raise BadInputError(f"--workers must be at least 1, not {arguments.workers}.")
    return int(arguments.workers)


class Ticker:
    """Progress of replicas: a bar on a terminal, nothing elsewhere."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._shown = not arguments.quiet and not arguments.json and sys.stderr.isatty()
        self._bar: Any = None

    def __call__(self, done: int, total: int, key: str) -> None:
        """Show that so many are done."""
        if not self._shown:
            return
        from tqdm import tqdm

        if self._bar is None or self._bar.total != total:
            form = "{percentage:3.0f}%|{bar:30}| {n} of {total} replicas [{elapsed}, {remaining} to go]"
            self._bar = tqdm(total=total, bar_format=form, file=sys.stderr, leave=False)
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()


def _show(arguments: argparse.Namespace, report: Report, files: list[Path]) -> None:
    if arguments.json:
        print_json(report.to_dict() | {"files": [str(file) for file in files]})
    elif not arguments.quiet:
        print(report)
        if files:
            print("written: " + ", ".join(str(file) for file in files))

"""A configuration run to the end: theory, simulations, comparison, with everything kept that was finished before.

One directory holds what a configuration gives: ``NAME.h5`` (theory), ``NAME-gaussian-d100.h5`` (simulations, one file
a model and dimension), ``NAME.csv``, ``NAME.json`` and ``NAME.png`` (comparison). A simulation with just the parameters
of the configuration is read instead of being computed again, and so is a solution if this very version of the package
has made it. While replicas run, the finished ones are in ``NAME-gaussian-HASH.replicas``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft.files import FileFormatError, load, save_result
from dmft.hdf5 import made_by_this_version
from dmft.optimizers import Optimizer
from dmft.simulation import Simulation
from dmft.solution import Solution
from dmft.status import Status
from dmft.verification import checkpoints
from solvers import solve
from solvers.base import CannotResumeError, ProgressCallback
from validation import replicas
from validation.simulations import Plan, SimulationError, SimulationInterrupt

if TYPE_CHECKING:
    from dmft.config import Config
    from validation.comparison import Report

Ticker = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Experiment:
    """What came out.

    Attributes
    ----------
    solution : Solution
    simulations : tuple of Simulation
    report : Report or None
        None without simulations.
    files : tuple of Path
        Everything that was written or found up to date.
    """

    solution: Solution
    simulations: tuple[Simulation, ...]
    report: Report | None
    files: tuple[Path, ...]


def check(config: Config, *, workers: int, dask: str | None) -> list[Plan]:
    """Check every ``[simulate]`` table of a configuration; errors and warnings as `dmft.simulate`."""
    return [
        Plan(
            config.problem,  # type: ignore[arg-type]  # checked there
            options.dimensions,
            workers=workers,
            dask=dask,
            config_text=config.text,
            **options.arguments(),
        )
        for options in config.simulate
    ]


def targets(config: Config, stem: Path, checked: list[Plan]) -> list[Path]:
    """The files that `run_simulations` writes."""
    return [
        _target(stem, tag, settings.dimension)
        for one, tag in zip(checked, tags(config), strict=True)
        for settings in one.settings
    ]


def _target(stem: Path, tag: str, dimension: int) -> Path:
    return _file(stem, f"-{tag}-d{dimension}.h5")


def tags(config: Config) -> list[str]:
    """Short names of the ``[simulate]`` tables of a configuration: gaussian, network-batch100, gaussian-momentum.

    Tables of different dimensions may share one; those that share a dimension too are numbered.
    """
    names: list[str] = []
    taken: set[tuple[str, Any]] = set()
    for options in config.simulate:
        plain = str(options.model or "gaussian")
        if isinstance(options.optimizer, Optimizer):
            plain += f"-{options.optimizer.kind}"
        elif options.batch is not None:
            plain += f"-batch{options.batch}"
        elif options.step is not None or options.learning_rate is not None:
            plain += "-gd"
        name, number = plain, 2
        while any((name, d) in taken for d in options.dimensions):
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
        taken |= {(name, d) for d in options.dimensions}
    return names


def run_simulations(
    config: Config,
    stem: Path,
    *,
    workers: int = 1,
    dask: str | None = None,
    progress: Ticker | None = None,
    stop: Callable[[], bool] | None = None,
    reuse: bool = True,
    checked: list[Plan] | None = None,
    file: Path | None = None,
) -> list[tuple[Simulation, Path]]:
    """Run every ``[simulate]`` table of a configuration and save one file a dimension.

    Parameters
    ----------
    config : Config
    stem : path
        Files are ``<stem>-<tag>-d<dimension>.h5``.
    workers, dask, progress, stop
        As for `dmft.simulate`.
    reuse : bool
        Read files that hold just this simulation already, and go on from finished replicas.
    checked : list of Plan, optional
        What `check` gave, when it was called before.
    file : path, optional
        Where to save a simulation that is the only one.

    Returns
    -------
    list of (Simulation, Path)

    Raises
    ------
    TypeError, ValueError, SimulationError, OSError
        As `dmft.simulate`; everything is checked before anything runs.
    KeyboardInterrupt
        When interrupted; what is finished is kept for the next time.
    """
    if checked is None:
        checked = check(config, workers=workers, dask=dask)
    results: list[tuple[Simulation, Path]] = []
    for one, tag in zip(checked, tags(config), strict=True):
        # Named after what the replicas depend on: those of other parameters are left alone.
        store = _file(stem, f"-{tag}-{one.fingerprint()[:8]}.replicas")
        files = {s.dimension: file or _target(stem, tag, s.dimension) for s in one.settings}
        found = {d: _finished(place, one, d) if reuse else None for d, place in files.items()}
        missing = [d for d, simulation in found.items() if simulation is None]
        if missing:
            if not reuse:
                replicas.discard(store)
            todo = one.restricted(missing, checkpoint=store, resume=True, progress=progress, stop=stop)
            try:
                made = todo.run()
            except (SimulationError, SimulationInterrupt) as error:
                for simulation in error.simulations:
                    save_result(simulation, files[simulation.settings.dimension])
                raise
            for simulation in made:
                d = simulation.settings.dimension
                files[d], found[d] = save_result(simulation, files[d]), simulation
            if any(simulation.status is Status.INTERRUPTED for simulation in made):
                raise KeyboardInterrupt(f"interrupted; finished replicas are kept in {store}.")
            if all(simulation is not None and simulation.status is Status.DONE for simulation in found.values()):
                replicas.discard(store)
        results += [(simulation, files[d]) for d, simulation in found.items() if simulation is not None]
    return results


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # a name may have a dot of its own: fig-alpha0.3


def _finished(file: Path, check: Plan, dimension: int) -> Simulation | None:
    """The simulation in a file, if it is just the one that is planned."""
    if not file.exists():
        return None
    try:
        found = load(file)
    except FileFormatError:
        return None
    settings = next(s for s in check.settings if s.dimension == dimension)
    times, pair_times = check.recorded(settings)
    same = (
        isinstance(found, Simulation)
        and found.status is Status.DONE
        and found.problem == check.problem
        and found.settings == settings
        and found.replica_index.tolist() == check.replicas
        and np.array_equal(found.t, times)
        and np.array_equal(found.pair_times, pair_times)
    )
    return found if same and isinstance(found, Simulation) else None


def theory(config: Config, file: Path, *, progress: ProgressCallback | None = None, reuse: bool = True) -> Solution:
    """Solve the theory of a configuration and save it, or read the file that holds it already.

    A file is read only when the very same version of the package has made it; a run that was stopped goes on from its
    checkpoint ``<file>.checkpoint``.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; the checkpoint and the partial result are kept.
    """
    if reuse and file.exists():
        found = _solved(config, file)
        if found is not None:
            return found
    checkpoint = _file(file, ".checkpoint")

    def call(resume: bool) -> Solution:
        return solve(
            config.problem,
            config.solve.t_final,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
            config_text=config.text,
            **config.solve.arguments(),
        )

    try:
        solution = call(reuse and checkpoint.exists())
    except CannotResumeError:  # of other parameters
        solution = call(False)
    save_result(solution, file)
    if solution.interrupted:
        raise KeyboardInterrupt(f"interrupted at t = {float(solution.t[-1]):.4g} of the theory.")
    for place in checkpoints(checkpoint):
        place.unlink(missing_ok=True)
    return solution


def _solved(config: Config, file: Path) -> Solution | None:
    """The solution in a file, if it is just the one that this version of the package would find."""
    try:
        found = load(file)
        same_version = made_by_this_version(file)
    except FileFormatError:
        return None
    options = config.solve
    rtol, end = options.rtol, options.t_final
    if options.optimizer is not None:  # whole updates, with no tolerance
        rtol, end = 0.0, options.optimizer.updates(config.problem, end) * options.optimizer.step(config.problem)
    same = (
        isinstance(found, Solution)
        and same_version
        and found.status is Status.DONE
        and not found.interrupted
        and found.problem == config.problem
        and found.optimizer == options.optimizer
        and found.rtol == rtol
        and float(found.t[-1]) == end
        and found.config_text == config.text
    )
    return found if same and isinstance(found, Solution) else None


def run(
    config: Config,
    directory: Path,
    *,
    workers: int = 1,
    dask: str | None = None,
    rows: ProgressCallback | None = None,
    progress: Ticker | None = None,
    stop: Callable[[], bool] | None = None,
    level: float = 0.01,
    reuse: bool = True,
    checked: list[Plan] | None = None,
) -> Experiment:
    """Theory, simulations and their comparison for one configuration.

    Parameters
    ----------
    config : Config
    directory : path
        Where the files go; must exist.
    workers, dask, progress, stop
        As for `dmft.simulate`.
    rows : callable, optional
        Progress of the theory.
    level : float
        Family-wise level of the verdict, see `dmft.compare`.
    reuse : bool
        Read what is there already for just these parameters.
    checked : list of Plan, optional
        What `check` gave, when it was called before.

    Raises
    ------
    TypeError, ValueError, SimulationError, OSError
        As `dmft.solve`, `dmft.simulate` and `dmft.compare`.
    """
    from validation.comparison import compare

    stem = directory / config.name
    if checked is None:
        checked = check(config, workers=workers, dask=dask)  # refuse before the theory is solved
    solution = theory(config, _file(stem, ".h5"), progress=rows, reuse=reuse)
    pairs = run_simulations(
        config, stem, workers=workers, dask=dask, progress=progress, stop=stop, reuse=reuse, checked=checked
    )
    files = [_file(stem, ".h5"), *(file for _, file in pairs)]
    simulations = tuple(simulation for simulation, _ in pairs)
    if not simulations:
        solution.plot(_file(stem, ".png"))
        return Experiment(solution, (), None, (*files, _file(stem, ".png")))
    report = compare(solution, list(simulations), level=level)
    for suffix, write in ((".csv", report.to_csv), (".json", report.to_json), (".png", report.plot)):
        write(_file(stem, suffix))
        files.append(_file(stem, suffix))
    return Experiment(solution, simulations, report, tuple(files))

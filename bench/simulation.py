"""How fast the simulators are against what they cannot beat: matrix products, and two cores.

``python -m bench.simulation`` rewrites its section of docs/performance.md. Both sides of every ratio are measured in
turn in one process, on one thread, and the smallest of several times is taken: a noisy machine only adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bench import DOCS, replace_section
from bench.speed import Line, at_most, machine, table

DIMENSION, BATCH = 200, 100  # [MU] figure 4


def seconds(*actions: Callable[[], object], repeats: int) -> list[float]:
    """Smallest time of each action, the actions taken in turn."""
    best = [np.inf] * len(actions)
    for _ in range(repeats):
        for place, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[place] = min(best[place], time.perf_counter() - start)
    return best


def network_lines(quick: bool) -> Iterator[Line]:
    """Updates of [MU] figure 4 (d = 200, batch 100, alpha = 0.3) and full-batch forces over their two products."""
    import dmft
    from validation.model import initial_weights
    from validation.network import Network, epochs

    cubic = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    repeats = 2 if quick else 15
    for width in (16, 64) if quick else (16, 64, 256, 1024):
        for name, activation in (("cubic", cubic), ("tanh", dmft.Activation.named("tanh"))):
            problem = dmft.SymmetricProblem(
                width=width,
                alpha=0.3,
                a0=1.0,
                activation=activation,
                target=dmft.Target.same_as(activation),
                noise_std=0.3,
            )
            samples = round(0.3 * width * DIMENSION)
            rng = np.random.default_rng(0)
            model = Network(problem, DIMENSION, samples, rng, rng, 0)
            weights, a = initial_weights(problem.formulation(), DIMENSION, rng)
            updates = max(4, 3200 // width)
            order = epochs(rng, samples, BATCH)(updates)
            x, d_weights = model.inputs[:BATCH].copy(), np.empty((width, DIMENSION))
            z, full = np.empty((BATCH, width)), np.empty((samples, width))

            def update(model=model, weights=weights, a=a, order=order) -> None:
                model.descend_batches(weights, a, 1e-6, BATCH, order, True)

            def products(x=x, weights=weights, z=z, out=d_weights, updates=updates) -> None:
                for _ in range(updates):
                    np.matmul(x, weights.T, out=z)
                    np.matmul(z.T, x, out=out)

            def force(model=model, weights=weights, a=a) -> None:
                model.force(weights, a)

            def full_products(x=model.inputs, weights=weights, z=full, out=d_weights) -> None:
                np.matmul(x, weights.T, out=z)
                np.matmul(z.T, x, out=out)

            update()
            taken = seconds(update, products, force, full_products, repeats=repeats)
            note = f"{taken[0] / updates * 1e6:.0f} us an update, {taken[1] / updates * 1e6:.0f} us its two products"
            yield Line(f"SGD, m = {width}, {name}, over the products", taken[0] / taken[1], "", at_most(1.5), note)
            note = f"n = {samples}: {taken[2] * 1e3:.2f} ms, {taken[3] * 1e3:.2f} ms"
            yield Line(
                f"full batch, m = {width}, {name}, over the products", taken[2] / taken[3], "", at_most(1.5), note
            )


def gaussian_lines(quick: bool) -> Iterator[Line]:
    """Force of the Gaussian model against reading its tensors, which it does for the outputs and for the gradient."""
    import dmft
    from validation.gaussian_model import GaussianModel
    from validation.model import initial_weights

    cubic = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    problem = dmft.SymmetricProblem(
        width=4, alpha=0.4, a0=1.0, activation=cubic, target=dmft.Target.noise(), noise_std=0.6
    )
    dimension = 30 if quick else 90
    rng = np.random.default_rng(0)
    samples = round(1.6 * dimension)
    model = GaussianModel(problem, dimension, samples, rng)
    weights, a = initial_weights(problem.formulation(), dimension, rng)
    tensors = np.empty((samples, model.columns))
    tensors[:] = 1.0
    ones = np.ones(samples)
    model.force(weights, a)
    taken = seconds(
        lambda: model.force(weights, a), lambda: (ones @ tensors, ones @ tensors), repeats=2 if quick else 10
    )
    note = f"{tensors.nbytes / 1e6:.0f} MB of tensors; {taken[0] * 1e3:.1f} ms, {taken[1] * 1e3:.1f} ms"
    yield Line(
        f"Gaussian model, m = 4, d = {dimension}, over two products with a vector", taken[0] / taken[1], "", None, note
    )


def replica_lines(quick: bool) -> Iterator[Line]:
    """Replicas on two processes against one."""
    import dmft

    cubic = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    problem = dmft.SymmetricProblem(
        width=32, alpha=0.3, a0=1.0, activation=cubic, target=dmft.Target.same_as(cubic), noise_std=0.3
    )
    t_final = 2.0 if quick else 100.0

    def run(workers: int) -> None:
        dmft.simulate(
            problem, DIMENSION, t_final=t_final, replicas=8, model="network", optimizer="gd", step=0.05, workers=workers
        )

    run(2)  # loads compiled code
    taken = seconds(lambda: run(1), lambda: run(2), repeats=1 if quick else 2)
    note = f"8 replicas: {taken[0]:.1f} s, {taken[1]:.1f} s"
    yield Line("two workers over one", taken[1] / taken[0], "", None if quick else at_most(0.6), note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    from threadpoolctl import threadpool_limits

    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description="Speed of the simulators.")
    parser.add_argument("--quick", action="store_true", help="smoke run of seconds; its figures mean nothing")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="where performance.md lies (default: docs)")
    options = parser.parse_args(arguments)
    docs = options.docs or (None if options.quick else DOCS)
    where = machine()
    lines: list[Line] = []
    with threadpool_limits(1):
        for part in (network_lines, gaussian_lines, replica_lines):
            for line in part(options.quick):
                lines.append(line)
                print(f"  {line.verdict or '-':10}  {line.what}: {line.shown}  [{line.bound}]  {line.note}", flush=True)
    if docs is not None:
        replace_section(docs / "performance.md", "simulation", f"{where} One thread each.\n\n{table(lines)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""A wrong sign or factor in one kernel of the theory shows as a difference from simulations of the Gaussian model.

Each error is put into one function of dmft/equations.py or one weight of the engine, in a process of its own with
compilation switched off, and the result is compared with the simulations of data/reference/guard.toml, which know
nothing of the equations.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dmft
from dmft import config
from validation.comparison import compare

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"

SOLVE = """
import sys
import numpy as np
import dmft
import dmft.equations as equations
from dmft import config
{error}
import solvers
given = config.read({config!r})
solvers.solve(given.problem, {t_final}, rtol={rtol}).save({out!r})
"""

# name -> what is changed before the engine is imported, and so before it binds the functions of dmft.equations.
ERRORS = {
    "sign of the Onsager term of the memory kernel": """
right = equations.memory_element
equations.memory_element = lambda c, ra, cr, dh, d2h, r: right(c, ra, -cr, dh, d2h, r)
""",
    "factor two in the noise kernel": """
right = equations.noise_element
equations.noise_element = lambda *given: 2.0 * right(*given)
""",
    "sign of the memory of the residuals": """
right = equations.residual_memory
equations.residual_memory = lambda *given: -right(*given)
""",
    "1/m left out of the off-diagonal response": """
right = equations.residual_memory
equations.residual_memory = lambda sizes, a, b, dh, dho, r, ro: right(sizes, a, b, dh, dho, r, 0.0 * ro)
""",
    "factor 0.9 in the field that drives the second layer": """
right = equations.output_field
equations.output_field = lambda *given: 0.9 * right(*given)
""",
}
QUICK = ("sign of the Onsager term of the memory kernel",)


def solved(error: str, out: Path, t_final: float, rtol: float = 2e-3) -> dmft.Solution:
    config = str(REFERENCE / "guard.toml")
    script = SOLVE.format(error=error, config=config, t_final=t_final, rtol=rtol, out=str(out))
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(REFERENCE.parent.parent)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=600, capture_output=True)
    solution = dmft.load(out)
    assert isinstance(solution, dmft.Solution)
    return solution


@pytest.fixture(scope="module")
def simulations() -> list[dmft.Simulation]:
    found = [dmft.load(path) for path in sorted(REFERENCE.glob("guard-gaussian-d*.h5"))]
    assert len(found) == 3
    return [simulation for simulation in found if isinstance(simulation, dmft.Simulation)]


def test_the_right_equations_agree(simulations: list[dmft.Simulation]) -> None:
    given = config.read(REFERENCE / "guard.toml")
    report = compare(dmft.solve(given.problem, given.solve.t_final, rtol=1e-5), simulations)
    assert report.agrees, report.verdict
    assert report.max_abs_z < 4.0
    assert len(report.rows) > 20


@pytest.mark.parametrize("name", QUICK)
def test_an_error_in_one_kernel_is_caught(name: str, tmp_path: Path, simulations: list[dmft.Simulation]) -> None:
    check_caught(name, tmp_path, simulations)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ERRORS if name not in QUICK])
def test_every_error_is_caught(name: str, tmp_path: Path, simulations: list[dmft.Simulation]) -> None:
    check_caught(name, tmp_path, simulations)


def check_caught(name: str, directory: Path, simulations: list[dmft.Simulation]) -> None:
    wrong = solved(ERRORS[name], directory / "wrong.h5", 4.0)
    report = compare(wrong, simulations)
    assert not report.agrees, report.verdict
    assert report.max_abs_z > 5.0
    assert "differs" in report.verdict


def test_the_uncompiled_engine_gives_the_same_numbers(tmp_path: Path) -> None:
    """So that what is caught above is the error and not the absence of the compiler."""
    given = config.read(REFERENCE / "guard.toml")
    plain = solved("", tmp_path / "plain.h5", 2.0)
    compiled = dmft.solve(given.problem, 2.0, rtol=2e-3)
    assert abs(plain.test_error[-1] - compiled.test_error[-1]) < 1e-9

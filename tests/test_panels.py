"""Figures from configurations: what may be asked for, every quantity, and one small figure from end to end."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import dmft
from dmft import config as configuration
from validation import gallery, pages, panels
from validation.panels import PanelError, quantity, variable

SMALL = """
[model]
kind = "symmetric"
width = 4
alpha = 0.5
noise_std = 0.5
a0 = 1.0
activation = { covariance = [0, 0.9, 0, 0.16666666666666666] }
target = { same_as_activation = true }
[solve]
t_final = 4.0
rtol = 1e-3
[sweep]
"model.width" = [4, 16]
[figure]
title = "Small"
reading = "Two widths near their limit."
paper = [24]
[[figure.panels]]
curve = "test_error"
against = "t"
limit = "mean_field"
window = [0.1, 4.0]
"""


@pytest.fixture(scope="module")
def solution() -> dmft.Solution:
    sigma = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    problem = dmft.SymmetricProblem(
        width=16, alpha=0.3, activation=sigma, target=dmft.Target.same_as(sigma), noise_std=0.6, a0=1.0
    )
    return dmft.solve(problem, 20.0)


def test_quantities_are_what_they_say(solution: dmft.Solution) -> None:
    t = solution.t
    assert np.array_equal(quantity(solution, "gap"), solution.test_error - solution.train_error)
    assert np.array_equal(quantity(solution, "a v"), solution.a * solution.v)
    assert quantity(solution, "sqrt(m) v") == pytest.approx(4.0 * solution.v)
    assert quantity(solution, "m C_o") == pytest.approx(16.0 * solution.correlation(t, t, mode="o"))
    slope = quantity(solution, "sqrt(m) da/dt")
    step = 1e-3
    ends = solution.at([5.0 - step, 5.0 + step]).a
    assert np.interp(5.0, t, slope) == pytest.approx(4.0 * np.diff(ends)[0] / (2 * step), rel=0.03)
    for name, factor in {"m t": 16.0, "t": 1.0, "t/sqrt(m)": 0.25, "t/m": 1 / 16, "alpha t": 0.3}.items():
        assert variable(solution, name) == pytest.approx(factor * t)
    assert np.array_equal(variable(solution, "gamma"), solution.gamma)


def test_quantities_that_infinite_width_does_not_have() -> None:
    sigma = dmft.Activation.from_covariance([0, 1.0, 0.5])
    problem = dmft.InfiniteWidthProblem(
        sample_ratio=2.0, activation=sigma, target=dmft.Target.noise(), noise_std=1.0, a0=1.0
    )
    with pytest.raises(PanelError, match="gamma"):
        quantity(dmft.solve(problem, 0.5), "gamma")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('curve = "test_error"', 'curve = "test_eror"', "test_error"),
        ('against = "t"', 'against = "t/n"', "t/m"),
        ("reading =", "readng =", "reading"),
        ('limit = "mean_field"', 'limit = "mean_feild"', "mean_field"),
        ("window = [0.1, 4.0]", "window = [4.0, 0.1]", "window"),
        ("window = [0.1, 4.0]", "windw = [0.1, 4.0]", "window"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(old: str, new: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "figure.toml"
    file.write_text(SMALL.replace(old, new))
    with pytest.raises((ValueError, TypeError), match=words):
        configuration.read(file)


def test_a_figure_from_end_to_end_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mu_small.toml"
    file.write_text(SMALL)
    monkeypatch.setattr(configuration, "ready_names", lambda: [str(file)])
    config, members = configuration.read(file), configuration.read_members(file)
    family = panels.solve(config, members, tmp_path, workers=1, tell=lambda line: None)
    assert family.sound
    from validation import panel_plots

    panel_plots.plot(family, tmp_path / "mu_small.png")
    record = panels.record(family)
    (tmp_path / "mu_small.json").write_text(json.dumps(record))
    assert [member["m"] for member in record["members"]] == [4, 16]
    assert (tmp_path / "mu_small.png").stat().st_size > 5000
    monkeypatch.setattr(configuration, "ready_names", lambda: ["mu_small"])
    monkeypatch.setattr(configuration, "read", lambda name: config)
    (tmp_path / "figures").mkdir()
    text = pages.page(tmp_path, tmp_path / "figures")
    assert "Two widths near their limit." in text
    assert (tmp_path / "figures" / "mu_small.png").exists()


def test_a_missing_figure_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pages.main(["--out", str(tmp_path), "--docs", str(tmp_path)])
    assert "make figures NAMES=mu_fig" in capsys.readouterr().err


def test_every_theory_figure_of_the_paper_has_a_configuration() -> None:
    shown: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in configuration.ready_names():
            figure = configuration.read(name).figure
            if figure is not None:
                shown |= set(figure.paper)
    assert set(range(2, 6)) | set(range(8, 34)) <= shown
    assert gallery._meant("mu_fig18", "mu_fig21")
    assert not gallery._meant("mu_fig18", "mu_fig24")

"""Configurations: what is read, what is overridden, and sixty ways to get it wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import dmft
from dmft import cli, config

MODEL = """
kind = "symmetric"
width = 16
alpha = 0.3
noise_std = 0.6
a0 = 1.0
activation = { covariance = [0, 0.9, 0, 0.16666666666666666] }
target = { same_as_activation = true }
"""
SOLVE = "t_final = 60.0\n"
GROUPED = """
kind = "grouped"
sizes = [8, 8]
alpha = 0.3
noise_std = 0.6
a0 = [1.0, -1.0]
activation = { covariance = [0, 0.9, 0.5] }
target = { same_as_activation = true }
"""
GENERAL = """
kind = "general"
alpha = 0.375
noise_std = 1.0
a0 = [1.0, -1.0, 0.5]
activation = { covariance = [0, 0.1, 0.5] }
target = { noise = true }
"""
PSPIN = 'kind = "pspin"\ncovariance = [0, 0, 0, 1.0]\n'


def text(model: str = MODEL, solve: str = SOLVE, more: str = "") -> str:
    return f"[model]{model if model.startswith(chr(10)) else chr(10) + model}\n[solve]\n{solve}\n{more}"


def with_line(key: str, value: str | None, model: str = MODEL) -> str:
    """``model`` with the line of ``key`` replaced (or removed), or added when it has none."""
    line = "" if value is None else f"{key} = {value}"
    result, count = re.subn(rf"^{key} = .*$", lambda _: line, model, flags=re.MULTILINE)
    return result if count else f"{model}{line}\n"


# ------------------------------------------------------------------------------------------------- good ones


def test_the_example_of_the_documentation() -> None:
    run = config.parse(text(solve='t_final = 60.0\nrtol = 1e-5\nmethod = "auto"\ntimes = [0, 1.0, 60]\nmax_rows = 500'))
    assert isinstance(run.problem, dmft.SymmetricProblem)
    assert (run.problem.width, run.problem.alpha, run.problem.a0, run.problem.gamma0) == (16, 0.3, 1.0, None)
    assert run.problem.train_second_layer is True
    np.testing.assert_array_equal(run.problem.activation.covariance, [0, 0.9, 0, 0.16666666666666666])
    assert run.solve == config.SolveOptions(
        t_final=60.0, rtol=1e-5, method="auto", times=(0.0, 1.0, 60.0), max_rows=500
    )


def test_defaults() -> None:
    run = config.parse(text())
    assert run.solve == config.SolveOptions(t_final=60.0, rtol=1e-4, method="auto", times=None, max_rows=None)
    assert np.all(np.asarray(run.problem.formulation().v0) == 0.0)


def test_optimizer() -> None:
    line = 'optimizer = { kind = "sgd", learning_rate = 0.5, batch_fraction = 0.25 }'
    run = config.parse(text(solve=f"{SOLVE}{line}"))
    assert run.solve.optimizer == dmft.SGD(learning_rate=0.5, batch_fraction=0.25)
    assert run.solve.arguments()["optimizer"] == run.solve.optimizer
    for bad, word in (
        ('{ kind = "adam" }', "gd, momentum, sgd"),
        ('{ kind = "gd", learning_rate = 0.0 }', "learning_rate"),
    ):
        with pytest.raises((ValueError, TypeError), match=word):
            config.parse(text(solve=f"{SOLVE}optimizer = {bad}"))


def test_an_optimizer_on_the_command_line(tmp_path: Path) -> None:
    place = tmp_path / "sgd.toml"
    line = 'optimizer = { kind = "momentum", learning_rate = 0.5, momentum = 0.5 }'
    place.write_text(text(solve=f"t_final = 2.0\n{line}"), encoding="utf-8")
    assert cli.main(["solve", str(place), "--out", str(tmp_path / "run.h5"), "--quiet"]) == 0
    found = dmft.load(tmp_path / "run.h5")
    assert found.optimizer == dmft.Momentum(learning_rate=0.5, momentum=0.5)
    assert found.updates[-1] == len(found.t) - 1


def test_every_kind() -> None:
    kinds = {type(config.parse(text(model)).problem) for model in (MODEL, GROUPED, GENERAL, PSPIN)}
    assert kinds == {dmft.SymmetricProblem, dmft.GroupedProblem, dmft.GeneralProblem, dmft.PSpinProblem}


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("{ covariance = [0, 0.25, 0.5] }", dmft.Activation.from_covariance([0, 0.25, 0.5])),
        ("{ hermite = [0, 0.5, 0.7] }", dmft.Activation.from_hermite([0, 0.5, 0.7])),
        ('{ name = "tanh", degree = 9 }', dmft.Activation.named("tanh", degree=9)),
    ],
)
def test_activation_forms(activation: str, expected: dmft.Activation) -> None:
    problem = config.parse(text(with_line("activation", activation))).problem
    assert problem.to_dict()["activation"] == expected.to_dict()


@pytest.mark.parametrize(
    ("target", "phihat", "power"),
    [
        ("{ noise = true }", 0.0, 0.0),
        # phi = he_1
        ('{ name = "he1" }', 0.9**0.5 * 0.5, 1.0),
        # phihat(v) = 0.7 v and |phi|^2 = 1 as given
        ("{ overlap = [0, 0.7], power = 1.0 }", 0.35, 1.0),
        # sum_k s_k f_k q^k with s_1 = sqrt(0.9) and f_1 = 0.5, at q = 0.5
        ("{ hermite = [0, 0.5] }", 0.9**0.5 * 0.25, 0.25),
    ],
)
def test_target_forms(target: str, phihat: float, power: float) -> None:
    problem = config.parse(text(with_line("target", target))).problem
    form = problem.formulation()
    value = sum(c * 0.5 ** e.sum() for c, e in zip(form.overlap_coefficients, form.overlap_exponents, strict=True))
    assert value == pytest.approx(phihat, rel=1e-14, abs=0.0)  # a few roundings
    assert form.offset == pytest.approx(0.36 + power, rel=1e-14)


def test_several_latent_directions() -> None:
    model = with_line("target", '{ overlap = { "1,0" = 0.4, "0,1" = 0.3 }, power = 1.0 }')
    form = config.parse(text(with_line("v0", "[0.1, 0.2]", model))).problem.formulation()
    assert form.latent_dimension == 2
    assert {tuple(e): c for e, c in zip(form.overlap_exponents.tolist(), form.overlap_coefficients, strict=True)} == {
        (1, 0): 0.4,
        (0, 1): 0.3,
    }


def test_simulate() -> None:
    more = '[simulate]\ndimension = [50, 100]\nreplicas = 20\nmodel = "gaussian"\nseed = 0\n'
    run = config.parse(text(more=more))
    assert run.problem == config.parse(text()).problem
    (options,) = run.simulate
    assert options.dimensions == [50, 100]
    # What was not given is left to the defaults of `simulate`, but for the time of [solve].
    assert options.arguments() == {"t_final": 60.0, "replicas": 20, "model": "gaussian", "seed": 0}
    assert config.parse(text()).simulate == ()


SEVERAL = """
[[simulate]]
dimension = 30
[[simulate]]
model = "network"
dimension = [40]
t_final = 3.0
step = 0.1
batch = 7
"""


def test_several_simulations() -> None:
    first, second = config.parse(text(more=SEVERAL)).simulate
    assert (first.dimensions, first.arguments()) == ([30], {"t_final": 60.0})
    expected = {"t_final": 3.0, "model": "network", "step": 0.1, "batch": 7}
    assert (second.dimensions, second.arguments()) == ([40], expected)


def test_overrides_reach_every_simulation() -> None:
    run = config.parse(text(more=SEVERAL), ["simulate.replicas=3", "simulate.dimension=20", "simulate.batch="])
    assert [(s.dimension, s.replicas, s.batch) for s in run.simulate] == [(20, 3, None)] * 2
    assert config.parse(run.text).simulate == run.simulate  # also when written again


def test_every_option_of_simulate_may_be_in_a_configuration() -> None:
    import inspect

    from validation.simulations import Plan

    # What belongs to the run and not to the experiment is given on the command line.
    outside = {"workers", "dask", "checkpoint", "resume", "progress", "stop", "config_text", "memory_limit"}
    keywords = {p.name for p in inspect.signature(Plan).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert keywords - outside == set(config._SIMULATE_KEYS) - {"dimension"}


# ------------------------------------------------------------------------------------------------- sweeps


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    path = tmp_path / "fig.toml"
    path.write_text(text(more='[sweep]\n"model.width" = [4, 8]\n"simulate.dimension" = [30, [40, 50]]\n' + SEVERAL))
    return path


def test_members_of_a_sweep_are_zipped(swept: Path) -> None:
    members = config.read_members(swept)
    assert [member.name for member in members] == ["fig-width4", "fig-width8"]
    assert [member.problem.width for member in members] == [4, 8]
    assert [[s.dimensions for s in member.simulate] for member in members] == [[[30]] * 2, [[40, 50]] * 2]
    for member in members:
        again = config.parse(member.text)  # stands alone: what was swept is fixed
        assert again.problem == member.problem and again.simulate == member.simulate
        assert "[sweep]" not in member.text


def test_a_swept_configuration_has_values_of_its_own(swept: Path) -> None:
    assert config.read(swept).problem.width == 16


def test_sweep_by_override(swept: Path) -> None:
    overrides = ["sweep.simulate.dimension=", 'sweep."model.width"=[2, 4, 6]', "sweep.model.alpha=[0.1, 0.2, 0.3]"]
    members = config.read_members(swept, [*overrides, "model.noise_std=0.7"])
    problems = [member.problem for member in members]
    assert [(p.width, p.alpha, p.noise_std) for p in problems] == [(2, 0.1, 0.7), (4, 0.2, 0.7), (6, 0.3, 0.7)]
    alone = config.read_members(swept, ["sweep.simulate.dimension=", "sweep.model.width="])
    assert [(member.name, member.problem.width) for member in alone] == [("fig", 16)]


def test_no_sweep_is_one_member() -> None:
    (member,) = config.read_members("demo")
    assert member.name == "demo" and member.text == config.ready_text("demo")


def test_members_have_different_names(tmp_path: Path) -> None:
    """Their files lie in one directory."""
    path = tmp_path / "fig.toml"
    path.write_text(text(more='[sweep]\n"model.width" = [8, 8, 16]\n"model.alpha" = [0.1, 0.2, 0.3]\n'))
    members = config.read_members(path)
    assert len({member.name for member in members}) == 3
    assert all("/" not in member.name for member in members)


BAD_SWEEPS = {
    "lengths": ('"model.width" = [4, 8]\n"model.alpha" = [0.1]', ["[sweep]", "same length", "1, 2"]),
    "no list": ('"model.width" = 4', ["[sweep]", "model.width", "list", "4"]),
    "empty": ('"model.width" = []', ["[sweep]", "model.width", "list"]),
    "no section": ("width = [4, 8]", ["[sweep]", "section.key", "'width'"]),
    "unknown key": ('"model.widht" = [4, 8]', ["'widht'", "did you mean 'width'"]),
    "unknown section": ('"modle.width" = [4, 8]', ["'modle'"]),
    "bad value": ('"model.width" = [4, -8]', ["width", "-8"]),
}


@pytest.mark.parametrize("case", BAD_SWEEPS)
def test_bad_sweeps(case: str, tmp_path: Path) -> None:
    lines, words = BAD_SWEEPS[case]
    path = tmp_path / "fig.toml"
    path.write_text(text(more=f"[sweep]\n{lines}\n"))
    with pytest.raises(ValueError) as caught:  # the words are below
        config.read_members(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_bad_sweep_sections() -> None:
    with pytest.raises(config.ConfigError, match="sweep must be a table"):
        config.parse("sweep = 3\n" + text())


def test_overrides() -> None:
    run = config.parse(
        text(), ["model.width=64", "solve.rtol = 1e-6", "solve.method=auto", "model.a0=", "model.gamma0=2"]
    )
    assert (run.problem.width, run.problem.a0, run.problem.gamma0) == (64, None, 2.0)
    assert (run.solve.rtol, run.solve.method) == (1e-6, "auto")


def test_an_override_reaches_into_inline_tables() -> None:
    overrides = [
        'model.activation={name="tanh"}',
        "model.activation.degree=7",
        "model.target.noise=true",
        "model.target.same_as_activation=",
    ]
    run = config.parse(text(), overrides)
    assert len(run.problem.activation.covariance) == 8


def test_text_is_verbatim_without_overrides() -> None:
    source = "# a comment\n" + text()
    assert config.parse(source).text == source


@pytest.mark.parametrize("model", [MODEL, GROUPED, GENERAL, PSPIN])
def test_text_with_overrides_gives_the_same_run_again(model: str) -> None:
    source = text(model, more='[simulate]\nmodel = "gaussian"\ndimension = 50\nseed = 3\n')
    run = config.parse(source, ["solve.rtol=0.00012345678901234567", "simulate.seed=4"])
    again = config.parse(run.text)
    assert again.problem == run.problem
    assert again.solve == run.solve
    assert "seed = 4" in run.text


def test_text_with_overrides_quotes_what_needs_it() -> None:
    model = with_line("target", '{ overlap = { "1,0" = 0.4, "0,1" = 0.3 }, power = 1.0 }')
    run = config.parse(text(model), ["model.v0=[0.5, 0.1]"])
    assert config.parse(run.text).problem == run.problem


# ------------------------------------------------------------------------------------------------- ready ones

READY = config.ready_names()


def test_ready_configurations_hold_those_of_the_paper() -> None:
    assert set(READY) >= {"demo"} | {f"mu_fig{n:02d}" for n in (2, 3, 4, 6, 7, 8, 9, 11, 16, 18, 24)}


def test_ready_configurations_are_the_files_of_the_repository(repository: Path) -> None:
    for name in READY:
        assert config.ready_text(name) == (repository / "data" / "configs" / f"{name}.toml").read_text()


# theory section 8: alpha, tau, a(0) or gamma_0, covariance, index target, second layer trained
CUBIC, QUAD, WEAK = [0, 0.9, 0, 1 / 6], [0, 0.9, 0.5], [0, 0.3, 0.5]
SETTINGS = {
    "demo": (0.3, 0.6, 1.0, None, CUBIC, True, True),
    "mu_fig02": (0.4, 0.6, 1.0, None, CUBIC, False, True),
    "mu_fig03": (0.3, 0.3, None, 1.0, QUAD, True, True),
    "mu_fig04": (0.3, 0.3, 1.0, None, CUBIC, True, True),
    "mu_fig08": (0.5, 1.0, None, 1.0, WEAK, False, False),
    "mu_fig09": (0.5, 1.0, None, 1.0, WEAK, False, False),
    "mu_fig11": (0.3, 2.5, None, 1.0, QUAD, False, True),
    "mu_fig16": (0.3, 2.5, None, 1.0, QUAD, True, True),
    "mu_fig18": (0.3, 0.6, 1.0, None, CUBIC, False, True),
    "mu_fig24": (0.3, 0.6, 1.0, None, CUBIC, True, True),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_ready_symmetric_parameters(name: str) -> None:
    alpha, tau, a0, gamma0, covariance, index, trained = SETTINGS[name]
    problem = config.read(name).problem
    assert isinstance(problem, dmft.SymmetricProblem)
    assert (problem.alpha, problem.noise_std, problem.a0, problem.gamma0) == (alpha, tau, a0, gamma0)
    assert problem.train_second_layer is trained
    np.testing.assert_array_equal(problem.activation.covariance, covariance)
    form = problem.formulation()
    # phi = sigma: phihat = h and |phi|^2 = h(1); noise: neither.
    assert form.offset == pytest.approx(tau**2 + (sum(covariance) if index else 0.0), rel=1e-14)
    assert form.overlap_coefficients.sum() == pytest.approx(sum(covariance) if index else 0.0, rel=1e-14)
    wider = config.read(name, ["model.width=128"])
    assert wider.problem.width == 128


@pytest.mark.parametrize("name", ["mu_fig06", "mu_fig07"])
def test_ready_general_parameters(name: str) -> None:
    problem = config.read(name).problem
    form = problem.formulation()
    assert isinstance(problem, dmft.GeneralProblem)
    assert (form.alpha, form.offset, form.width) == (150 / (4 * 100), 1.0, 4)
    np.testing.assert_array_equal(form.covariance, [0, 0.1, 0.5])
    if name == "mu_fig06":
        np.testing.assert_array_equal(form.a0, [1, 1, -1, -1])
        np.testing.assert_array_equal(form.correlation_s0, np.tile(np.eye(2), (2, 2)))  # w_1 = w_3, w_2 = w_4
    else:
        np.testing.assert_array_equal(form.a0, [-1, -1 / 2, 1 / 3, 2 / 3])
        np.testing.assert_array_equal(form.correlation_s0, np.eye(4))


def test_demo_goes_far_enough() -> None:
    run = config.read("demo")
    assert (run.problem.width, run.solve.t_final, run.solve.rtol) == (16, 320.0, 1e-4)


# ------------------------------------------------------------------------------------------------- bad ones

# id: (configuration, what the sentence has to contain)
BAD = {
    "not-toml": ("[model\nwidth = 1", ["TOML", "line 1"]),
    "duplicate-key": (text(MODEL + "width = 3\n"), ["TOML"]),
    "empty": ("", ["[model]", "missing"]),
    "no-solve": ("[model]" + MODEL, ["[solve]", "missing"]),
    "no-model": ("[solve]\nt_final = 1", ["[model]", "missing"]),
    "model-no-table": ("model = 3\n[solve]\nt_final = 1", ["model", "table", "3"]),
    "unknown-section": (text(more="[slove]\nrtol = 1e-3"), ["'slove'", "'solve'"]),
    "top-level-key": ("rtol = 1e-3\n" + text(), ["'rtol'", "[solve]"]),
    "no-kind": (text(with_line("kind", None)), ["kind", "missing", "symmetric"]),
    "unknown-kind": (text(with_line("kind", '"symetric"')), ["kind", "'symetric'", "did you mean 'symmetric'"]),
    "kind-number": (text(with_line("kind", "3")), ["kind", "3"]),
    "misspelt-width": (text(MODEL + "widht = 3\n"), ["'widht'", "did you mean 'width'"]),
    "misspelt-noise": (text(MODEL + "noise_sd = 3\n"), ["'noise_sd'", "did you mean 'noise_std'"]),
    "misspelt-rtol": (text(solve=SOLVE + "rtoll = 3\n"), ["'rtoll'", "did you mean 'rtol'"]),
    "misspelt-simulate": (text(more="[simulate]\nreplica = 3\n"), ["'replica'", "did you mean 'replicas'"]),
    "simulate-no-dimension": (text(more="[simulate]\nreplicas = 3\n"), ["[simulate]", "dimension", "missing"]),
    "second-simulate-no-dimension": (
        text(more="[[simulate]]\ndimension = 3\n[[simulate]]\nreplicas = 3\n"),
        ["[simulate]", "dimension", "missing"],
    ),
    "simulate-no-table": ("simulate = 3\n" + text(), ["simulate", "table", "3"]),
    "simulate-list-of-numbers": ("simulate = [3]\n" + text(), ["simulate", "table", "3"]),
    "second-simulate-misspelt": (
        text(more="[[simulate]]\ndimension = 3\n[[simulate]]\ndimension = 3\nbach = 3\n"),
        ["'bach'", "did you mean 'batch'"],
    ),
    "sweep-lengths": (
        text(more='[sweep]\n"model.width" = [4, 8]\n"model.alpha" = [0.1]\n'),
        ["[sweep]", "same length"],
    ),
    "target-name-unknown": (text(with_line("target", '{ name = "rellu" }')), ["rellu", "relu"]),
    "target-name-and-power": (text(with_line("target", '{ name = "tanh", power = 1 }')), ["target", "'power'", "name"]),
    "misspelt-activation": (
        text(with_line("activation", "{ covarience = [0, 1] }")),
        ["activation", "'covarience'", "did you mean 'covariance'"],
    ),
    "misspelt-target": (text(with_line("target", "{ nose = true }")), ["target", "'nose'", "did you mean 'noise'"]),
    "key-of-other-section": (text(MODEL + "rtol = 1e-3\n"), ["'rtol'", "[solve]"]),
    "key-of-other-kind": (text(GROUPED + "width = 16\n"), ["'width'", "grouped"]),
    "pspin-with-alpha": (text(PSPIN + "alpha = 0.3\n"), ["'alpha'", "pspin"]),
    "width-missing": (text(with_line("width", None)), ["width", "missing"]),
    "alpha-missing": (text(with_line("alpha", None)), ["alpha", "missing"]),
    "target-missing": (text(with_line("target", None)), ["target", "missing"]),
    "activation-missing": (text(with_line("activation", None)), ["activation", "missing"]),
    "t_final-missing": (text(solve="rtol = 1e-3"), ["t_final", "missing"]),
    "width-negative": (text(with_line("width", "-4")), ["width", "-4"]),
    "width-zero": (text(with_line("width", "0")), ["width", "0"]),
    "width-float": (text(with_line("width", "16.5")), ["width", "16.5", "integer"]),
    "width-string": (text(with_line("width", '"16"')), ["width", "'16'"]),
    "width-true": (text(with_line("width", "true")), ["width", "True"]),
    "width-huge": (text(with_line("width", "99999999999999999999")), ["width", "9999"]),
    "alpha-negative": (text(with_line("alpha", "-0.3")), ["alpha", "-0.3"]),
    "alpha-zero": (text(with_line("alpha", "0.0")), ["alpha", "0.0"]),
    "alpha-nan": (text(with_line("alpha", "nan")), ["alpha", "nan"]),
    "alpha-inf": (text(with_line("alpha", "inf")), ["alpha", "inf"]),
    "alpha-list": (text(with_line("alpha", "[0.3]")), ["alpha", "[0.3]"]),
    "alpha-date": (text(with_line("alpha", "2025-02-28")), ["alpha", "date"]),
    "noise-negative": (text(with_line("noise_std", "-1")), ["noise_std", "-1"]),
    "noise-nan": (text(with_line("noise_std", "nan")), ["noise_std", "nan"]),
    "no-labels": (
        text(with_line("noise_std", "0", with_line("target", "{ noise = true }"))),
        ["noise_std", "noise"],
    ),
    "both-a0-and-gamma0": (text(MODEL + "gamma0 = 1.0\n"), ["a0", "gamma0"]),
    "neither-a0-nor-gamma0": (text(with_line("a0", None)), ["a0", "gamma0"]),
    "a0-nan": (text(with_line("a0", "nan")), ["a0", "nan"]),
    "a0-list-symmetric": (text(with_line("a0", "[1.0, 2.0]")), ["a0", "[1.0, 2.0]"]),
    "v0-above-one": (text(MODEL + "v0 = 1.5\n"), ["v0", "1.5"]),
    "v0-string": (text(MODEL + 'v0 = "random"\n'), ["v0", "random"]),
    "v0-length": (text(MODEL + "v0 = [0.1, 0.2]\n"), ["v0"]),
    "train-string": (text(MODEL + 'train_second_layer = "no"\n'), ["train_second_layer", "no"]),
    "train-number": (text(MODEL + "train_second_layer = 1\n"), ["train_second_layer", "1"]),
    "activation-string": (text(with_line("activation", '"relu"')), ["activation", "relu"]),
    "activation-empty": (text(with_line("activation", "{}")), ["activation", "exactly one"]),
    "activation-two-forms": (
        text(with_line("activation", '{ name = "relu", covariance = [0, 1] }')),
        ["activation", "exactly one", "name"],
    ),
    "activation-unknown": (text(with_line("activation", '{ name = "rellu" }')), ["rellu", "relu"]),
    "activation-name-number": (text(with_line("activation", "{ name = 3 }")), ["name", "3"]),
    "activation-degree-of-covariance": (
        text(with_line("activation", "{ covariance = [0, 1], degree = 3 }")),
        ["activation", "'degree'", "covariance"],
    ),
    "activation-slope-of-tanh": (text(with_line("activation", '{ name = "tanh", slope = 0.1 }')), ["slope"]),
    "covariance-negative": (text(with_line("activation", "{ covariance = [0, 0.9, -0.1] }")), ["covariance", "-0.1"]),
    "covariance-constant": (text(with_line("activation", "{ covariance = [0.2, 0.9] }")), ["covariance", "0.2"]),
    "covariance-zero": (text(with_line("activation", "{ covariance = [0, 0, 0] }")), ["covariance"]),
    "covariance-nan": (text(with_line("activation", "{ covariance = [0, nan] }")), ["covariance", "nan"]),
    "covariance-strings": (text(with_line("activation", '{ covariance = ["0", "1"] }')), ["covariance"]),
    "hermite-ragged": (text(with_line("activation", "{ hermite = [0, [1, 2]] }")), ["hermite"]),
    "target-false": (text(with_line("target", "{ same_as_activation = false }")), ["same_as_activation", "False"]),
    "target-number": (text(with_line("target", "3")), ["target", "3"]),
    "target-two-forms": (
        text(with_line("target", "{ noise = true, same_as_activation = true }")),
        ["target", "exactly one", "noise"],
    ),
    "overlap-no-power": (text(with_line("target", "{ overlap = [0, 0.5] }")), ["power", "missing"]),
    "overlap-impossible": (text(with_line("target", "{ overlap = [0, 2.0], power = 0.5 }")), ["overlap", "0.5"]),
    "overlap-beyond-activation": (
        text(with_line("target", "{ overlap = [0, 0, 0.5], power = 9.0 }")),  # h has no quadratic part
        ["overlap"],
    ),
    "overlap-bad-key": (
        text(with_line("target", '{ overlap = { "a,b" = 0.5 }, power = 1.0 }')),
        ["overlap", "'a,b'"],
    ),
    "power-negative": (text(with_line("target", "{ overlap = [0, 0.1], power = -1.0 }")), ["power", "-1"]),
    "power-of-noise": (text(with_line("target", "{ noise = true, power = 1.0 }")), ["'power'", "noise"]),
    "sizes-empty": (text(with_line("sizes", "[]", GROUPED)), ["sizes"]),
    "sizes-zero": (text(with_line("sizes", "[8, 0]", GROUPED)), ["sizes", "0"]),
    "sizes-float": (text(with_line("sizes", "[8, 0.5]", GROUPED)), ["sizes", "0.5"]),
    "groups-and-a0-differ": (text(with_line("a0", "[1.0]", GROUPED)), ["a0"]),
    "cross-gram-not-psd": (text(GROUPED + "cross_gram0 = [[0.0, 0.9], [0.9, 0.0]]\n"), ["cross_gram0"]),
    "cross-gram-shape": (text(GROUPED + "cross_gram0 = [[0.0]]\n"), ["cross_gram0"]),
    "gram-not-psd": (
        text(GENERAL + "gram0 = [[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]\n"),
        ["gram0", "positive semidefinite"],
    ),
    "gram-diagonal": (text(GENERAL + "gram0 = [[2, 0, 0], [0, 1, 0], [0, 0, 1]]\n"), ["gram0", "diagonal"]),
    "gram-asymmetric": (text(GENERAL + "gram0 = [[1, 0.1, 0], [0, 1, 0], [0, 0, 1]]\n"), ["gram0", "symmetric"]),
    "gram-shape": (text(GENERAL + "gram0 = [[1, 0], [0, 1]]\n"), ["gram0"]),
    "gram-ragged": (text(GENERAL + "gram0 = [[1, 0], [0, 1, 0]]\n"), ["gram0"]),
    "general-a0-number": (text(with_line("a0", "1.0", GENERAL)), ["a0", "1.0"]),
    "general-a0-empty": (text(with_line("a0", "[]", GENERAL)), ["a0"]),
    "pspin-negative": (text(with_line("covariance", "[0, 0, -1.0]", PSPIN)), ["covariance", "-1"]),
    "pspin-string": (text(with_line("covariance", '"q^3"', PSPIN)), ["covariance", "q^3"]),
    "t_final-negative": (text(solve="t_final = -1"), ["t_final", "-1"]),
    "t_final-zero": (text(solve="t_final = 0"), ["t_final", "0"]),
    "t_final-nan": (text(solve="t_final = nan"), ["t_final", "nan"]),
    "t_final-string": (text(solve='t_final = "long"'), ["t_final", "long"]),
    "rtol-zero": (text(solve=SOLVE + "rtol = 0.0"), ["rtol", "0.0"]),
    "rtol-large": (text(solve=SOLVE + "rtol = 3"), ["rtol", "3"]),
    "rtol-list": (text(solve=SOLVE + "rtol = [1e-4]"), ["rtol"]),
    "method-number": (text(solve=SOLVE + "method = 4"), ["method", "4"]),
    "method-unknown": (text(solve=SOLVE + 'method = "rk45"'), ["method", "rk45"]),
    "times-decreasing": (text(solve=SOLVE + "times = [2.0, 1.0]"), ["times", "2.0"]),
    "times-beyond": (text(solve=SOLVE + "times = [1.0, 61.0]"), ["times", "61.0", "t_final"]),
    "times-strings": (text(solve=SOLVE + 'times = ["1"]'), ["times"]),
    "max_rows-float": (text(solve=SOLVE + "max_rows = 1e3"), ["max_rows", "1000.0"]),
    "max_rows-negative": (text(solve=SOLVE + "max_rows = -5"), ["max_rows", "-5"]),
}


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory`` with its contents."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("case", BAD)
def test_bad_configuration(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, one sentence on stderr that names the parameter, and nothing written."""
    source, words = BAD[case]
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(source)
    before = snapshot(tmp_path)
    assert cli.main(["solve", "bad.toml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n")
    assert err.startswith("dmft: error: ") and "Traceback" not in err
    for word in words:
        assert word in err
    assert snapshot(tmp_path) == before


BAD_OVERRIDES = {
    "width=4": ["section.key=value", "width=4"],
    "model.width": ["section.key=value", "model.width"],
    "model..width=4": ["section.key=value"],
    "model.width=[1": ["model.width", "[1", "TOML"],
    "model.width=4\nalpha=3": ["model.width", "more than one"],
    "model.width=a b": ["model.width", "a b"],
    "model.width=four": ["width", "four"],
    "model.widht=4": ["'widht'", "did you mean 'width'"],
    "model.width.deeper=4": ["model.width.deeper", "width", "not a table"],
    "modle.width=4": ["'modle'", "'model'"],
    "model.gamma0=1": ["a0", "gamma0"],
    "model.alpha=": ["alpha", "missing"],
}


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_bad_override(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["solve", "demo", "--set", override]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in BAD_OVERRIDES[override]:
        assert word in err
    assert snapshot(tmp_path) == {}


def test_there_are_enough_bad_ones() -> None:
    assert len(BAD) >= 60


def test_a_swept_key_cannot_be_set_beside_the_sweep(tmp_path: Path) -> None:
    path = tmp_path / "swept.toml"
    path.write_text(config.ready_text("mu_fig02"))
    with pytest.raises(config.ConfigError, match=r"this key is swept; use --set sweep\.model\.width="):
        config.read_members(path, ["model.width=8"])
    assert [member.problem.width for member in config.read_members(path)] == [16, 64, 256]

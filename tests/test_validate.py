"""The border where input is normalised: types, bounds, and the sentence that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmft import _validate as check


def test_good_values_come_back_in_one_type() -> None:
    for value in (2, 2.0, np.float32(2), np.int8(2), np.array(2.0)):
        assert type(check.real("alpha", value)) is float
    for whole in (2, np.int64(2), np.array(2)):
        assert type(check.integer("width", whole)) is int
    assert check.integer("width", 2**70) == 2**70
    assert check.boolean("flag", np.True_) is True
    given = np.arange(3)
    array = check.real_array("a0", given, ndim=1, shape=(3,))
    given[0] = 5
    assert array.dtype == np.float64
    assert array.tolist() == [0, 1, 2]
    assert not array.flags.writeable
    assert check.real_array("v0", [[1], [2]], ndim=2, shape=(None, 1)).shape == (2, 1)
    assert check.real_array("a0", [2**70, 1], ndim=1)[0] == 2.0**70


def test_bounds_are_open_or_closed_as_asked() -> None:
    assert check.real("v0", 1, low=-1, high=1) == 1
    for bounds in ({"high": 1, "open_high": True}, {"low": 1, "open_low": True}, {"low": 1.5}, {"high": 0.5}):
        with pytest.raises(ValueError, match=r"v0 must be a finite number [<>].*not 1"):
            check.real("v0", 1, **bounds)


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, r"alpha .* > 0, not True of type bool", lambda: check.real("alpha", True, low=0, open_low=True)),
    (TypeError, r"alpha .*'1' of type str", lambda: check.real("alpha", "1")),
    (TypeError, r"alpha .*complex", lambda: check.real("alpha", 1 + 0j)),
    (TypeError, r"alpha .*None", lambda: check.real("alpha", None)),
    (ValueError, r"alpha .*finite.*nan", lambda: check.real("alpha", math.nan)),
    (ValueError, r"alpha .*finite.*1000", lambda: check.real("alpha", 10**400)),
    (TypeError, r"width .*integer >= 1, not 4\.0", lambda: check.integer("width", 4.0, low=1)),
    (TypeError, r"width .*bool", lambda: check.integer("width", np.True_)),
    (ValueError, r"width .*integer >= 1 and <= 9, not 10", lambda: check.integer("width", 10, low=1, high=9)),
    (TypeError, r"flag must be true or false, not 1", lambda: check.boolean("flag", 1)),
    (ValueError, r"a0 .*different length", lambda: check.real_array("a0", [[1], [1, 2]], ndim=2)),
    (ValueError, r"a0 .*\(2,\).*shape \(3,\)", lambda: check.real_array("a0", [1, 2, 3], ndim=1, shape=(2,))),
    (ValueError, r"a0 .*list of real numbers.*shape \(\)", lambda: check.real_array("a0", 1.0, ndim=1)),
    (ValueError, r"a0 .*finite.*inf", lambda: check.real_array("a0", [1, math.inf], ndim=1)),
    (TypeError, r"a0 .*\[1, True\]", lambda: check.real_array("a0", [1, True], ndim=1)),
    (TypeError, r"a0 .*\['a'\]", lambda: check.real_array("a0", ["a"], ndim=1)),
    (TypeError, r"a0 .*1j", lambda: check.real_array("a0", [1j], ndim=1)),
    (TypeError, r"a0 .*None", lambda: check.real_array("a0", [1, None], ndim=1)),
    (ValueError, r"'alhpa'.*'alpha'", lambda: check.keys("model", {"alhpa": 1}, ["alpha", "width"])),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_input_is_refused_in_one_sentence(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250

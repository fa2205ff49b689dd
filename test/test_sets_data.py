"""Bad data and impossible requests: one clear error, naming column, row and what to do, and no set."""

import re

import numpy as np
import pytest

from rmpc_ros import cli
from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets.choose import candidates
from rmpc_ros.sets.fit import FITTERS, FitOptions, fit_set
from rmpc_ros.sets.marginals import samples_needed
from rmpc_ros.sets.split import at_epsilon, even_split, optimised_split

GOOD = np.random.default_rng(0).standard_normal((100, 2))
ATOMS = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [40, 40, 20], axis=0)
NAMES = ("feed", "heat")
FAMILIES = ["m", "fb", "cs", "lcx", "dy", "i", "chi2", "g", "auto"]


def broken(row, column, value):
    data = GOOD.copy()
    data[row, column] = value
    return data


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (broken(6, 1, np.nan), ["row 7", "heat", "NaN", "remove"]),
        (broken(3, 0, -np.inf), ["row 4", "feed", "infinite", "remove"]),
        (np.column_stack([GOOD[:, 0], np.full(100, 3.0)]), ["heat", "constant", "3.0", "remove the column"]),
        (GOOD[:2], ["2 samples", "feed, heat", "at least 3"]),
        (GOOD[:0], ["empty", "give N rows"]),
        (np.array([["a", "b"]] * 9), ["not a table of numbers"]),
    ],
    ids=["nan", "infinity", "constant", "fewer than dimensions", "empty", "words"],
)
def test_bad_data_are_refused_by_every_family(family, data, words):
    with pytest.raises(DataError) as caught:
        fit_set(data, family, 0.1, 0.9, columns=NAMES, parameters={"box": [-9, 9, -9, 9]} if family == "i" else {})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("family", ["m", "fb", "cs", "lcx", "dy", "i"])
def test_repeated_rows_are_refused_where_draws_are_continuous(family):
    box = {"box": [-9, 9, -9, 9]} if family == "i" else {}
    data = GOOD.copy()
    data[41] = data[7]
    with pytest.raises(DataError, match=r"row 42 repeats row 8 .*feed, heat.*remove copies"):
        fit_set(data, family, 0.1, 0.9, columns=NAMES, parameters=box)
    assert fit_set(data, family, 0.1, 0.9, parameters={**box, "duplicates": "allow"}).certificate.samples == 100


@pytest.mark.parametrize("family", ["chi2", "g"])
def test_finite_support_families_live_on_repeated_rows_and_refuse_continuous_data(family):
    assert fit_set(ATOMS, family, 0.1, 0.9).certificate.thresholds["atoms"] == 3
    with pytest.raises(DataError, match=r"100 distinct rows .* needs about 500 samples"):
        fit_set(GOOD, family, 0.1, 0.9)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_levels_outside_their_range_are_refused(value):
    with pytest.raises(DataError, match=r"epsilon = .* strictly between 0 and 1"):
        fit_set(GOOD, "cs", value, 0.9)
    with pytest.raises(DataError, match=r"confidence = .* strictly between 0 and 1"):
        fit_set(GOOD, "cs", 0.1, value)


def test_too_few_samples_are_refused_with_the_number_that_is_enough():
    with pytest.raises(DataError) as caught:
        fit_set(GOOD[:50], "m", 0.05, 0.95)
    need = int(re.search(r"(\d+) samples are needed", str(caught.value)).group(1))
    assert need == samples_needed(2, 0.05, 0.05)
    rng = np.random.default_rng(1)
    fit_set(rng.standard_normal((need, 2)), "m", 0.05, 0.95)
    with pytest.raises(DataError, match="samples are needed"):
        fit_set(rng.standard_normal((need - 1, 2)), "m", 0.05, 0.95)


def test_independent_family_names_the_samples_it_needs():
    rng = np.random.default_rng(1)
    box = {"box": [0, 1, 0, 1]}
    with pytest.raises(DataError) as caught:
        fit_set(rng.random((12, 2)), "i", 0.05, 0.95, parameters=box)
    need = int(re.search(r"(\d+) samples are needed", str(caught.value)).group(1))
    shown = fit_set(rng.random((need, 2)), "i", 0.05, 0.95, parameters=box).set
    assert float(shown.support([1.0, 1.0])) < 2.0
    with pytest.raises(DataError, match="known support: give box"):
        fit_set(rng.random((200, 2)), "i", 0.05, 0.95)


@pytest.mark.parametrize("family", ["fb", "cs", "lcx", "dy"])
def test_a_handful_of_samples_is_refused(family):
    with pytest.raises(DataError, match=r"family \w+: 5 samples .* 10 samples are needed"):
        fit_set(GOOD[:5], family, 0.1, 0.9)


def test_wrong_parameters_are_refused():
    with pytest.raises(DataError, match="takes no parameter 'G9'; known: G1, G2"):
        fit_set(GOOD, "cs", 0.1, 0.9, parameters={"G9": 1.0})
    with pytest.raises(DataError, match="sf has 3 entries: give 2"):
        fit_set(GOOD, "fb", 0.1, 0.9, parameters={"sf": [1.0, 2.0, 3.0], "sb": 1.0})
    with pytest.raises(DataError, match=r"row \d+, u1 = .* lies outside the known support \[-0.5, 0.5\]"):
        fit_set(GOOD, "m", 0.1, 0.9, parameters={"box": [-0.5, 0.5, -9, 9]})
    with pytest.raises(DataError, match=r"\[1.0, -1.0\] is empty"):
        fit_set(GOOD, "m", 0.1, 0.9, parameters={"box": [1, -1, -9, 9]})
    with pytest.raises(DataError, match="family 'cube' is unknown; known: auto"):
        fit_set(GOOD, "cube", 0.1, 0.9)
    with pytest.raises(DataError, match=r"3 column names .* 2 columns"):
        fit_set(GOOD, "cs", 0.1, 0.9, columns=("a", "b", "c"))
    with pytest.raises(DataError, match=r"row \d+ .*exceeds the known bound R = 1;"):
        fit_set(GOOD, "cs", 0.1, 0.9, parameters={"R": 1.0})


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("", [], "is empty; give a header"),
        ("a,b\n", [], "empty below its header"),
        ("a,b\n1,2\n3,x\n", [], "row 2, column 'b' = 'x' is not a number"),
        ("a,b\n1,2\n3\n", [], "row 2 has 1 cells, the header 2"),
        ("a,b\n1,\n3,4\n5,6\n7,9\n", [], "row 1, column 'b' is missing"),
        ("a,a\n1,2\n", [], "column 'a' occurs 2 times"),
        ("a,\n1,2\n", [], "column 2 of the header has no name"),
        ("1,2\n3,4\n", [], "add a header"),
        ("a,b\n1,2\n3,5\n4,4\n", ["--columns", "a,c"], "no column 'c'; the header has a, b"),
        ("a,b\n1,2\n3,5\n4,4\n", ["--epsilon", "1.5"], "epsilon = 1.5 is outside its range"),
        ("a,b\n1,2\n3,5\n4,4\n", ["--support", "1,2,3"], "samples are needed"),
    ],
)
def test_command_refuses_bad_files_with_one_line_and_a_status(tmp_path, capsys, text, words, message):
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    assert cli.main(["fit", str(path), "--family", "cs", "--json", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_command_refuses_a_missing_file_and_bad_directions(tmp_path, capsys):
    assert cli.main(["fit", str(tmp_path / "none.csv")]) == 1
    assert "no such file" in capsys.readouterr().err
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "\n".join(f"{x!r},{y!r}" for x, y in GOOD.tolist()) + "\n", encoding="utf-8")
    for text, message in (("1,2,3", "has 3 entries"), ("1,x", "give 2 numbers"), (";", "holds no direction")):
        assert cli.main(["fit", str(path), "--family", "cs", "--support", text]) == 1
        assert message in capsys.readouterr().err
    assert cli.main(["fit", str(path), "--family", "cs", "--param", "G1"]) == 1
    assert "write key=value" in capsys.readouterr().err


def test_explicit_thresholds_withdraw_the_confidence_from_the_certificate():
    fitted = fit_set(GOOD, "cs", 0.1, 0.9, parameters={"G1": 0.1, "G2": 0.1})
    assert fitted.certificate.confidence is None
    assert "G1, G2 were given" in fitted.certificate.statement
    computed = fit_set(GOOD, "cs", 0.1, 0.9).certificate
    assert computed.confidence == 0.9
    assert "confidence 0.9" in computed.statement and "at most 0.1" in computed.statement


def test_radius_from_a_known_bound_is_wider_than_the_bootstrap():
    bound = fit_set(GOOD, "cs", 0.1, 0.9, parameters={"R": 5.0})
    assert bound.set.size(16) > fit_set(GOOD, "cs", 0.1, 0.9).set.size(16)
    assert "norm2(u) never exceeds 5" in bound.certificate.statement


def test_auto_names_its_loss_and_its_choice_has_the_least():
    fitted = fit_set(GOOD, "auto", 0.2, 0.8)
    note = fitted.certificate.notes[-1]
    assert "mean standardised support, held out" in note
    listed = re.findall(r"(\w+) (\d+\.\d+)", note.split(": ", 1)[1].split(". Left")[0])
    values = {name: float(value) for name, value in listed}
    assert min(values, key=values.get) == fitted.certificate.family
    assert {"m", "cs", "fb"} <= set(values)


def test_auto_leaves_out_families_whose_assumption_fails():
    fit_set(GOOD, "m", 0.2, 0.8)  # fills the registry
    dependent = GOOD @ np.array([[1.0, 0.9], [0.0, 0.4]])
    names, reasons = candidates(dependent, FitOptions(0.2, 0.8, NAMES))
    assert "fb" not in names and any("independence" in r for r in reasons)
    assert "chi2" not in names and "chi2" in FITTERS


def test_split_of_epsilon_adds_up_and_improves_the_worst_margin():
    shown = fit_set(GOOD, "cs", 0.1, 0.9).set
    rows, bounds = np.array([[1.0, 0.0], [0.1, 0.1], [0.0, 0.5]]), np.array([4.0, 3.0, 4.0])
    shares, margin = optimised_split(shown, rows, bounds, 0.2)
    assert shares.sum() == pytest.approx(0.2)
    even = min(
        b - float(at_epsilon(shown, e).support(a)) for a, b, e in zip(rows, bounds, even_split(0.2, 3), strict=True)
    )
    got = min(b - float(at_epsilon(shown, e).support(a)) for a, b, e in zip(rows, bounds, shares, strict=True))
    assert got == pytest.approx(margin)
    assert margin > even + 0.1
    with pytest.raises(SetError, match="cannot change its epsilon"):
        at_epsilon(fit_set(GOOD, "m", 0.2, 0.8).set, 0.05)

"""Errors of regions stand in a run's table, and are said at its end."""

import csv
import json

import pytest

from tests.scripts import call, train


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    path = tmp_path_factory.mktemp("regions") / "regions.json"
    path.write_text(json.dumps({"first half": list(range(485)), "second half": list(range(485, 971))}))
    return path


def test_the_errors_of_regions_stand_in_the_table_and_are_said_at_the_end(contest, tmp_path, named):
    run, out = train(tmp_path, contest, "-e", "1", "--steps-per-epoch", "1", "--regions", named)
    (row,) = csv.DictReader((run / "metrics.csv").open())
    halves = [float(row[f"validation_mse_{half} half"]) for half in ("first", "second")]
    assert (485 * halves[0] + 486 * halves[1]) / 971 == pytest.approx(float(row["validation_mse"]))
    (line,) = [line for line in out.splitlines() if line.startswith("regions ")]
    assert all(f"{half:.1f}" in line for half in halves)
    assert json.loads((run / "regions.json").read_text()) == json.loads(named.read_text())
    named.write_text(json.dumps({"all": list(range(971))}))
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert status == 0, err
    *_, last = csv.DictReader((run / "metrics.csv").open())
    assert float(last["validation_mse_all"]) == pytest.approx(float(last["validation_mse"]))
    named.write_text(json.dumps({"all": [971]}))
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "3")
    assert (status, err.count("\n")) == (2, 1)
    assert f"--regions {named}: all names '971'" in err

"""headlines.py: the numbers are those of the committed runs, and each has its interval."""
import numpy as np
import pytest

from mmvae import evaluate
from mmvae.evaluate.__main__ import evaluate as command
from mmvae.experiment import results
from mmvae.experiment.headlines import headlines
from mmvae.experiment.table import FIRST, SHORT


@pytest.fixture(scope="module")
def lines():
    return {line[:10].strip(): line for line in headlines().splitlines()[1:]}


def test_a_line_for_each_of_the_six_with_its_numbers(lines):
    assert list(lines) == [SHORT[name] for name in FIRST]
    for name, line in zip(FIRST, lines.values()):
        runs = results.runs(study="main", model=name)
        people = np.array([run["above_floor"]["unseen"] for run in runs])
        value, low, high = evaluate.over_people(people)
        assert low < value < high and value == pytest.approx(people.mean())
        assert line[10:15].strip() == str(len(runs)) and f"{value:.1f} ({low:.1f} to {high:.1f})" in line
    assert [line.count("–") for line in lines.values()] == [3, 0, 0, 2, 0, 0]


def test_the_partition_is_counted_by_blocks_and_by_silence(lines):
    count = results.found(results.runs(study="main", model="mumo"))
    low, high = evaluate.wilson(count, 20)
    assert f" {count} ({low:.2f} to {high:.2f})" in lines[SHORT["mumo"]]
    by_silence = [evaluate.partition(run["sorted"]["probes"], results.HOME)["found"]
                  for run in results.runs(study="main", model="wg-v2")]
    assert f" {sum(by_silence)} (" in lines[SHORT["wg-v2"]]


def test_leaving_one_person_out_is_what_it_says(lines):
    one, two = (np.array([run["above_floor"]["unseen"] for run in results.runs(study="main", model=name)])
                for name in ("wg-v2", "poe-v2"))
    apart = [np.delete(one, k, 1).mean() - np.delete(two, k, 1).mean() for k in range(one.shape[1])]
    assert f"{min(apart):+.1f} to {max(apart):+.1f}" in lines[SHORT["wg-v2"]]


def test_the_command_prints_them_where_it_is_given_no_run(capsys):
    command([])
    assert capsys.readouterr().out.splitlines()[1].startswith(SHORT["vanilla"])

"""The published models' likelihood by annealing: the record, and that it is repeated on fewer people."""
import json

import pytest
import torch

from mmvae import evaluate
from mmvae.experiment import annealed, profiles, weights


def test_the_record_is_of_the_published_weights_and_whole():
    record = annealed.record()
    assert list(record["models"]) == list(weights.RECIPES)
    asked = record["settings"]
    for name, of in record["models"].items():
        assert of["sha256"] == weights.info(name)["sha256"], name
        assert all(len(values) == asked["people"] for numbers in of["subsets"].values() for values in numbers.values())
        for numbers in of["subsets"].values():
            assert all(1 <= v <= asked["chains"] for v in numbers["annealed.ess"])
            assert all(1 <= v <= asked["samples"] for v in numbers["plain.ess"])
    assert list(record["models"]["vanilla"]["subsets"]) == ["I+T"]
    assert set(record["models"]["mumo"]["subsets"]) == {"I", "T", "I+T"}


def test_plain_sampling_of_the_first_person_gives_what_the_record_says():
    record, pairs = annealed.record(), profiles.Shown(profiles.PROFILES["cpu"], "test", 64)
    asked, there = record["settings"], len(pairs.values["identity"])
    each = len(pairs) // there
    drawn = torch.randint(each, (asked["people"],), generator=torch.Generator().manual_seed(asked["seed"]))
    x = pairs.batch(drawn[:1])[0]
    found = evaluate.log_likelihood(weights.load("mumo"), x, samples=asked["samples"], seed=asked["seed"])
    assert found.value.item() == pytest.approx(record["models"]["mumo"]["subsets"]["I+T"]["plain"][0], abs=0.05)


def test_a_row_of_each_person_is_drawn():
    class Counted:
        values = {"identity": range(3)}

        def __len__(self):
            return 3 * 100

        def batch(self, index):
            return index, None
    index = annealed.a_pair_each(Counted(), 2, seed=1)
    assert (index // 100).tolist() == [0, 1] and (index % 100).tolist() != [0, 0]
    with pytest.raises(ValueError, match="people: found 4, expected at most the 3 who are held out"):
        annealed.a_pair_each(Counted(), 4)


def test_a_damaged_record_is_refused(tmp_path):
    path = tmp_path / "annealed.json"
    with pytest.raises(FileNotFoundError, match="annealed. measures and writes it"):
        annealed.record(path)
    record = json.loads(annealed.FILE.read_text())
    record["models"]["mumo"]["subsets"]["I+T"]["annealed"][0] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="found a damaged record .its content is not that of its digest"):
        annealed.record(path)


@pytest.mark.parametrize("argument", [["--people", "0"], ["--steps", "1"], ["--chains", "one"]])
def test_wrong_arguments_are_refused_in_a_line(argument, capsys):
    with pytest.raises(SystemExit) as ended:
        annealed.main(["faces.h5", *argument])
    assert ended.value.code == 2 and argument[0] in capsys.readouterr().err

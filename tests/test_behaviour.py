"""What is stored is known by what the code computes: a rename leaves it valid, another formula does not."""
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mmvae
from mmvae import behaviour, train
from mmvae.experiment import measure, prints, results
from mmvae.experiment.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
LOOK = """
import json, sys, torch, mmvae
torch.set_num_threads(1)
assert mmvae.__file__.startswith(sys.argv[1])
from mmvae.experiment import results
print(json.dumps(results.stale(lambda name: any(name.startswith(part) for part in sys.argv[2].split(",")))))
"""


def stale(folder, parts, *changes):
    """`results.stale` of a copy of the package, in which (file, pattern, replacement) were changed."""
    shutil.copytree(ROOT / "mmvae", folder / "mmvae", ignore=shutil.ignore_patterns("__pycache__"))
    for file, before, after in changes:
        path = folder / "mmvae" / file
        text, count = re.subn(before, after, path.read_text())
        assert count, f"{file} has no {before}"
        path.write_text(text)
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LOOK, str(folder), parts], cwd=folder, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_rename_and_a_comment_leave_every_stored_run_valid(tmp_path):
    changes = [("models.py", r"\bdecoded\b", "unrolled"), ("models.py", r"(class PoEVAE.*\n)", "# the book's favourite\n\\1")]
    assert stale(tmp_path, "run vanilla,run mumo-main,run poe,run wg", *changes) == {}


def test_another_coefficient_of_the_kl_makes_invalid_what_depends_on_it_and_nothing_else(tmp_path):
    runs = {"run vanilla-main-plain", "run poe-v2-base-plain", "run mumo-cross-warm-up", "run wg-v1-main-plain"}
    looked = {"published vanilla", *(f"measured {k}" for k in ("heldout", "effects", "mig", "experts", "cross", "coherence"))}
    change = "gaussian.py", r"return 0\.5 (\* \(self\.mu\.square\(\))", r"return 0.51 \1"
    found = stale(tmp_path, ",".join(runs | looked), change)
    assert set(found) == runs | {"published vanilla"}
    for name, numbers in found.items():
        assert any(re.fullmatch(r"[IT+]+\.kl\.[ISTZ]: found [\d.]+, now [\d.]+", number) for number in numbers), name
        assert not any("reconstruction" in number for number in numbers)
        measured = [number.removeprefix("measured ").split(": ") for number in numbers if number.startswith("measured")]
        assert {k for k, *_ in measured} == {"heldout"} | ({"effects"} if "main" in name else set()), name
        assert {what.split(".")[-1] for k, what, _ in measured if k == "heldout"} <= {"I", "S", "T", "Z", "elbo", "total"}
        assert {what for k, what, _ in measured if k == "effects"} <= {"kl"}  # which is among the effects


def test_a_run_is_known_whatever_its_seed_and_the_random_state():
    a, b = Recipe("mumo", 16, iterations=9), Recipe("mumo", 16, iterations=9, seed=3)
    state = torch.get_rng_state()
    first = prints.training(a)
    assert torch.equal(state, torch.get_rng_state()) and a.key == b.key != replace(a, batch=3).key
    torch.manual_seed(5)
    again = train.behaviour_of(b.build(), b.training)
    assert behaviour.moved(first, again) == [] and Recipe.from_key(b.key) == a


def test_what_moved_is_named():
    before = {"total": [1.0, 2.0], "I.kl.S": [0.0, 3.0]}
    assert behaviour.moved(before, {"total": [1.00005, 2.0], "I.kl.S": [1e-8, 3.0]}) == []
    assert behaviour.moved(before, {"total": [1.0, 2.1], "I.kl.S": [0.0, 3.0]}) == ["total: found 2, now 2.1"]
    assert behaviour.moved(before, before | {"I.kl.S": [float("nan"), 3.0]}) == ["I.kl.S: found 0, now nan"]
    assert "found another number of them" in behaviour.moved(before, before | {"total": [1.0]})[0]
    assert behaviour.moved(before, {"total": [1.0, 2.0]}) == ["terms: found ['I.kl.S', 'total'], now ['total']"]


@pytest.mark.parametrize("change", [{"cross": 1.0}, {"weight": 2.0}, {"learning_rate": 1e-3}, {"weight_decay": 30.0},
                                    {"options": {"shared": 3}}, {"options": {"single_prior": True}}], ids=str)
def test_another_formula_moves_a_print(change):
    base = Recipe("poe-v2", 16, iterations=50)
    assert behaviour.moved(prints.training(base), prints.training(replace(base, **change)))


def test_a_model_of_one_s_own_has_a_print_and_stays_as_it_is():
    model = mmvae.PoEVAE({"counts": mmvae.vectors(3, private=1, likelihood=mmvae.likelihoods.NegativeBinomial()),
                          "label": mmvae.categories(4)}, shared=2)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    found = train.behaviour_of(model, train.Settings(iterations=10))
    assert {"total", "label.kl.S", "counts+label.elbo"} < set(found) and {len(v) for v in found.values()} == {behaviour.STEPS}
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_every_run_has_a_stored_print():
    records = results.runs()
    assert all(record["behaviour"] for record in records)
    assert {frozenset(results.prints_of(record["measured"])) for record in records} == {frozenset(measure.MEASURES)}

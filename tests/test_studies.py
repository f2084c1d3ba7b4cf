"""experiment/studies.py: which runs ask what a further term does, how the pilot chooses its weight, and on whom."""
from collections import Counter

import pytest
import torch

import planted
from mmvae.experiment import grid as making, studies
from mmvae.experiment.grid import HELD_OUT, PEOPLE, Run, grid
from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import MODELS
from mmvae.faces import Grid
from mmvae.terms import ADDED


def of(study: str) -> list[Run]:
    return [run for run in grid() if run.study == study]


def test_each_term_beside_the_plain_loss_where_a_latent_is_spare_and_where_none_is():
    runs = of("asks")
    assert Counter((run.recipe.model, run.variant) for run in runs) == {
        (model, f"{term}, {shared}"): seeds for model in ("mumo", "poe-v2") for term in ("plain", *ADDED)
        for shared, seeds in ((8, 10), (5, 5)) if (term, shared) != ("plain", 5)}  # a run of "field"
    for run in runs:
        term, shared = run.variant.split(", ")
        assert run.recipe.extra == (None if term == "plain" else {term: studies.WEIGHTS[term]})
        assert run.recipe.build().blocks["S"] == int(shared) and run.people == PEOPLE
    assert {(run.recipe.size, run.recipe.iterations, run.recipe.weight) for run in runs} == {(32, 3000, 4.0)}
    assert {run.recipe.seed for run in runs if run.variant == "gap, 8"} == set(range(10))


def test_a_term_is_dropped_after_a_third_and_meets_private_blocks_that_are_too_small():
    runs = of("asks-limits")
    variants = {f"{term}, {variant}": 6 for term in ("gap", "contrast") for variant in ("dropped", "private 1", "missing")}
    assert Counter(run.variant for run in runs) == variants | {"plain, missing": 6}
    assert {run.variant: run.missing for run in runs} == {v: 0.5 if "missing" in v else 0.0 for v in (*variants, "plain, missing")}
    for run in (run for run in runs if run.recipe.extra):
        (term, weight), = run.recipe.extra.items()
        assert run.variant.split(", ")[0] == term and weight == studies.WEIGHTS[term]
        assert run.recipe.extra_until == (1000 if "dropped" in run.variant else None)
        blocks = run.recipe.build().blocks
        assert blocks["S"] == 8 and blocks["I"] == blocks["T"] == (1 if "private" in run.variant else 2)


def test_the_field_has_every_model_of_the_book_but_one_on_small_pictures():
    runs = of("field")
    assert Counter(run.recipe.model for run in runs) == {m: 10 for m in MODELS if m != "wg-v2-full"}
    assert {(run.recipe.size, run.recipe.iterations, run.recipe.weight, run.people) for run in runs} == {
        (32, 3000, 4.0, PEOPLE)}
    assert {sum(run.recipe.build().blocks.values()) for run in runs} <= {9, 10}


def test_the_pilot_has_every_weight_twice_with_seeds_and_people_of_its_own():
    runs = of("asks-weights")
    assert Counter((run.recipe.model, *run.recipe.extra.items()) for run in runs) == {
        (model, (term, weight)): 2 for model in ("mumo", "poe-v2") for term in ADDED for weight in (0.3, 1.0, 3.0, 10.0, 50.0)}
    assert all(run.variant == "{}, {:g}".format(*next(iter(run.recipe.extra.items()))) for run in runs)
    assert {run.recipe.seed for run in runs}.isdisjoint(run.recipe.seed for run in of("asks"))
    assert {(run.people, *run.measured_on, run.about["held_out"]) for run in runs} == {(400, "choice", 100, 100)}
    assert {(*run.measured_on, run.about["held_out"]) for run in grid() if run.study != "asks-weights"} == {
        ("test", HELD_OUT, HELD_OUT)}
    assert {run.recipe.build().blocks["S"] for run in runs} == {8} and set(studies.WEIGHTS) == set(ADDED)


def test_the_pilot_is_measured_on_people_who_neither_train_nor_test(monkeypatch):
    """Of six people, three to learn from: the pilot learns from two of them, and is measured on the third."""
    heads = planted.grid()
    monkeypatch.setattr(making, "_heads", lambda people: heads)
    monkeypatch.setattr(making, "PEOPLE", 3)
    monkeypatch.setattr(studies, "CHOICE", 1)
    making.pairs.cache_clear()
    learn, choice, test = (making.pairs(split, 2, 16) for split in ("train", "choice", "test"))
    making.pairs.cache_clear()
    assert [p.values["identity"].tolist() for p in (learn, choice, test)] == [[0, 1], [2], [3, 4, 5]]
    assert choice.split == "test" and isinstance(heads, Grid)
    assert torch.equal(choice.at(identity=0, azimuth=3, elevation=1, light=2)[0]["I"],
                       making.Pairs(heads).at(identity=2, azimuth=3, elevation=1, light=2)[0]["I"])


def record(term: str, weight: float, home: float, leak: float) -> dict:
    blocks = {"light": "T", "elevation": "I", "azimuth": "S"}
    return {"settings": {"extra": {term: weight}}, "probes": {
        f"I+T.{b}.{factor}.knn": home if b == at else leak for factor, at in blocks.items() for b in "IST"}}


def test_the_weight_that_found_it_most_often_is_chosen_and_of_equal_ones_that_with_the_smallest_leak():
    runs = [record("gap", 1.0, 0.9, 0.1), record("gap", 1.0, 0.9, 0.5), record("gap", 3.0, 0.9, 0.1),
            record("gap", 3.0, 0.9, 0.15), record("gap", 10.0, 0.9, 0.0), record("gap", 10.0, 0.7, 0.0),
            record("retain", 0.3, 0.5, 0.8), record("retain", 50.0, 0.5, 0.6)]
    assert studies.chosen(runs) == {"gap": 3.0, "retain": 50.0}
    assert studies.chosen([record("gap", 1.0, 0.9, 0.1), record("gap", 3.0, 0.9, 0.1)]) == {"gap": 1.0}  # the smaller


@pytest.mark.parametrize("study", ["asks", "asks-weights"])
def test_their_records_name_the_run_and_say_its_recipe(study):
    names = [run.name for run in of(study)]
    assert len(set(names)) == len(names) and not any(set(name) & set(" ,/") for name in names)
    assert all(Recipe(**run.about["settings"]) == run.recipe for run in of(study))

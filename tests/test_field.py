"""What chapters 12 and 13 read off runs side by side, and the pictures that they draw of it."""
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from mmvae import terms
from mmvae.experiment import field, figures, pictograms, studies, table


def record(seed, **more):
    return {"seed": seed} | more


def test_runs_are_paired_by_the_seeds_that_all_cells_have():
    cells = {"a": [record(2), record(0), record(1)], "b": [record(0), record(2), record(5)]}
    assert {name: [run["seed"] for run in of] for name, of in field.common(cells).items()} == {"a": [0, 2], "b": [0, 2]}
    with pytest.raises(ValueError, match="cells: found no seed that all of a, b have, expected at least one"):
        field.common({"a": [record(0)], "b": [record(1)]})


def test_the_field_is_every_model_but_the_one_with_a_study_of_its_own():
    assert set(field.MODELS) == set(table.MODELS) - {"wg-v2-full"} and len(field.MODELS) == 17
    of = field.runs(("mumo", "wg-v2"))
    assert [run["seed"] for run in of["mumo"]] == [run["seed"] for run in of["wg-v2"]]
    assert {run["settings"]["size"] for runs in of.values() for run in runs} == {32}


def test_what_goes_beyond_the_promise_and_who_speaks():
    run = {"experts": {"kl.I": 3.0, "precision.I": [90, 6, 1.1, 3], "precision.T": [80, 1.5, 40, 3]},
           "heldout": {"I+T.kl.S": 12.0, "I.kl.S": 10.5}}
    assert field.beyond(run, "I") == 1.5  # 3 nats, of which 12 - 10.5 are what the other picture tells
    assert field.roles(run) == (1, 1, 1)  # the last latent: neither speaks, neither is silent
    vanilla = {"experts": {}, "heldout": {}}
    assert math.isnan(field.beyond(vanilla, "I")) and field.roles(vanilla) == (0, 0, 0)


def test_leaks_and_floors_of_runs():
    probes = {f"I+T.{b}.{f}.knn": 0.0 for b in "IST" for f in ("elevation", "light", "azimuth")} | {"I+T.S.light.knn": 0.7}
    runs = [{"probes": probes, "above_floor": {"unseen": [1.0, 3.0]}}] * 2
    assert field.leaks(runs).tolist() == [0.7, 0.7] and field.floors(runs).shape == (2, 2)


def test_where_a_run_has_the_partition():
    blocks = {f"I+T.{b}.{f}.knn": float(b == home) for b in "IST" for f, home in
              (("elevation", "I"), ("light", "T"), ("azimuth", "S"))}
    nowhere = {k: float(".S." in k) for k in blocks}
    assert field.placed({"probes": blocks})["found"] and not field.placed({"probes": nowhere})["found"]
    assert field.placed({"probes": nowhere, "sorted": {"probes": blocks}})["found"]  # by who speaks
    assert field.placed({"probes": {"I+T.Z.light.knn": 1.0}}) is None


def test_a_step_of_every_model_has_its_cost():
    cost = field.steps()
    assert set(cost) >= set(field.MODELS) and cost["poe-v2"] == 1 and cost["vanilla"] < 1 < cost["idmvae"]


def test_every_term_has_its_drawing_and_its_bet():
    assert set(pictograms.WORDS) == set(pictograms.DRAWN) == set(terms.ADDED) == set(studies.PREDICTED)
    whole = pictograms.asks(studies.PREDICTED)
    text = whole.data.decode()
    assert len(ElementTree.fromstring(text).findall("{http://www.w3.org/2000/svg}g")) == 6
    assert text.count("bet: asks") == 3 and text.count("bet: does not ask") == 3 and "retain" in whole.alt
    assert pictograms.asks({"auxiliary": True}).data.decode().count("bet: asks") == 1
    with pytest.raises(ValueError, match="bets: found 'penalty', expected some of cross, gap"):
        pictograms.asks({"penalty": True})


def test_a_row_for_each_model_has_a_dot_for_each_seed():
    values = {"nats": {"A": [1.0, 2.0, 4.0], "B": [2.0]}, "share": {"A": [0.5, 0.6, 0.7], "B": np.array([np.nan])}}
    drawn = figures.by_row(values, "Two models.", log=("nats",), lines={"share": 0.5}, bold=("B",))
    assert drawn.alt == "Two models." and drawn.data.decode().count("<use ") >= 6

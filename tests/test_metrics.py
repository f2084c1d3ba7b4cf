"""book/metrics.json: complete, and of the code and data that are in the repository."""
import json
from pathlib import Path

import pytest

import mmvae
from mmvae import profiles

RECORDS = json.loads((Path(__file__).resolve().parent.parent / "book" / "metrics.json").read_text())


def test_every_model_is_measured():
    assert list(RECORDS) == list(mmvae.MODELS)


@pytest.mark.parametrize("name", mmvae.MODELS)
def test_a_record_says_what_its_numbers_depend_on(name):
    record = RECORDS[name]
    assert record["settings"] == profiles.PROFILES["cpu"].settings(name).__dict__
    assert record["parameters"] == sum(p.numel() for p in mmvae.MODELS[name](size=32).parameters())
    assert set(record["versions"]) == {"python", "torch", "numpy", "device"}
    assert record["data"] == RECORDS["mumo"]["data"] and record["seconds_per_step"] > 0
    subsets = ("IT",) if name == "vanilla" else ("I", "T", "IT")
    for s in subsets:
        parts = {k: v for k, v in record["heldout"].items() if k.startswith(f"{s}.") and not k.endswith("elbo")}
        elbo = -sum(v * (record["settings"]["weight"] if "reconstruction" in k else 1) for k, v in parts.items())
        assert record["heldout"][f"{s}.elbo"] == pytest.approx(elbo, rel=1e-5)

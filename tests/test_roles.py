"""What the latents wear: the shares against analysis of variance by hand, and the record of the published models."""
import copy
import json

import numpy as np
import pytest
import torch

from mmvae import evaluate
from mmvae.data import Rows
from mmvae.experiment import profiles, roles, weights
from mmvae.gaussian import Gaussian
from mmvae.models import PoEVAE
from mmvae.nets import vectors


class Says(PoEVAE):
    """A model whose latents are functions of what it sees: (elevation, bent person, noise of no KL)."""

    def posterior(self, x):
        a, b, noise = x["v"].T
        mu = torch.stack([2 * a + 0.1 * noise, b.square() + 0 * a, 1e-4 * noise], 1)
        return {"v": Gaussian(mu[:, :0], mu[:, :0]), "S": Gaussian(mu, torch.zeros_like(mu))}


def world(n=4000, seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randint(5, (n,), generator=g), torch.randint(-3, 4, (n,), generator=g)
    x = torch.stack([a.float(), b.float(), torch.randn(n, generator=g)], 1)
    return Says({"v": vectors(3)}, shared=3), Rows({"v": x}, factors={"elevation": a.double(), "identity": b})


def test_shares_are_those_of_an_analysis_of_variance():
    from scipy.stats import f_oneway
    model, rows = world()
    found = evaluate.shares(model, rows, 3000, seed=2)
    z, _, known = evaluate.codes(model, rows, ("v",), 3000, 2)
    for f in ("elevation", "identity"):
        values = np.unique(known[f])
        for k in range(3):
            groups = [z["S"][known[f] == v, k].astype(float) for v in values]
            if np.concatenate(groups).std() < 1e-3:
                continue
            ratio, n, g = f_oneway(*groups).statistic, 3000, len(values)
            expected = 1 - (n - 1) / (n - g) / (1 + ratio * (g - 1) / (n - g))  # eta squared, less what chance shows
            assert found[f][k] == pytest.approx(max(0, expected), abs=1e-6), (f, k)
    assert found["elevation"][0] > 0.99 and found["identity"][1] > 0.99  # however it is bent
    assert found["elevation"][1] < 0.01 and found["kl"][2] < 0.01
    assert set(evaluate.shares(model, rows, 500, factors=["identity"])) == {"kl", "identity"}
    with pytest.raises(ValueError, match='factors."identity".: found 1 values in 1 rows'):
        evaluate.shares(model, rows, 1, factors=["identity"])


def test_what_a_latent_wears():
    model = world()[0]
    shares = {"kl": [2.0, 1.0, 0.05], "elevation": [0.953, 0.2, 0.9], "identity": [0.02, 0.61, 0.0]}
    assert roles.words(model, shares) == {"v": [], "S": ["≈ elevation 0.95", "≈ person 0.61, elevation 0.20", "idle"]}


def test_the_record_is_of_the_published_weights():
    record = roles.record()
    assert list(record["models"]) == [*weights.RECIPES, roles.HALF]
    for name, of in record["models"].items():
        model = weights.load(name) if name in weights.RECIPES else roles.half(weights.load("mumo"))
        assert name == roles.HALF or of["sha256"] == weights.info(name)["sha256"]
        assert roles.published(model) == of["shares"]
        assert {len(v) for v in of["shares"].values()} == {sum(model.blocks.values())}
        other = copy.deepcopy(model)
        with torch.no_grad():
            next(other.parameters()).add_(0.1)
        assert roles.published(other) is None
    words = profiles.PROFILES["cpu"].does({"mumo": weights.load("mumo")})["mumo"]
    assert words["I"][1].startswith("≈ elevation 0.9") and words["T"][0] == "idle" and len(words["S"]) == 5


def test_the_record_is_repeated_on_fewer_people():
    """Of two models and the first people who are held out, as the cpu profile renders them: the same first words."""
    pairs = profiles.Shown(profiles.PROFILES["cpu"], "test", 64)
    pairs.values = pairs.values | {"identity": pairs.values["identity"][:4]}
    pairs.shape = tuple(map(len, pairs.values.values()))
    for name in ("mumo", "wg-v2"):
        model, stored = weights.load(name), roles.record()["models"][name]["shares"]
        now = roles.measure(model, pairs, 800)
        for f in ("elevation", "light"):
            np.testing.assert_allclose(now[f], stored[f], atol=0.12)


def test_a_damaged_record_is_refused(tmp_path):
    path = tmp_path / "roles.json"
    with pytest.raises(FileNotFoundError, match="roles. measures and writes it"):
        roles.record(path)
    record = json.loads(roles.FILE.read_text())
    record["models"]["mumo"]["shares"]["elevation"][1] = 0.5
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="found a damaged record .its content is not that of its digest"):
        roles.record(path)

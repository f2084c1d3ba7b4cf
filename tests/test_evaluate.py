"""evaluate.py: the held-out terms are means of the loss's, and probes find what was planted."""
import json

import pytest
import torch
from torch import nn

import mmvae
from mmvae import Gaussian, evaluate
from mmvae.data import FACTORS, Grid, Pairs
from mmvae.train import Settings, fit


@pytest.fixture(scope="module")
def grid():
    """Images that state their own factors: pixel (0, k) is factor k of the image, scaled to 0..255."""
    n, a, e, l = 6, 8, 5, 5  # noqa: E741
    values = dict(identity=torch.arange(n), azimuth=torch.linspace(-90, 90, a), elevation=torch.linspace(-30, 30, e),
                  light=torch.linspace(-80, 80, l))
    images = {}
    for m, third in (("I", e), ("T", l)):
        index = torch.meshgrid(torch.arange(n), torch.arange(a), torch.arange(third), indexing="ij")
        images[m] = torch.zeros(n, a, third, 16, 16, dtype=torch.uint8)
        for k, i in enumerate(index):
            images[m][:, :, :, 0, k] = (i * 30).to(torch.uint8)
    return Grid(**images, **values, test_identities=3)


class Oracle(nn.Module):
    """A 'model' whose blocks hold just the factors they should: zI elevation, zT light, zS identity and azimuth."""
    blocks, subsets = {"I": 2, "S": 2, "T": 1}, ("I", "T", "IT")

    def posterior(self, x):
        like = next(iter(x.values()))
        pixels = {m: image[:, 0, 0, :3] * 8.5 for m, image in x.items()}  # (B, 3) grid indices
        shared = next(iter(pixels.values()))[:, :2] - 2
        zeros = like.new_zeros(len(like), 1)

        def certain(mu):
            return Gaussian(mu, torch.full_like(mu, -6.0))

        I = certain(pixels["I"][:, 2:] - 2) if "I" in pixels else Gaussian(zeros, zeros)
        T = certain(pixels["T"][:, 2:] - 2) if "T" in pixels else Gaussian(zeros, zeros)
        # the second latent of I has collapsed; its tiny mean would tell azimuth to a careless probe
        collapsed = Gaussian(1e-3 * shared[:, 1:], zeros)
        I = Gaussian(torch.cat([I.mu, collapsed.mu], 1), torch.cat([I.logvar, collapsed.logvar], 1))
        return {"I": I, "S": certain(shared), "T": T}


def test_probes_find_the_planted_partition_and_nothing_else(grid):
    train, test = Pairs(grid), Pairs(grid, "test")
    scores = evaluate.probes(Oracle(), train, test, n=1000)
    assert set(scores) == {f"{s}.{b}.{f}.{p}" for s in ("I", "T", "IT") for b in "IST" for f in FACTORS
                           for p in ("linear", "knn")}
    chance = 1 / 3
    for probe in ("linear", "knn"):
        table = {(b, f): scores[f"IT.{b}.{f}.{probe}"] for b in "IST" for f in FACTORS}
        for block, factor in (("I", "elevation"), ("T", "light"), ("S", "azimuth"), ("S", "identity")):
            assert table.pop((block, factor)) > 0.95
        for (block, factor), score in table.items():
            assert score < (chance + 0.12 if factor == "identity" else 0.05), (block, factor)
        assert scores[f"I.T.light.{probe}"] == 0 and scores[f"I.T.identity.{probe}"] == chance  # T was not observed


def test_heldout_is_the_mean_of_the_terms_and_leaves_the_random_state(grid):
    pairs = Pairs(grid, "test")
    torch.manual_seed(0)
    model = mmvae.MODELS["poe-v1"](size=16)
    state = torch.get_rng_state()
    values = evaluate.heldout(model, pairs, weight=3.0, n=512)
    assert torch.equal(state, torch.get_rng_state())
    assert values == evaluate.heldout(model, pairs, weight=3.0, n=512)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    with torch.no_grad():
        batches = [model.terms(pairs.sample(256, generator)[0], 3.0, ("I", "T", "IT")) for _ in range(2)]
    for name, value in values.items():
        assert value == pytest.approx(torch.cat([b[name] for b in batches]).double().mean().item(), rel=1e-6)
    for s in ("I", "T", "IT"):
        parts = {k: v for k, v in values.items() if k.startswith(f"{s}.")}
        elbo = -sum(v * (3 if "reconstruction" in k else 1) for k, v in parts.items() if not k.endswith("elbo"))
        assert parts[f"{s}.elbo"] == pytest.approx(elbo, rel=1e-5)


def test_latent_kl_adds_up_to_the_kl():
    q = Gaussian(torch.randn(50, 4), torch.randn(50, 4))
    torch.testing.assert_close(evaluate.latent_kl(q).sum(), q.kl().mean())


@pytest.mark.parametrize("name", ["vanilla", "wg-v1"])
def test_measure_writes_a_record_with_everything_a_number_depends_on(name, grid, tmp_path):
    train, test = Pairs(grid), Pairs(grid, "test")
    fit(Settings(model=name, size=16, iterations=5, batch=8), train, tmp_path, progress=False)
    record = evaluate.measure(tmp_path, train, test, n=300)
    assert json.loads((tmp_path / "metrics.json").read_text()) == record
    assert {"settings", "data", "versions", "machine", "n", "heldout", "probes", "parameters"} == set(record)
    with pytest.raises(ValueError, match="trained on data"):
        evaluate.measure(tmp_path, test, train, n=300)


def test_the_command_prints_what_it_writes(tmp_path, capsys):
    mmvae.faces.write(tmp_path / "faces.h5", identities=2, test_identities=2, size=16, progress=False)
    settings = Settings(model="mumo", size=16, iterations=3, batch=8)
    fit(settings, Pairs(tmp_path / "faces.h5"), tmp_path / "run", progress=False)
    evaluate.main([str(tmp_path / "run"), str(tmp_path / "faces.h5")])
    record, printed = json.loads((tmp_path / "run" / "metrics.json").read_text()), capsys.readouterr().out
    assert f"{record['heldout']['IT.elbo']:.1f} nats per pair" in printed
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path / "nothing"), str(tmp_path / "faces.h5")])
    assert "no settings.json" in capsys.readouterr().err

"""The book's six models give the numbers that they gave before the core took any modalities: tests/landed.json holds the terms
of the loss, the gradients and the posteriors of fixed weights, pictures and noise, computed by the version before, whose
decoders were dense."""
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from mmvae import MODELS, behaviour, gaussian

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from dense import dense  # noqa: E402

RECORDS = json.loads(Path(__file__).with_name("landed.json").read_text())


def pictures(n=3, size=16):
    out = {}
    for k, m in enumerate("IT"):
        i = torch.arange(n * size * size, dtype=torch.float64)
        out[m] = (0.5 + 0.5 * torch.sin(0.37 * i + 0.013 * i * (k + 1) % 5)).float().view(n, 1, size, size)
    return out


class Noise:
    """The same numbers at every k-th draw."""
    calls = 0

    def __call__(self, like):
        self.calls += 1
        i = torch.arange(like.numel(), dtype=torch.float64)
        return (1.3 * torch.sin(2.1 * i + self.calls)).view_as(like).to(like)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: f"{r['model']}{r['options'] or ''}")
def test_losses_gradients_and_posteriors_are_those_of_before(record, monkeypatch):
    model, x = behaviour.fixed_weights(dense(MODELS[record["model"]](size=16, **record["options"]), 16)), pictures()
    assert [list(p.shape) for p in model.parameters()] == record["shapes"]
    monkeypatch.setattr(gaussian, "noise", Noise())
    terms = model.terms(x, record["weight"], cross=record["cross"])
    assert list(terms) == list(record["terms"])
    for name, value in terms.items():
        torch.testing.assert_close(value, torch.tensor(record["terms"][name]), rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(terms["total"].sum(), list(model.parameters()), allow_unused=True)
    norms = [0.0 if g is None else g.double().norm().item() for g in gradients]
    assert norms == pytest.approx(record["gradient"], rel=1e-5)
    for subset, blocks in record["posterior"].items():
        q = model.posterior({m: x[m] for m in subset.split("+")})
        assert list(q) == list(blocks)
        for block, expected in blocks.items():
            for part, value in expected.items():
                found = getattr(q[block], part)
                torch.testing.assert_close(found, torch.tensor(value).view_as(found), rtol=1e-5, atol=1e-5)
    means = {m: v.mean((1, 2, 3)) for m, v in model.decode({b: g.mu for b, g in model.posterior(x).items()}).items()}
    for m, value in record["decoded"].items():
        torch.testing.assert_close(means[m], torch.tensor(value), rtol=1e-5, atol=1e-5)
    assert math.isfinite(sum(norms))

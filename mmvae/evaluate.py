"""How a model is judged: its ELBO on identities that training never saw, and what a probe reads off each block.

    python -m mmvae.evaluate RUN_DIR data.h5

measures one run of `mmvae.train` and writes RUN_DIR/metrics.json.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .data import FACTORS, Pairs
from .gaussian import Gaussian
from .models import SUBSETS, MultiModalVAE
from .train import load_run, write_atomically

COLLAPSED = 0.1  # nats: a latent whose mean KL is below it carries nothing that a decoder uses
PROBES = {
    "linear": (RidgeCV, lambda: LogisticRegression(max_iter=500)),  # for a number, for a class
    "knn": (lambda: KNeighborsRegressor(10), lambda: KNeighborsClassifier(10)),
}


def subsets_of(model: MultiModalVAE) -> tuple[str, ...]:
    """The subsets from which the model can infer z, whether or not training summed their ELBO."""
    return ("IT",) if "Z" in model.blocks else SUBSETS


@torch.no_grad()
def heldout(model: MultiModalVAE, pairs: Pairs, weight: float = 1.0, n: int = 4096, seed: int = 0) -> dict[str, float]:
    """The mean of every loss term over n pairs, one posterior sample each: nats per pair, names as in `model.loss`.

    For all subsets, also those whose ELBO training left out; "total" is minus their sum, not the training loss.
    Noise and pairs depend on the seed alone, so that models are compared on the same pairs. The caller's random
    state is left as it was.
    """
    generator, batch = torch.Generator(pairs.device).manual_seed(seed), 256
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        batches = [model.terms(pairs.sample(batch, generator)[0], weight, subsets_of(model))
                   for _ in range(-(-n // batch))]
    return {name: torch.cat([terms[name] for terms in batches])[:n].double().mean().item() for name in batches[0]}


@torch.no_grad()
def codes(model: MultiModalVAE, pairs: Pairs, subset: str, n: int, seed: int = 0):
    """The posteriors of n pairs from the modalities in `subset`, and the pairs' factors.

    Returns ({block: mu (n, D)}, {block: mean KL of each latent (D,), nats}, {factor: value (n,)}), numpy arrays.
    """
    x, factors = pairs.sample(n, torch.Generator(pairs.device).manual_seed(seed))
    q = model.posterior({m: x[m] for m in subset})
    mu = {block: g.mu.cpu().numpy() for block, g in q.items()}
    kl = {block: latent_kl(g).cpu().numpy() for block, g in q.items()}
    return mu, kl, {k: v.cpu().numpy() for k, v in factors.items()}


def latent_kl(q: Gaussian) -> torch.Tensor:
    """The KL of each latent of a Gaussian (B, D) to its prior, averaged over the batch: (D,), nats."""
    return Gaussian(q.mu.unsqueeze(-1), q.logvar.unsqueeze(-1)).kl().mean(0)  # each latent a block of its own


def probes(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 4096, seed: int = 0) -> dict[str, float]:
    """The block x factor table: how well a probe reads each factor off each block's posterior mean.

    Returns {"subset.block.factor.probe": score}, probe "linear" or "knn" (10 nearest neighbours). Elevation, light
    and azimuth: R^2, fitted on codes of `train` and scored on `test`, whose identities neither the model nor the
    probe has seen; negative R^2 counts as 0, which is chance. Identity: accuracy among the identities of `test`,
    fitted on every other azimuth and scored on the ones between; chance is 1 / their number.
    Collapsed latents (mean KL below 0.1 nats) are dropped, since a probe reads variations that no decoder uses; a
    block with no other scores at chance. Palumbo et al. (2023) probe shared and private; the full table is ours
    [eq-side-r2].
    """
    scores = {}
    for subset in subsets_of(model):
        mu, kl, factors = codes(model, train, subset, n, seed)
        mu_test, _, factors_test = codes(model, test, subset, n, seed + 1)
        pose = np.searchsorted(test.values["azimuth"].cpu().numpy(), factors_test["azimuth"])
        for block, alive in ((block, kl[block] >= COLLAPSED) for block in mu):
            for factor in FACTORS:
                if factor == "identity":
                    on = {even: (mu_test[block][pose % 2 == even], factors_test[factor][pose % 2 == even])
                          for even in (0, 1)}
                    (z, y), (z_test, y_test), chance = on[0], on[1], 1 / test.shape[0]
                else:
                    (z, y), (z_test, y_test) = (mu[block], factors[factor]), (mu_test[block], factors_test[factor])
                    chance = 0.0
                for name, kinds in PROBES.items():
                    score = chance
                    if alive.any():
                        probe = make_pipeline(StandardScaler(), kinds[factor == "identity"]())
                        score = max(0.0, float(probe.fit(z[:, alive], y).score(z_test[:, alive], y_test)))
                    scores[f"{subset}.{block}.{factor}.{name}"] = score
    return scores


def numbers(model: MultiModalVAE, train: Pairs, test: Pairs, weight: float, n: int = 4096) -> dict:
    """What the book says of a model, measured on n pairs: "n", "heldout", "probes", and its number of "parameters".

    weight: of the likelihood in the model's training, and so in its ELBO.
    """
    return {"n": n, "heldout": heldout(model, test, weight, n), "probes": probes(model, train, test, n),
            "parameters": sum(p.numel() for p in model.parameters())}


def measure(run_dir: str | Path, train: Pairs, test: Pairs, n: int = 4096) -> dict:
    """Measure one run and write run_dir/metrics.json: the run's settings, data and versions beside every number."""
    run_dir = Path(run_dir)
    model = load_run(run_dir, train.device)
    record = json.loads((run_dir / "settings.json").read_text())
    if record["data"] != train.fingerprint:
        raise ValueError(f"{run_dir}: trained on data {record['data'][:12]}, "
                         f"asked to measure on {train.fingerprint[:12]}")
    record |= numbers(model, train, test, record["settings"]["weight"], n)
    write_atomically(run_dir / "metrics.json", json.dumps(record, indent=1).encode())
    return record


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m mmvae.evaluate", description="Measure one run of mmvae.train.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("data", help="the HDF5 file that the run was trained on")
    args = parser.parse_args(argv)
    try:
        size = load_run(args.run_dir).size
        record = measure(args.run_dir, Pairs(args.data, size=size), Pairs(args.data, "test", size=size))
    except (ValueError, FileNotFoundError) as e:
        parser.exit(1, f"{e}\n")
    print(f"{args.run_dir}: ELBO of {{I,T}}, held out: {record['heldout']['IT.elbo']:.1f} nats per pair")
    for name, score in record["probes"].items():
        if name.endswith("knn") and name.startswith("IT"):
            print(f"  {name:28s} {score:.2f}")


if __name__ == "__main__":
    main()

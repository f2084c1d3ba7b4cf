"""Pairs per second of our training step and of multivae's own trainer, on the same networks and the same images.

    python benchmarks/throughput.py --install      (about 6 minutes on one core, and a download of 20 MB)

multivae (https://github.com/AgatheSenellart/MultiVae) is needed for nothing else here; --install puts it into an
environment of its own, _build/multivae, on top of the running one, and measures in there.

Matched: networks and their weights, latents, objective (before anything is timed, the loss of one batch with one noise
must be the same), batch, learning rate, images, threads. On their side the trainer's `train_step` is timed, an epoch
of its loader, not its start-up, checkpoints, copies of the best model, evaluation or progress bar; its distributions
do not check their arguments, or Bernoulli would refuse grey levels; its Adam is timed as it comes, and fused as ours
is. On our side `Pairs.sample` and `mmvae.train.update` are timed; beside theirs that clips the gradient and decays the
weights.

MVAE sums the ELBOs of {I,T}, {I} and {T}, as the WG-VAE v2 with `single_prior` does, but encodes anew for each. DMVAE
reconstructs both modalities from each of three posteriors of zS; the MMPOE-VAE v2 has two reconstructions less. So
DMVAE's objective is written below with our parts, and the book's MMPOE-VAE v2 and MuMo-VAE are timed beside it.

Writes benchmarks/results/throughput.json; `python benchmarks/report.py` puts it into the README.
"""
import argparse
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
import venv
from copy import deepcopy
from functools import partial
from pathlib import Path

import measure
import report
import torch

from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import NAMES, pair
from mmvae.models import MuMoVAE, PoEVAE

ROOT = Path(__file__).resolve().parent.parent
MULTIVAE = "multivae==1.0.3"
ORDER = ("I", "T"), ("I",), ("T",)  # multivae's: the same noise in the same place
SIDE = 2048  # of the matrices whose product gives the machine's rate


class DMVAE(PoEVAE):
    """DMVAE's objective with our parts: for zS of the pair, of I and of T, both modalities are reconstructed, each
    with its own private block. Lee & Pavlovic (2021), as multivae 1.0.3 computes it.
    """

    def terms(self, x, weight=1.0, present=None, subsets=ORDER, cross=None, check=True, extra=None):
        experts = {m: self.encoders[m](x[m]) for m in NAMES}
        private = {m: experts[m][m] for m in NAMES}
        shared = [self.fuse({m: experts[m] for m in s})["S"] for s in subsets]
        z = [{"S": q.sample()} | {m: p.sample() for m, p in private.items()} for q in shared]
        logits = self.decode({b: torch.cat([draw[b] for draw in z]) for b in self.blocks})  # (3 B, 1, H, W)
        total = sum(q.kl() for q in shared) + len(z) * sum(p.kl() for p in private.values())  # (B,)
        for m in NAMES:
            total = total - weight * sum(self.likelihood(m).log_prob(part, x[m]) for part in logits[m].chunk(len(z)))
        return {"total": total}


def install() -> Path:
    """The Python of an environment that has this one's packages and multivae; none of this one's is replaced."""
    home = ROOT / "_build" / "multivae"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(home, with_pip=True)
    paths = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                           check=True, capture_output=True, text=True).stdout.strip()
    here = sysconfig.get_path("purelib")
    Path(paths, "below.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    subprocess.run([python, "-m", "pip", "install", "-q", MULTIVAE, "-c", ROOT / "constraints.txt"], check=True)
    return python


def compare(recipe: Recipe, steps: int, rounds: int, identities: int = 50) -> dict:
    """Time everything in turns of `steps` iterations; returns the record that `report.throughput` shows."""
    import theirs

    torch.manual_seed(recipe.seed)
    pairs = measure.random_pairs(recipe.size, identities)
    x = pairs.sample(recipe.batch * steps)[0]  # their dataset: as many pairs as we draw in one turn
    batch = {m: image[:recipe.batch] for m, image in x.items()}
    units = recipe.batch * steps
    arms, about, flops = {}, {}, {}

    def add_ours(name: str, model, decoder_passes: int):
        draw, step = measure.trainer(model, pairs, recipe)
        arms[name] = partial(measure.repeat, draw, step, steps), units
        about[name] = {"ours": name, "encoder_passes": len(model.encoders), "decoder_passes": decoder_passes}
        flops[name] = measure.flops(lambda: step(draw())) // recipe.batch

    with tempfile.TemporaryDirectory() as folder:
        for name, ours, encoder_passes, decoder_passes in (
                ("MVAE", pair(PoEVAE, 0, recipe.size, shared=10, subsets=ORDER, single_prior=True), 4, 4),
                ("DMVAE", pair(DMVAE, size=recipe.size), 2, 6)):
            for kind, adam in (("default Adam", None), ("fused Adam", {"fused": True})):
                trainer = theirs.trainer(deepcopy(ours), x, recipe, adam, folder)
                torch.manual_seed(0)
                found = theirs.loss(trainer, batch)
                torch.manual_seed(0)
                torch.testing.assert_close(found, ours.loss(batch)["total"], rtol=1e-5, atol=0)
                arms[f"{name}, multivae, {kind}"] = partial(trainer.train_step, 1), units
                about[f"{name}, multivae, {kind}"] = {
                    "ours": f"{name}, ours", "encoder_passes": encoder_passes, "decoder_passes": decoder_passes}
            add_ours(f"{name}, ours", ours, decoder_passes)
        add_ours("MMPOE-VAE v2, ours", pair(PoEVAE, size=recipe.size), 4)
        add_ours("MuMo-VAE, ours", pair(MuMoVAE, size=recipe.size), 4)
        a, b = torch.randn(2, SIDE, SIDE)
        arms["matrix product"] = partial(torch.mm, a, b), 2 * SIDE**3
        rates = measure.interleave(arms, rounds)
    return {"machine": measure.machine(), "arms": about, "flops_per_pair": flops, "rates": rates,
            "settings": {"batch": recipe.batch, "size": recipe.size, "steps a round": steps, "rounds": rounds}}


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--install", action="store_true", help=f"{MULTIVAE} into _build/multivae, and measure in there")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25, help="iterations of each in a round")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for throughput.json")
    args = parser.parse_args(argv)
    if not importlib.util.find_spec("multivae"):
        if not args.install:
            parser.exit(1, "multivae: not installed; `python benchmarks/throughput.py --install` does it in a minute\n")
        rest = [arg for arg in (sys.argv[1:] if argv is None else argv) if arg != "--install"]
        parser.exit(subprocess.call([install(), __file__, *rest]))
    torch.set_num_threads(1)
    record = compare(Recipe("mumo", learning_rate=1e-4), args.steps, args.rounds)
    measure.save("throughput", record, args.out)
    print(report.throughput(record))


if __name__ == "__main__":
    main()

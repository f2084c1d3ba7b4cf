"""What each latent of a model does, in the words that it wears in the sliders: "≈ elevation 0.95", "≈ person 0.61", "idle".

    python -m mmvae.experiment.roles FACES.h5      measures the published models anew; writes published/roles.json

A latent is idle if its mean KL is below `evaluate.COLLAPSED`. Of another one the factor is named that explains most of it,
and the next, if it explains something, by `evaluate.shares`, on people that no model has learnt from. The record: "n" pairs
and "people" that were measured on, "models", {name: {"sha256" of the weights, "shares": as `evaluate.shares` has them}}, with
the half of one that chapter 2 begins with, and "digest", of all these.
"""
import argparse
import hashlib
from functools import cache
from pathlib import Path

from safetensors.torch import save as to_bytes

from .. import evaluate, strict
from ..data import Rows
from ..faces import FACTORS, Pairs
from ..models import MultiModalVAE, VanillaVAE
from ..nets import images
from . import weights

FILE = weights.FOLDER / "roles.json"
CALLED = {"identity": "person"}  # what a factor is named where a reader sees it
LEAST = 0.15  # a share from which on a latent wears a second name
HALF = "mumo, I"  # the VAE of one picture that is in it: see `half`
SHARES = {k: [strict.number(0)] for k in ("kl", *FACTORS)}
FORM = {"n": range(1, 1_000_000), "people": range(1, 1_000_000), "digest": str,
        "models": dict.fromkeys((*weights.RECIPES, HALF), {"sha256": str, "shares": SHARES})}


def measure(model: MultiModalVAE, rows: Rows, n: int = 4096) -> dict[str, list[float]]:
    """`evaluate.shares` of n rows, three digits a number: {"kl", factor: [a number for each latent]}."""
    return {k: [round(v, 3) for v in of] for k, of in evaluate.shares(model, rows, n).items()}


def words(model: MultiModalVAE, shares: dict[str, list[float]]) -> dict[str, list[str]]:
    """What each latent wears: {block: ["≈ elevation 0.95", "idle", ...]}. shares: what `evaluate.shares` says of it."""
    said, start = [_word({k: of[i] for k, of in shares.items()}) for i in range(len(shares["kl"]))], 0
    found = {}
    for block, dim in model.blocks.items():
        found[block], start = said[start:start + dim], start + dim
    return found


def _word(of: dict[str, float]) -> str:
    """Of one latent: "kl", nats, and the share of each factor."""
    if of["kl"] < evaluate.COLLAPSED:
        return "idle"
    first, *more = sorted((f for f in of if f != "kl"), key=of.get, reverse=True)
    named = [first, *(f for f in more[:1] if of[f] >= LEAST)]
    return "≈ " + ", ".join(f"{CALLED.get(f, f)} {of[f]:.2f}" for f in named)


@cache
def record(path: Path = FILE) -> dict:
    """The record of the published models. Raises FileNotFoundError, or ValueError for a damaged one."""
    return weights.read_record(path, FORM, "python -m mmvae.experiment.roles")


def published(model: MultiModalVAE) -> dict[str, list[float]] | None:
    """What the record says of a model with just these weights: see `evaluate.shares`; None if they are not published ones."""
    own = _digest(model)
    return next((of["shares"] for of in record()["models"].values() if of["sha256"] == own), None)


def _digest(model: MultiModalVAE) -> str:
    """The SHA-256 of a model's weights in half precision, as they are published."""
    return hashlib.sha256(to_bytes({k: v.half().cpu() for k, v in model.state_dict().items()})).hexdigest()


def half(model: MultiModalVAE, m: str = "I") -> VanillaVAE:
    """The VAE of picture m alone that is in a MuMo-VAE of the book, in eval mode: its encoder and its decoder of m, whose
    private and shared latents are one block."""
    latents = model.blocks[m] + model.blocks["S"]
    one = VanillaVAE({m: images(model.modalities[m].shape[-1])}, latent=latents).to(model.like.device)
    one.encoders[m].load_state_dict(model.encoders[m].state_dict())
    one.decoders[m].load_state_dict(model.decoders[m].state_dict())
    return one.eval()


def publish(rows: Rows, n: int = 4096, path: Path = FILE) -> dict:
    """Measure every published model on rows of the people who are held out, and write the record; returns it."""
    found = {"n": n, "people": len(rows.values["identity"]), "models": {}}
    models = {name: weights.load(name, device=rows.device) for name in weights.RECIPES}
    for name, model in (models | {HALF: half(models[HALF.partition(",")[0]])}).items():
        found["models"][name] = {"sha256": _digest(model), "shares": measure(model, rows, n)}
    return weights.write_record(path, found)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="HDF5 file of `python -m mmvae.faces`, 64x64, of whom those held out are measured")
    parser.add_argument("--out", type=Path, default=FILE, help="the file that is written")
    args = parser.parse_args(argv)
    found = publish(Pairs(args.data, "test"), path=args.out)
    for name, of in found["models"].items():
        print(name, *(f"{f}: {values}" for f, values in of["shares"].items()), sep="\n   ")


if __name__ == "__main__":
    main()

"""The live picture of the welcome page: a small MMPOE-VAE of one head, with a dial for each of its three latents.

    python -m mmvae.experiment.dials             trains it anew on one core, in minutes; writes published/dials.*

No angle is in its loss: it is `PoEVAE` with its three ELBOs, on pairs of one head, with one latent a block. The likelihood
weighs 1/32, so beta is 32: the posteriors then fill the prior, and a dial has no gaps; a second run with 1/2 sharpens the
pictures. What each latent does is measured, and the dials are named after it. The decoders are small enough for a page that
has just begun.

The record, published/dials.json: "settings", "data" (the pairs' fingerprint), "versions", "seconds", "does" and "names" and
"start" (see the functions), "bytes" and "sha256" of the weights in half precision, and "digest", of all these.
"""
import argparse
import hashlib
import io
import math
import tempfile
from functools import lru_cache, partial
from pathlib import Path

import torch
import traitlets as t
from PIL import Image
from safetensors.torch import save as to_bytes
from torch import Tensor

from .. import faces, strict
from ..checkpoint import versions, write_atomically
from ..faces import file
from ..likelihoods import Bernoulli
from ..models import PoEVAE
from ..nets import ImageDecoder, ImageEncoder, Modality
from ..show import page
from ..show.explorables import Explorable
from ..show.labels import colours
from ..show.picture import Picture
from ..show.views import inks
from ..show.widgets import keep
from ..train import fit, read_log
from . import weights
from .table import NAMES

FOLDER = weights.FOLDER
SETTINGS = {"person": 2, "size": 64, "decoder": 32, "encoder": 32, "iterations": 2500, "batch": 32, "learning_rate": 5e-3,
            "weight": 1 / 32, "sharpen": 2500, "sharpen_rate": 3e-3, "sharpen_weight": 1 / 2, "seed": 0}
CALLED = {"elevation": "nod", "azimuth": "turn", "light": "lamp"}  # what a latent is named that moves this factor
START = {"azimuth": 13, "elevation": 7, "light": 7}  # the pair that the page begins with: indices of its angles
LIMIT = 150_000  # bytes that a page may load for the decoders
FORM = {"settings": {str: (int, float)}, "data": str, "versions": {str: str}, "seconds": strict.number(0),
        "does": {str: {str: strict.number(0, 1)}}, "names": {str: str}, "start": {str: float},
        "bytes": range(1, weights.LIMIT), "sha256": str, "digest": str}


@lru_cache(1)
def head(person: int = SETTINGS["person"], size: int = SETTINGS["size"]) -> faces.Pairs:
    """Every pair of one person, rendered when it is first asked for: as `faces.Pairs`, with one identity."""
    pictures = (images[None] for images in file.head(person, faces.SEED, size)[:2])
    angles = dict(zip(("azimuth", "elevation", "light"), (faces.AZIMUTHS, faces.ELEVATIONS, faces.LIGHTS)))
    angles = {name: torch.from_numpy(values) for name, values in angles.items()}
    return faces.Pairs(faces.Grid(*pictures, **angles, identity=torch.tensor([person]), test_identities=0))


def build(size: int = SETTINGS["size"], decoder: int = SETTINGS["decoder"], encoder: int = SETTINGS["encoder"]) -> PoEVAE:
    """The untrained model: the book's networks, narrower, and one latent a block. decoder, encoder: width of their layers."""
    picture = Modality(partial(ImageEncoder, size=size, width=encoder), partial(ImageDecoder, size=size, width=decoder),
                       Bernoulli(), 1, (1, size, size))
    return PoEVAE(dict.fromkeys(NAMES, picture), shared=1)


def train(pairs: faces.Pairs, folder: str | Path, **changes) -> PoEVAE:
    """Train it by `mmvae.fit`, in two runs in this folder: one that spreads the latents, one that sharpens the pictures.

    changes: of SETTINGS. Stopped and called again it goes on. Raises what `mmvae.fit` raises.
    """
    of = SETTINGS | changes
    with torch.random.fork_rng([]):
        torch.manual_seed(of["seed"])
        model = build(of["size"], of["decoder"], of["encoder"])
    same = {"batch": of["batch"], "seed": of["seed"]}
    model = fit(model, pairs, Path(folder) / "spread", iterations=of["iterations"], learning_rate=of["learning_rate"],
                weight=of["weight"], **same)
    return fit(model, pairs, Path(folder) / "sharpen", iterations=of["sharpen"], learning_rate=of["sharpen_rate"],
               weight=of["sharpen_weight"], **same)


def does(model: PoEVAE, pairs: faces.Pairs, n: int = 1024, seed: int = 0) -> dict[str, dict[str, float]]:
    """What each latent does to the pictures: {block: {factor: share of the factor's variance that goes with the latent}}.

    n draws from the prior are decoded, and each picture takes the angles of the render of this head that is nearest to it, in
    pixels: what is measured is what a dial does, not what an encoder says. A share is the correlation ratio, Pearson (1905):
    the variance between the means of 16 equal parts of the draws, sorted by the latent, over all of it. Of what both pictures
    show it is their mean. 1: the latent decides the factor; 0: it has nothing to do with it.
    """
    generator = torch.Generator().manual_seed(seed)
    z = {b: torch.randn(n, dim, generator=generator) for b, dim in model.blocks.items()}
    with page.quiet(model):
        made, shares = model.means(z), {b: {f: [] for f in CALLED} for b in z}
    for m, pictures in made.items():
        renders = pairs.images[m].flatten(0, -3).flatten(1).float() / 255  # (cells, pixels)
        cell = torch.cdist(pictures.flatten(1), renders).argmin(1)
        for f, index in zip(pairs.axes[m], torch.unravel_index(cell, pairs.images[m].shape[:-2])):
            for b, value in z.items() if f in CALLED else ():
                shares[b][f].append(share(value[:, 0], pairs.values[f][index].float()))
    return {b: {f: round(sum(of) / len(of), 3) for f, of in row.items()} for b, row in shares.items()}


def share(z: Tensor, factor: Tensor, parts: int = 16) -> float:
    """Of the variance of a factor (n,) the share between the means of equal parts of the draws, sorted by z (n,)."""
    sorted_ = factor[z.argsort()]
    means = torch.stack([part.mean() for part in sorted_.tensor_split(parts)])
    counts = torch.tensor([len(part) for part in sorted_.tensor_split(parts)])
    return ((counts * (means - factor.mean()) ** 2).sum() / ((factor - factor.mean()) ** 2).sum()).item()


def names(does: dict[str, dict[str, float]]) -> dict[str, str]:
    """{block: its dial's name}: after the factor of which it decides most. Raises ValueError unless each has its own."""
    found = {block: CALLED[max(of, key=of.get)] for block, of in does.items()}
    if len(set(found.values())) < len(found):
        raise ValueError(f"dials: found {does}, shares of each factor's variance; expected a latent for each factor")
    return found


def start(model: PoEVAE, pairs: faces.Pairs) -> dict[str, float]:
    """Posterior means of the pair of `START`: {block: mean}."""
    with page.quiet(model):
        q = model.posterior(pairs.at(identity=0, **START)[0])
    return {b: round(g.mu.item(), 2) for b, g in q.items()}


def publish(folder: str | Path = FOLDER, run_dir: str | Path | None = None, **changes) -> dict:
    """Train, measure, and write dials.safetensors and dials.json into the folder; the record. changes: of SETTINGS.

    Raises ValueError if the latents do not each decide a factor of their own.
    """
    of = SETTINGS | changes
    pairs, folder = head(of["person"], of["size"]), Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        model = train(pairs, run_dir or scratch, **changes)
        seconds = sum(float(read_log(Path(run_dir or scratch) / run)["seconds"][-1]) for run in ("spread", "sharpen"))
    half = {k: v.half() for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.float() for k, v in half.items()})
    content, found = to_bytes(half), does(model, pairs)
    record = {"settings": of, "data": pairs.fingerprint, "versions": versions(pairs.device), "seconds": round(seconds, 1),
              "does": found, "names": names(found), "start": start(model, pairs), "bytes": len(content),
              "sha256": hashlib.sha256(content).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "dials.safetensors", content)
    return weights.write_record(folder / "dials.json", record)


def load(folder: str | Path = FOLDER) -> tuple[PoEVAE, dict]:
    """The trained model, in eval mode, and its record; both files are checked against their hashes.

    Raises FileNotFoundError, or ValueError that names the file, what was found and what was expected.
    """
    paths = [Path(folder) / f"dials.{end}" for end in ("json", "safetensors")]
    record = weights.read_record(paths[0], FORM, "python -m mmvae.experiment.dials")
    content = strict.read(paths[1], weights.LIMIT)
    if (found := hashlib.sha256(content).hexdigest()) != record["sha256"]:
        raise ValueError(f"{paths[1]}: found {len(content):,} bytes with SHA-256 {found}, expected {record['bytes']:,} bytes "
                         f"with {record['sha256']}, as dials.json says")
    model = build(*(record["settings"][k] for k in ("size", "decoder", "encoder")))
    model.load_state_dict({k: v.float() for k, v in strict.tensors(content)[1].items()})
    return model.eval(), record


class Dials(Explorable):
    """What `dials` returns. latents: {block: value}. hidden: whether the second picture is."""
    kind = "dials"
    room = 530, 377, 377
    latents = t.Dict().tag(sync=True)
    hidden = t.Bool(False).tag(sync=True)

    @t.validate("latents")
    def _sound(self, proposal):
        found, names = proposal["value"], self.config["names"]
        if set(found) != set(names) or not all(math.isfinite(v) for v in found.values()):
            raise ValueError(f"latents: found {found}, expected a finite number for each of {', '.join(names)}")
        return {b: float(v) for b, v in found.items()}


def dials() -> Dials:
    """Three dials, two pictures and a switch, by the small model that is published: alive on a static page, too.

        three = dials()
        three.latents = three.latents | {"T": 2.0}     # another lamp

    Raises what `load` raises, and ValueError for decoders that are too large for a page.
    """
    model, record = load()
    rule = page.rule(model, [NAMES])["make"]
    packed = page.pack({k: v for k, v in page.tensors(model).items() if k.startswith("decoders")})
    if len(packed) > LIMIT:
        raise ValueError(f"dials: found decoders of {len(packed):,} bytes, expected at most {LIMIT:,}")
    assets, blocks = {}, [NAMES[0], "S", NAMES[1]]
    inked = {b: inks(c) for b, c in colours([*NAMES, "S"]).items()}
    config = {"size": record["settings"]["size"], "names": {b: record["names"][b] for b in blocks}, "make": rule,
              "decoders": keep(assets, packed), "start": record["start"], "colours": inked}
    return Dials(still(model, record), "With JavaScript there are three dials here, and a switch.", assets, config=config,
                 latents=record["start"])


def still(model: PoEVAE, record: dict) -> Picture:
    """The pair that the page begins with, as the model draws it: side by side, three times their size."""
    by, gap = 3, 14
    with page.quiet(model):
        made = model.means({b: torch.tensor([[v]]) for b, v in record["start"].items()})
    side = by * record["settings"]["size"]
    sheet = Image.new("LA", (2 * side + gap, side))
    for k, m in enumerate(NAMES):
        tile = Image.fromarray((255 * made[m][0, 0]).round().to(torch.uint8).numpy())
        sheet.paste(tile.resize((side, side), Image.Resampling.NEAREST).convert("LA"), (k * (side + gap), 0))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return Picture(out.getvalue(), "png", sheet.width, "Two pictures of one head, side by side, as a small model draws them: "
                   "the same man, turned the same way; in the left one the chin may move, in the right one the lamp.")


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--iterations", type=int, default=SETTINGS["iterations"])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for dials.safetensors and dials.json")
    parser.add_argument("--run", type=Path, help="folder of its runs: what was stopped goes on from its last checkpoint")
    args = parser.parse_args(argv)
    record = publish(args.out, args.run, iterations=args.iterations)
    for block, of in record["does"].items():
        print(f"z{block} is the {record['names'][block]}:", ", ".join(f"{f} {v:.2f}" for f, v in of.items()))
    print(f"{record['bytes']:,} bytes in {args.out / 'dials.safetensors'}, {record['seconds']:.0f} s")


if __name__ == "__main__":
    main()

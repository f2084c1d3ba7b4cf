"""How good the pictures of the published models are: on people seen and held out, and of nobody, drawn from the prior.

    python benchmarks/pictures.py --before FOLDER

FOLDER: `mmvae/experiment/published` of the checkout of another version, to stand beside this one's; its decoders are dense.
It takes the 700 people of the book profile (rendered if they are not there) and about 15 CPU minutes, most of it for the
read-out in whose features the Fréchet distance is taken. Writes results/pictures.json, and the figures of README.md.
"""
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import measure
import numpy as np
import torch
from dense import dense
from safetensors.torch import load_file

import mmvae
from mmvae import evaluate
from mmvae.experiment import measure as measuring
from mmvae.experiment import profiles, weights
from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import TITLES
from mmvae.faces import judge as judging
from mmvae.show.charts import STYLE

DRAWS, PEOPLE = 20, 10  # in the figures


def load(name: str, before: Path | None):
    """A published model of this version, or of the one in the folder `before`, whose decoders are dense."""
    if before is None:
        return mmvae.load(name)
    recipe = Recipe(**json.loads((before / f"{name}.json").read_text())["settings"])
    model = dense(recipe.build(), recipe.size)
    stored = load_file(before / f"{name}.safetensors")
    model.load_state_dict({k.replace(".pixels.", ".last."): v.float() for k, v in stored.items()})
    return model.eval()


def numbers(model, who: judging.Judge, n: int) -> dict:
    """{"seen", "unseen": nats above the floor, {"mean", "sd" over people}; "prior": `judging.prior_distance`}."""
    found = measuring.by_person(model, who.train, who.test, n)
    return {split: {"mean": float(np.mean(of["above_floor"])), "sd": float(np.std(of["above_floor"], ddof=1)),
                    "people": len(of["value"])} for split, of in found.items()} | {
        "prior": judging.prior_distance(model, who, evaluate.frechet, n // 2)}


@torch.no_grad()
def rows_of(models: dict, test) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands in the figures: people held out as the models draw them, real ones first, and draws from the prior."""
    n = len(test.values["identity"])
    at = {"identity": torch.linspace(0, n - 1, PEOPLE).long(), "azimuth": torch.arange(PEOPLE) * 2 + 1}
    x, _ = test.at(**at, elevation=5, light=5)
    kept = [x["I"]] + [model.means({b: q.mu for b, q in model.posterior(x).items()})["I"] for model in models.values()]
    drawn = [model.sample(DRAWS, generator=torch.Generator().manual_seed(0))["I"] for model in models.values()]
    return torch.stack(kept)[:, :, 0], torch.stack(drawn)[:, :, 0]


@plt.rc_context(STYLE)
def draw(pictures: torch.Tensor, names: list[str], path: Path):
    """A row of pictures (rows, columns, H, W) for each name."""
    rows, columns = pictures.shape[:2]
    fig, axes = plt.subplots(rows, 1, figsize=(0.6 * columns + 1.4, 0.64 * rows), layout="constrained")
    for ax, name, row in zip(axes, names, pictures):
        ax.imshow(torch.cat(list(row), 1), cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.spines[:].set_visible(False)
    fig.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the published folder of another version")
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=measure.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    book = profiles.PROFILES["book"]
    who = measuring.judge(book.pairs("train"), book.pairs("test"), profiles.build_folder(), free=False)
    record = {"machine": measure.machine(), "settings": {"pairs": args.pairs}, "reader": who.errors, "rows": {}}
    for when, folder in (("before", args.before), ("now", None)):
        if when == "before" and folder is None:
            continue
        models = {name: load(name, folder) for name in weights.RECIPES}
        for name, model in models.items():
            record["rows"][f"{name}, {when}"] = numbers(model, who, args.pairs) | {
                "iterations": (json.loads((folder / f"{name}.json").read_text()) if folder else weights.info(name))[
                    "settings"]["iterations"]}
            print(name, when, json.dumps(record["rows"][f"{name}, {when}"]))
        plain = {TITLES[name]: model for name, model in models.items() if name in TITLES}
        kept, drawn = rows_of(plain, who.test)
        draw(kept, ["real", *plain], args.out / f"people_{when}.png")
        draw(drawn, list(plain), args.out / f"draws_{when}.png")
    measure.save("pictures", record, args.out)


if __name__ == "__main__":
    main()

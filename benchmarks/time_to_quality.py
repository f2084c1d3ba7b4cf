"""Time to quality: CPU seconds against the held-out negative ELBO of {I,T}, for the common recipe and for ours.

    python benchmarks/time_to_quality.py              (about 55 minutes on one core)
    python benchmarks/time_to_quality.py --changes    (about 45 minutes): what each choice of our recipe is worth

Both train the MuMo-VAE at 64x64 with the plain loss (likelihood weight 1) and the same latents, on the same pairs, one
thread each; the negative ELBO is measured on identities that neither has seen; that of --changes, by which choices are
made, on people of a third set, whom no model of the book learns from or is tested on. They take turns of a few seconds,
so that a machine that drifts hits both alike, and only the training itself is on the clock.

The common recipe: 4x4 stride-2 convolutions 1-32-32-64-64 with mirrored transposed convolutions and ReLU, Adam at a
constant 1e-4, batches of 64 from a DataLoader over a Dataset, eager. It has no end, so it is one run, looked at on its
way. Our learning rate falls to zero at a horizon that one has to choose: a run for each horizon, looked at at its end.

Writes benchmarks/results/time_to_quality.json or changes.json; `report.py` makes the table and the figure.
"""
import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import measure
import numpy as np
import report
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

import mmvae
from mmvae import faces, nets
from mmvae.evaluate import heldout
from mmvae.experiment import profiles
from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import NAMES
from mmvae.faces import Pairs
from mmvae.train import Settings, optimiser_of, update

MARKS = (15, 30, 60, 120, 300, 600, 1200, 1800)  # CPU seconds at which the common recipe is looked at
HORIZONS = (15, 30, 60, 180, 900)  # CPU seconds: a run of ours for each
TURN = 10.0  # CPU seconds
SEEDS = 2  # runs of each change
THIRD = 60  # people by whom a change is judged
ADAM = ("lr", "betas", "weight_decay", "fused")


class CommonEncoder(nn.Module):
    """As `mmvae.nets.ImageEncoder` at 64x64, by strided convolutions."""

    def __init__(self, outputs: int, channels: int):
        super().__init__()
        widths = (channels, 32, 32, 64, 64)
        layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 256), nn.ReLU())
        self.heads = nn.Linear(256, outputs)

    def forward(self, *images):
        return self.heads(self.body(torch.cat(images, 1)))


class CommonDecoder(nn.Sequential):
    """As `mmvae.nets.ImageDecoder`, the mirror image of `CommonEncoder`."""

    def __init__(self, latent: int):
        widths = (64, 64, 32, 32, 1)
        layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1))]
        super().__init__(nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, 64 * 4 * 4), nn.Unflatten(1, (64, 4, 4)),
                         *layers)


class Faces(Dataset):
    """The pairs of `mmvae.faces.Pairs`, one by one, as a DataLoader wants them."""

    def __init__(self, pairs):
        self.images, self.shape = pairs.images, pairs.shape

    def __len__(self):
        return int(np.prod(self.shape))

    def __getitem__(self, k):
        n, a, e, l = np.unravel_index(k, self.shape)
        return {"I": self.images["I"][n, a, e][None] / 255, "T": self.images["T"][n, a, l][None] / 255}


def loaded(pairs, batch: int):
    """Batches of a DataLoader, without end."""
    loader = DataLoader(Faces(pairs), batch, shuffle=True, drop_last=True)
    while True:
        yield from loader


def common_model(seed: int = 0) -> mmvae.MuMoVAE:
    """The MuMo-VAE with the common networks."""
    model = Recipe("mumo", seed=seed).build()
    for name, encoder in model.encoders.items():
        encoder.net = CommonEncoder(2 * sum(encoder.blocks.values()), len(name.split("+")))
    model.decoders = nn.ModuleDict({m: CommonDecoder(model.blocks[m] + model.blocks["S"]) for m in NAMES})
    return model


class Run:
    """A training on a CPU clock that only training advances. step(iteration): one iteration."""

    def __init__(self, model, step, iterations: float = float("inf")):
        self.model, self.step, self.iterations = model, step, iterations
        self.done, self.seconds = 0, 0.0

    @property
    def finished(self) -> bool:
        return self.done >= self.iterations

    def advance(self, until: float = float("inf")):
        """Train to the end, or until this many CPU seconds."""
        self.model.train()
        while not self.finished and self.seconds < until:
            started = time.process_time()
            self.step(self.done)
            self.done, self.seconds = self.done + 1, self.seconds + time.process_time() - started

    def look(self, train, test, n: int) -> dict:
        """{"seconds", "iterations", "unseen", "seen"}: the last two negative ELBOs of {I,T}, nats per pair, n pairs."""
        self.model.eval()
        losses = {name: -heldout(self.model, pairs, 1.0, n)["I+T.elbo"] for name, pairs in
                  (("unseen", test), ("seen", train))}
        return {"seconds": round(self.seconds, 2), "iterations": self.done, **losses}


def common(pairs, seed: int = 0) -> Run:
    torch.manual_seed(seed)
    model, batches = common_model(seed), loaded(pairs, 64)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(iteration):
        loss = model.loss(next(batches))["total"]
        adam.zero_grad()
        loss.backward()
        adam.step()

    return Run(model, step)


def ours(pairs, recipe: Recipe) -> Run:
    model, settings = recipe.build(), recipe.training
    optimiser = optimiser_of(model, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    return Run(model, lambda k: update(model, optimiser, pairs.sample(settings.batch, generator)[0], settings, k),
               settings.iterations)


def seconds_per_step(run: Run, steps: int = 30) -> float:
    """Of a run that nobody needs afterwards; the first steps warm up."""
    run.iterations = steps
    run.advance(1.0)
    start = run.done, run.seconds
    run.iterations += steps
    run.advance()
    return (run.seconds - start[1]) / (run.done - start[0])


def fitting(pairs, recipe: Recipe, horizon: float) -> Recipe:
    """The recipe with as many iterations as 95 % of these CPU seconds hold, at the speed of this moment."""
    step = seconds_per_step(ours(pairs, replace(recipe, iterations=10**6)))
    return replace(recipe, iterations=max(1, int(0.95 * horizon / step)))


def compare(train, test, marks, horizons, turn: float, n: int, save) -> dict:
    """Both recipes, in turns; `save(record)` is called after every look."""
    recipe = Recipe("mumo", size=train.size)
    record = {"machine": measure.machine(), "settings": {"n": n, "turn, s": turn}, "common": [], "ours": []}
    slow, marks, horizons, fast = common(train), list(marks), list(horizons), None
    bar = tqdm(total=round(marks[-1] + sum(horizons)), unit="s", desc="CPU seconds of training")
    while marks or horizons or fast:
        if marks:
            slow.advance(min(slow.seconds + turn, marks[0]))
            if slow.seconds >= marks[0]:
                record["common"].append({"mark": marks.pop(0)} | slow.look(train, test, n))
                save(record)
        if horizons and not fast:
            horizon = horizons.pop(0)
            fast = ours(train, fitting(train, recipe, horizon))
        if fast:
            fast.advance(fast.seconds + turn)
            if fast.finished:
                record["ours"].append({"mark": horizon} | fast.look(train, test, n))
                fast = None
                save(record)
        spent = slow.seconds + sum(row["seconds"] for row in record["ours"]) + (fast.seconds if fast else 0)
        bar.update(round(spent) - bar.n)
    bar.close()
    return record


def merged(model):
    """Each decoder runs once a step, on the latents of all ELBOs that need it, instead of once an ELBO."""
    def loss(x, weight=1.0, present=None, cross=None, check=True, extra=None):
        posteriors = model.posteriors(x, model.subsets)
        z = {s: {b: g.sample() for b, g in q.items()} for s, q in posteriors.items()}
        total = sum(g.kl() for q in posteriors.values() for g in q.values())  # (B,)
        for m in NAMES:
            seen = [s for s in model.subsets if m in s]
            codes = torch.cat([torch.cat([z[s][m], z[s]["S"]], 1) for s in seen])
            target = torch.cat([x[m]] * len(seen))
            log_likelihood = model.likelihood(m).log_prob(model.decoders[m](codes), target)
            total = total - weight * log_likelihood.unflatten(0, (len(seen), -1)).sum(0)
        return {"total": total.mean()}
    model.loss = loss
    return model


def average(run: Run, decay: float) -> Run:
    """Look at an exponential average of the weights."""
    shadow = [p.detach().clone() for p in run.model.parameters()]
    step, look = run.step, run.look

    def averaging_step(iteration):
        step(iteration)
        rate = max(1 - decay, 1 / (iteration + 1))
        torch._foreach_lerp_(shadow, [p.detach() for p in run.model.parameters()], rate)

    def averaged_look(*args):
        for p, mean in zip(run.model.parameters(), shadow):
            p.data.copy_(mean)
        return look(*args)

    run.step, run.look = averaging_step, averaged_look
    return run


def changed(pairs, recipe: Recipe, wrap=lambda model: model, optimiser=optimiser_of, batches=None, decay=0.0,
            patch=nullcontext) -> Run:
    """Our training with something else in it. patch: a context in which the model is built, and every step made."""
    with patch():
        model = wrap(recipe.build())
    settings = recipe.training
    adam, generator = optimiser(model, settings), torch.Generator().manual_seed(settings.seed)
    draw = (lambda: next(batches)) if batches else (lambda: pairs.sample(settings.batch, generator)[0])

    def step(iteration):
        with patch():
            update(model, adam, draw(), settings, iteration)

    run = Run(model, step, settings.iterations)
    return average(run, decay) if decay else run


def with_decoder(decoder):
    """decoder: latent dimensions -> network."""
    def wrap(model):
        model.decoders = nn.ModuleDict({m: decoder(model.blocks[m] + model.blocks["S"]) for m in NAMES})
        return model
    return wrap


class TwoSteps(nets.VectorDecoder):
    """As `mmvae.nets.ImageDecoder`, of the same size, but from 8x8 places to 16x16 and only then to pixels."""

    def __init__(self, latent: int):
        super().__init__(latent, (16, 8, 8), nets.WIDE)
        self.image = nn.Sequential(nn.SiLU(), nn.Conv2d(16, 64, 3, padding=1), nn.PixelShuffle(2), nn.SiLU(),
                                   nn.Conv2d(16, 16, 3, padding=1), nn.PixelShuffle(4))
        nets._initialise(self)

    def forward(self, z):
        return self.image(super().forward(z))


class Neighbours(nets.ImageDecoder):
    """The pixels of a place are drawn from its neighbours too, by half as many features."""

    def __init__(self, latent: int):
        super().__init__(latent)
        self.mix, self.pixels = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, nets.PATCH ** 2, 3, padding=1)
        nets._initialise(self)


def compiled(model):
    """Loss and gradient compiled, before the clock runs."""
    model.loss = torch.compile(model.loss)
    return model


def renewed(used, fresh):
    """A model whose loss is compiled, with the weights of one that has not trained."""
    used.load_state_dict(fresh.state_dict())
    return used


def flat(settings, iteration):
    """Settings.rate without the decay."""
    return settings.learning_rate * min(1.0, (iteration + 1) / max(settings.warmup, 1))


def changes(pairs, recipe: Recipe) -> dict:
    """{what is changed in our recipe: (recipe, arguments of `changed`)}."""
    def adam(**changes):
        def optimiser(model, settings):
            group = optimiser_of(model, settings).param_groups[0]
            return torch.optim.AdamW(model.parameters(), **{k: group[k] for k in ADAM} | changes)
        return optimiser

    def constant():
        return mock.patch.object(Settings, "rate", flat)

    rate = recipe.learning_rate
    return {
        "ours": (recipe, {}),
        "networks: the common convolutions": (recipe, {"wrap": lambda model: common_model(recipe.seed)}),
        "networks: the encoder reads patches of 4x4": (recipe, {"patch": lambda: mock.patch.object(nets, "PATCH", 4)}),
        "networks: a decoder of width 96": (recipe, {"wrap": with_decoder(partial(nets.ImageDecoder, width=96))}),
        "networks: a decoder of 32 features a place": (recipe, {"patch": lambda: mock.patch.object(nets, "PLACE", 32)}),
        "networks: a decoder in two steps": (recipe, {"wrap": with_decoder(TwoSteps)}),
        "networks: places drawn from their neighbours": (recipe, {"wrap": with_decoder(Neighbours)}),
        "networks: dense decoders": (recipe, {"wrap": with_decoder(partial(nets.VectorDecoder, shape=(1, 64, 64)))}),
        "networks: ReLU for SiLU": (recipe, {"patch": lambda: mock.patch.object(F, "silu", F.relu)}),
        "initialisation: PyTorch's": (recipe, {"patch": lambda: mock.patch.object(nets, "_initialise", lambda net: 0)}),
        "learning rate 1e-4, constant, no warm-up": (replace(recipe, learning_rate=1e-4, warmup=0), {"patch": constant}),
        "learning rate halved": (replace(recipe, learning_rate=rate / 2), {}),
        "learning rate doubled": (replace(recipe, learning_rate=rate * 2), {}),
        "no decay of the rate": (recipe, {"patch": constant}),
        "no decay of the rate, weights averaged (0.99)": (recipe, {"patch": constant, "decay": 0.99}),
        "weights averaged (0.99)": (recipe, {"decay": 0.99}),
        "no warm-up": (replace(recipe, warmup=0), {}),
        "no clipping": (replace(recipe, clip=1e9), {}),
        "no weight decay": (recipe, {"optimiser": adam(weight_decay=0.0)}),
        "Adam with PyTorch's betas, 0.9 and 0.999": (recipe, {"optimiser": adam(betas=(0.9, 0.999))}),
        "Adam not fused": (recipe, {"optimiser": adam(fused=False)}),
        "batch 32": (replace(recipe, batch=32), {}),
        "batch 128": (replace(recipe, batch=128), {}),
        "a DataLoader": (recipe, {"batches": loaded(pairs, recipe.batch)}),
        "memory format: channels last": (recipe, {"wrap": lambda m: m.to(memory_format=torch.channels_last)}),
        "decoders: one pass for all ELBOs": (recipe, {"wrap": merged}),
        "torch.compile": (recipe, {"wrap": compiled}),
    }


def weigh(train, test, seconds: float, seeds: int, n: int, save) -> dict:
    """A run of `seconds` for every change and seed, one seed after the other."""
    record = {"machine": measure.machine(), "settings": {"n": n, "CPU seconds a run": seconds, "seeds": seeds}, "runs": []}
    for seed in range(seeds):
        for name, (recipe, arguments) in tqdm(changes(train, Recipe("mumo", size=train.size, seed=seed)).items()):
            trial = changed(train, replace(recipe, iterations=10**6), **arguments)
            step = seconds_per_step(trial)
            if name == "torch.compile":  # a second model would be compiled on the clock: the same, with new weights
                arguments = {"wrap": partial(renewed, trial.model)}
            run = changed(train, replace(recipe, iterations=max(1, int(0.95 * seconds / step))), **arguments)
            run.advance()
            record["runs"].append({"change": name, "seed": seed} | run.look(train, test, n))
            save(record)
    return record


def third() -> Pairs:
    """People by whom choices are made: of another seed, so that no model of the book learns from them or is tested on any."""
    path = profiles.build_folder() / f"faces-third-v{faces.GENERATOR_VERSION}.h5"
    if not path.exists():
        faces.write(path, identities=1, test_identities=THIRD, seed=1, jobs=1)
    return Pairs(path, "test")


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", help="HDF5 file of `python -m mmvae.faces`; default: the build folder's")
    parser.add_argument("--changes", action="store_true", help="weigh each choice of our recipe instead")
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU seconds of a run of --changes")
    parser.add_argument("--pairs", type=int, default=2048, help="pairs that a held-out number is measured on")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for the JSON and the figure")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = args.data or profiles.PROFILES["book"].data_file
    train, test = Pairs(data), third() if args.changes else Pairs(data, "test")
    if args.changes:
        record = weigh(train, test, args.seconds, SEEDS, args.pairs, partial(measure.save, "changes", folder=args.out))
        print(report.changes(record))
    else:
        record = compare(train, test, MARKS, HORIZONS, TURN, args.pairs,
                         partial(measure.save, "time_to_quality", folder=args.out))
        print(report.time_to_quality(record))


if __name__ == "__main__":
    main()

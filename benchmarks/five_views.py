"""Ours beside multivae's, on five views of a digit: the same networks, likelihood, batches, optimiser, steps and weights.

    python benchmarks/five_views.py --install --jobs 2    (about two hours of two cores; goes on where it was stopped)
    python benchmarks/five_views.py --report              (prints the table, and puts it into README.md)
    python benchmarks/five_views.py --losses --install    (one loss of ours and of theirs, at equal weights and no noise)

Seven models that both have, each with our code and with multivae's, then five that multivae has not; two seeds, five CPU
minutes a run. The steps are those that ours makes in this time, and theirs makes as many. Both are trained by
`mmvae.train.update`, so that what differs is what a model computes of a batch, and what it makes of its encoders when
something is missing. The data are `five_views_data.py`'s; --polymnist FOLDER takes the public pictures in their place, and
prints the papers' numbers beside.

Each run leaves results/five_views/MODEL-SIDE-SEED.json. Given one to four views: how often a digit classifier reads off a
view that was not given the digit of the row; from the prior: how often it reads one digit off all five. The Fréchet distance
is that of draws from the prior to test pictures, in the classifier's features. log p(x) is by importance sampling, for both
by `mmvae.evaluate.log_likelihood`: it is a property of the decoders, which are ours in both.
"""
import argparse
import importlib.util
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import five_views_data as data
import measure
import numpy as np
import report
import throughput
import torch
from five_views_data import SIZE, VIEWS
from five_views_report import FOLDER, texts
from torch import nn
from tqdm.auto import tqdm

from mmvae import evaluate, frontier, gaussian, images, later
from mmvae.evaluate import likelihood
from mmvae.likelihoods import Laplace
from mmvae.models import PoEVAE
from mmvae.train import Settings, optimiser_of, update

BUILD = Path(__file__).resolve().parent.parent / "_build"
SCALE = 0.75  # of the Laplace likelihood, as in the papers' code
BATCH, RATE = 64, 2e-3
SPLIT = {"private": 8, "shared": 24}  # 64 latents in all, as those have that share all


def five(model, private: int = 0, shared: int = 64, **options):
    """A model of five views."""
    return model(dict.fromkeys(VIEWS, images(SIZE, 3, private, Laplace(SCALE))), shared=shared, **options)


BOTH = {"mvae": partial(five, PoEVAE, subsets=[VIEWS, *((m,) for m in VIEWS)], single_prior=True),
        "mmvae": partial(five, later.MMVAE), "mopoe": partial(five, later.MoPoE), "mvtcae": partial(five, later.MVTCAE),
        "dmvae": partial(five, later.DMVAE, **SPLIT, single_prior=False), "mmvae+": partial(five, later.MMVAEPlus, **SPLIT),
        "jmvae": partial(five, later.JMVAE)}
OURS = {"mmvm": partial(five, frontier.MMVMVAE, prior=True), "code": partial(five, frontier.CoDEVAE, **SPLIT),
        "helvae": partial(five, frontier.HELVAE), "hoelder": partial(five, frontier.HoelderVAE, **SPLIT),
        "idmvae": partial(five, frontier.IDMVAE, **SPLIT)}
MODELS = BOTH | OURS


# ---- one run

def trained(model, train, settings: Settings) -> dict:
    """Train on so many batches: {"seconds": CPU, "rows_per_second", "loss": the mean of the last 20}."""
    optimiser, generator, last = optimiser_of(model.train(), settings), torch.Generator().manual_seed(settings.seed), []
    started = time.process_time()
    for k in range(settings.iterations):
        x, _ = train.batch(torch.randint(len(train), (settings.batch,), generator=generator))
        last = [*last[-19:], update(model, optimiser, x, settings, k)["total"]]
    seconds = time.process_time() - started
    loss = torch.stack(last).mean().item()
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} after {settings.iterations} steps, expected a finite one")
    return {"seconds": round(seconds, 2), "rows_per_second": round(settings.iterations * settings.batch / seconds, 1),
            "loss": round(loss, 2)}


def reader(outputs: int) -> nn.Sequential:
    """A picture -> `outputs` numbers; all but its last layer are the 64 features in which the Fréchet distance is taken."""
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU(),
                         nn.Conv2d(64, 64, 3, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(1024, 64), nn.SiLU(),
                         nn.Linear(64, outputs))


def readers(train, test, build: Path, iterations: int = 800) -> tuple[dict, dict]:
    """A digit classifier of each view, from training rows, and its accuracy on test rows; kept in `build`."""
    path = build / f"five-views-readers-{train.fingerprint[:8]}-{test.fingerprint[:8]}-{iterations}.pt"
    if not path.exists():
        found = {m: evaluate.train_classifier(train, test, m, "digit", iterations, encoder=reader, progress=False)
                 for m in VIEWS}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({m: (c.state_dict(), accuracy["share"]) for m, (c, accuracy) in found.items()}, path)
    kept = torch.load(path, weights_only=True)
    classifiers = {m: evaluate.Classifier(reader(10), torch.arange(10)) for m in VIEWS}
    for m, classifier in classifiers.items():
        classifier.load_state_dict(kept[m][0])
    return {m: c.eval() for m, c in classifiers.items()}, {m: share for m, (_, share) in kept.items()}


@torch.no_grad()
def measured(model, ours, classifiers: dict, train, test, n: int, draws: int) -> dict:
    """What is measured of a trained model. ours: the object of ours that has its networks. n: rows; draws: of each of
    n / 10 rows, for log p(x)."""
    torch.manual_seed(0)
    np.random.seed(0)  # multivae draws from it, too
    subsets = [s for s in ours.seen if len(s) < len(VIEWS)]
    found = evaluate.coherence(model, classifiers, test, "digit", n, subsets)
    of = {k: [v["share"] for name, v in found.items() if name.count("+") == int(k) - 1 and "->" in name] for k in "1234"}
    coherence = {k: float(np.mean(v)) for k, v in of.items()} | {"prior": found["joint"]["share"]}
    drawn, real = model.sample(n), test.batch(torch.arange(len(test))[:n])[0]
    seen = train.batch(torch.arange(n) % len(train))[0]
    at = {m: c.net[:-1] for m, c in classifiers.items()}
    distance = {name: float(np.mean([evaluate.frechet(at[m](x[m]), at[m](real[m])) for m in VIEWS]))
                for name, x in (("prior", drawn), ("training pictures", seen))}
    x = {m: v[:max(2, n // 10)] for m, v in real.items()}
    value, _ = estimate = evaluate.log_likelihood(ours, x, samples=draws)
    return {"coherence": coherence, "frechet": distance,
            "log_likelihood": {"mean": value.mean().item(), "ess": estimate.ess.median().item()}}


def steps_in(name: str, train, minutes: float) -> int:
    """How many steps ours makes in so many CPU minutes, by the time of some."""
    torch.manual_seed(0)
    model = MODELS[name]()
    trained(model, train, Settings(iterations=3, batch=BATCH))
    return max(1, int(60 * minutes * trained(model, train, Settings(iterations=12, batch=BATCH))["rows_per_second"] / BATCH))


def run(name: str, side: str, seed: int, steps: int, args, train, test) -> dict:
    """Train and measure one model: its record."""
    torch.manual_seed(seed)
    ours = MODELS[name]()
    model = ours
    if side == "theirs":
        from five_views_theirs import Theirs
        model = Theirs(name, ours)
    settings = Settings(iterations=steps, batch=BATCH, learning_rate=RATE, seed=seed)
    classifiers, accuracy = readers(train, test, args.build)
    record = {"model": name, "side": side, "seed": seed, "steps": steps, "settings": asked(args)}
    record |= trained(model, train, settings)
    return record | {"accuracy": float(np.mean(list(accuracy.values())))} | measured(
        model.eval(), ours.eval(), classifiers, train, test, args.rows, args.draws) | {"machine": measure.machine()}


# ---- one loss at equal weights

@torch.no_grad()
def by_their_rule(name: str, ours, x: dict) -> float:
    """What ours has to be changed by to be theirs, where a line of theirs says why (see README.md): nats a row."""
    q = ours.posteriors(x, [VIEWS])[VIEWS]
    if name == "mmvae+":  # the KL of a private block by one draw, here its mean, and not in closed form
        return sum((0.5 * (1 - q[m].logvar.exp())).sum(1).mean().item() for m in VIEWS) / len(VIEWS)
    if name != "mopoe":
        return 0.0
    parts, n = q["S"].parts, len(x[VIEWS[0]])
    theirs = *parts[:-1], gaussian.product_of_experts([*parts[:5]])  # the prior among the experts of all five alone
    each = [ours.elbo(x, {**q, "S": part}, VIEWS) for part in theirs]
    kl = torch.stack([e["kl.S"].mean() for e in each])
    reconstruction = torch.stack([-e["elbo"].mean() for e in each]) - kl
    count = torch.full((len(each),), float(n // len(each)))  # rows that are reconstructed from a part: the last has the rest
    count[-1] = n - count[:-1].sum()
    return (kl.mean() + (count / n * reconstruction).sum()).item() - loss_of_ours(name, ours, x)


@torch.no_grad()
def loss_of_ours(name: str, ours, x: dict) -> float:
    """Ours, nats a row; of MoPoE, which draws a part, the mean over the parts."""
    if name != "mopoe":
        return ours.loss(x)["total"].item()
    q = ours.posteriors(x, [VIEWS])[VIEWS]
    return float(np.mean([-ours.elbo(x, {**q, "S": part}, VIEWS)["elbo"].mean().item() for part in q["S"].parts]))


def losses(train, steps: int) -> dict:
    """For each model, after some steps of ours, with all noise 0: one loss of ours and of theirs, and -log p(x) of four rows;
    of ours where the posterior is no mixture, whose parts would have to be drawn alike."""
    from five_views_theirs import Theirs
    found, normal = {}, torch.distributions.normal
    for name in tqdm(BOTH):
        torch.manual_seed(0)
        ours = BOTH[name]()
        trained(ours, train, Settings(iterations=steps, batch=BATCH, learning_rate=RATE))
        theirs, x = Theirs(name, ours.eval()).eval(), train.batch(torch.arange(BATCH))[0]
        some = {m: v[:4] for m, v in x.items()}
        if name == "mopoe":  # one row over and over, since each row of theirs goes to another part
            x = {m: v[:1].expand_as(v).contiguous() for m, v in x.items()}
        whole = isinstance(ours.posterior(some)["S"], gaussian.Gaussian)
        was = gaussian.noise, normal._standard_normal, likelihood._noise
        gaussian.noise, normal._standard_normal = torch.zeros_like, lambda shape, dtype, device: torch.zeros(shape)
        likelihood._noise = lambda *of: tuple(torch.zeros_like(part) for part in was[2](*of))
        try:
            found[name] = {"ours": loss_of_ours(name, ours, x), "theirs": theirs.loss(x)["total"].item(),
                           "rule": by_their_rule(name, ours, x), "nll": {
                "ours": -evaluate.log_likelihood(ours, some, samples=2).value.mean().item() if whole else None,
                "theirs": theirs.minus_log_likelihood(some, 10), "theirs, row by row": float(np.mean([
                    theirs.minus_log_likelihood({m: v[k:k + 1] for m, v in some.items()}, 10) for k in range(4)]))}}
        finally:
            gaussian.noise, normal._standard_normal, likelihood._noise = was
    return {"settings": {"steps": steps, "batch": BATCH}, "models": found}


# ---- the command

def asked(args) -> dict:
    """The settings of a run, beside its steps."""
    return {"minutes": args.minutes, "rows": args.rows, "draws": args.draws, "batch": BATCH,
            "polymnist": bool(args.polymnist)}


def path_of(folder: Path, name: str, side: str, seed: int) -> Path:
    return folder / f"{name}-{side}-{seed}.json"


def finished(path: Path, args) -> bool:
    """Whether this run is there. Raises ValueError for one of other settings."""
    record = json.loads(path.read_text()) if path.exists() else None
    if record and (record["settings"] != asked(args) or args.steps not in (None, record["steps"])):
        raise ValueError(f"{path.name}: found a run of {record['steps']} steps with {record['settings']}, expected "
                         f"{asked(args)}; choose another --out, or delete it")
    return record is not None


def steps_of(name: str, args, folder: Path, train) -> int:
    """As many as asked for, or as a finished run of this model made, or as ours makes in the time."""
    there = [json.loads(path.read_text())["steps"] for path in sorted(folder.glob(f"{name}-*-[0-9]*.json"))]
    return args.steps or (there[0] if there else steps_in(name, train, args.minutes))


def command(name: str, side: str, seed: int, steps: int, args) -> list[str]:
    """What does this run alone."""
    given = {"--models": name, "--seeds": seed, "--steps": steps, "--minutes": args.minutes, "--rows": args.rows,
             "--draws": args.draws, "--out": args.out, "--build": args.build,
             **({"--polymnist": args.polymnist} if args.polymnist else {})}
    return [sys.executable, __file__, f"--{side}", *(str(part) for pair in given.items() for part in pair)]


def arguments(argv: list[str] | None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--ours", action="store_true", help="our side alone")
    parser.add_argument("--theirs", action="store_true", help="their side alone")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of a run of ours; theirs has its steps")
    parser.add_argument("--steps", type=int, help="of every run, in place of --minutes")
    parser.add_argument("--rows", type=int, default=1000, help="test rows that are measured; of a tenth of them log p(x)")
    parser.add_argument("--draws", type=int, default=200, help="of each row, for log p(x)")
    parser.add_argument("--polymnist", type=Path, help="a folder with train and test, in each m0 to m4, INDEX.LABEL.png")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, a thread each")
    parser.add_argument("--install", action="store_true", help="multivae into _build/multivae, and run in there")
    parser.add_argument("--report", action="store_true", help="print the table of the finished runs, and no more")
    parser.add_argument("--losses", action="store_true", help="compare one loss of ours and of theirs, and no more")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the records")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder for the classifiers")
    return parser, parser.parse_args(argv)


def main(argv: list[str] | None = None):
    parser, args = arguments(argv)
    torch.set_num_threads(1)
    folder = args.out / "polymnist" if args.polymnist else args.out
    try:
        if args.report:
            print(texts(folder)["five_views"])
            return report.README.write_text(report.written(report.README.read_text(), texts())) if folder == FOLDER else None
        sides = [side for side in ("ours", "theirs") if getattr(args, side)] or ["ours", "theirs"]
        todo = [(name, side, seed) for seed in args.seeds for name in args.models for side in sides
                if (side == "ours" or name in BOTH) and not finished(path_of(folder, name, side, seed), args)]
        if not (todo or args.losses):
            return print(texts(folder)["five_views"])
        if (args.losses or any(side == "theirs" for _, side, _ in todo)) and not importlib.util.find_spec("multivae"):
            if not args.install:
                parser.exit(1, "multivae: not installed; --install does it, or --ours leaves it out\n")
            rest = [arg for arg in (sys.argv[1:] if argv is None else argv) if arg != "--install"]
            parser.exit(subprocess.call([throughput.install(), __file__, *rest]))
        train, test = (data.polymnist(args.polymnist, s) if args.polymnist else data.made(s) for s in ("train", "test"))
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    folder.mkdir(parents=True, exist_ok=True)
    if args.losses:
        return measure.save("losses", losses(train, args.steps or 15), folder)
    readers(train, test, args.build)  # once, before several need them
    steps = {name: steps_of(name, args, folder, train) for name in dict.fromkeys(name for name, _, _ in todo)}

    def do(task):
        if args.jobs > 1:
            return subprocess.run(command(*task, steps[task[0]], args), check=True, stdout=subprocess.DEVNULL)
        return measure.save(path_of(folder, *task).stem, run(*task, steps[task[0]], args, train, test), folder)

    with ThreadPoolExecutor(max(1, args.jobs)) as pool:
        list(tqdm(pool.map(do, todo), total=len(todo), unit="run"))
    print(texts(folder)["five_views"])


if __name__ == "__main__":
    main()

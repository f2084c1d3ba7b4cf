"""The log-likelihood of published models by annealed importance sampling, beside that of plain importance sampling.

    python -m mmvae.experiment.annealed FACES.h5      (an hour of one core; writes published/annealed.json)

One pair of each of some people who are held out, the same for all models. The record: "settings": what was asked for,
"versions": what it was computed with, "seconds" of CPU, "models": {name: {"sha256" of the weights, "subsets": {subset, as
"I+T": {"annealed", "plain": log p, nats, a number a row, "annealed.ess", "plain.ess": effective sample sizes}}}}, and
"digest", of all these.
"""
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import checkpoint, evaluate, strict
from ..data import Rows
from ..faces import Pairs
from ..models import MultiModalVAE
from ..observed import joined
from . import weights

FILE = weights.FOLDER / "annealed.json"
COMMAND = "python -m mmvae.experiment.annealed"
COUNT = range(1, 1_000_000)
NUMBERS = {"annealed": [float], "annealed.ess": [float], "plain": [float], "plain.ess": [float]}
FORM = {"settings": {"people": COUNT, "samples": COUNT, "steps": COUNT, "chains": COUNT, "seed": range(0, 1_000_000)},
        "versions": {str: str}, "seconds": strict.number(0), "digest": str,
        "models": dict.fromkeys(weights.RECIPES, {"sha256": str, "subsets": {str: NUMBERS}})}


def measure(model: MultiModalVAE, x: dict[str, Tensor], samples: int, steps: int, chains: int, seed: int = 0) -> dict:
    """Of the rows x and every subset that the model was trained on: {subset: `NUMBERS`}, in nats, a number a row."""
    found = {}
    for subset in model.seen:
        some = {m: x[m] for m in subset}
        by = {"annealed": evaluate.annealed_log_likelihood(model, some, steps, chains, seed=seed),
              "plain": evaluate.log_likelihood(model, some, samples=samples, seed=seed)}
        found[joined(subset)] = {k: [round(v, 2) for v in numbers.tolist()] for name, of in by.items()
                                 for k, numbers in ((name, of.value), (f"{name}.ess", of.ess))}
    return found


def a_pair_each(rows: Rows, people: int, seed: int = 0) -> dict[str, Tensor]:
    """A random row of each of the first people. Raises ValueError if there are fewer."""
    if people > (there := len(rows.values["identity"])):
        raise ValueError(f"people: found {people}, expected at most the {there} who are held out")
    each = len(rows) // there
    drawn = torch.randint(each, (people,), generator=torch.Generator().manual_seed(seed))
    return rows.batch(torch.arange(people) * each + drawn)[0]


@cache
def record(path: Path = FILE) -> dict:
    """The record of the published models. Raises FileNotFoundError, or ValueError for a damaged one."""
    return weights.read_record(path, FORM, COMMAND)


def publish(rows: Rows, people: int, samples: int, steps: int, chains: int, seed: int = 0, path: Path = FILE) -> dict:
    """Measure every published model, and write the record; returns it."""
    asked = {"people": people, "samples": samples, "steps": steps, "chains": chains, "seed": seed}
    started, x, found = time.process_time(), a_pair_each(rows, people, seed), {}
    for name in tqdm(weights.RECIPES, unit="model"):
        numbers = measure(weights.load(name), x, samples, steps, chains, seed)
        found[name] = {"sha256": weights.info(name)["sha256"], "subsets": numbers}
    return weights.write_record(path, {"settings": asked, "versions": checkpoint.versions(), "models": found,
                                       "seconds": round(time.process_time() - started, 1)})


def main(argv: list[str] | None = None):
    parser = strict.Parser(prog=COMMAND, description=__doc__.split("\n")[0])
    parser.add_argument("data", help="HDF5 file of `python -m mmvae.faces`, 64x64, of whom those held out are measured")
    parser.add_argument("--people", type=strict.whole(1, 10_000), default=24, help="a pair of each of the first so many")
    parser.add_argument("--samples", type=strict.whole(2, 1_000_000), default=1000, help="of plain importance sampling")
    parser.add_argument("--steps", type=strict.whole(2, 1_000_000), default=100, help="of annealing")
    parser.add_argument("--chains", type=strict.whole(2, 10_000), default=8, help="of annealing, a row")
    parser.add_argument("--out", type=strict.out, default=FILE, help="the file that is written")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        publish(Pairs(args.data, "test"), args.people, args.samples, args.steps, args.chains, path=args.out)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

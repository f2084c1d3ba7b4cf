"""How a model of the book is judged, on identities that training never saw: every row of the book's table of metrics.

What is measured is in `mmvae.evaluate`, and what needs heads in `mmvae.faces.judge`; here it is
put together.
"""
import copy
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save
from tqdm.auto import tqdm

from .. import checkpoint, evaluate
from ..behaviour import Print, moved
from ..faces import FACTORS, Pairs
from ..faces import judge as judging
from ..faces.judge import Judge
from ..faces.pairs import shrink
from ..models import MultiModalVAE
from ..observed import joined
from ..train import load_run, write_atomically
from . import prints
from .recipe import Recipe
from .table import NAMES

SAMPLES = 1, 10, 100, 1000  # of the importance-sampled likelihood
LIKELIHOOD_PAIRS = 128
MEASURES = ("heldout", "probes", "likelihood", "probes_of_samples", "verification", "effects", "mig", "dci", "cross",
            "coherence", "experts", "sorted", "reading")
SHARED = "identity", "azimuth"  # the factors that both pictures show


def steps(model: MultiModalVAE, train: Pairs, test: Pairs, weight: float, judge: Judge, n: int = 4096) -> dict[str, Callable]:
    """Every measurement by its name, to be called: see `everything`."""
    return {"heldout": lambda: evaluate.heldout(model, test, weight, n),
            "probes": lambda: evaluate.probes(model, train, test, n),
            "likelihood": lambda: likelihoods(model, test, weight, max(1, min(LIKELIHOOD_PAIRS, n // 4))),
            "probes_of_samples": lambda: evaluate.probes(model, train, test, n, samples=True),
            "verification": lambda: evaluate.verification(model, train, test, "identity", n),
            "effects": lambda: evaluate.effects(model, test, test.fixed(8)[0], SHARED),
            "mig": lambda: evaluate.mig(model, test, min(10_000, 4 * n), average=FACTORS[1:]),
            "dci": lambda: evaluate.dci(model, train, test, min(10_000, 4 * n)),
            "cross": lambda: judging.cross_modal(model, judge, n // 8),
            "coherence": lambda: judging.joint_coherence(model, judge, n // 4),
            "experts": lambda: evaluate.experts(model, test, n),
            "sorted": lambda: by_role(model, train, test, n)}


def computes(names: tuple[str, ...] = MEASURES) -> dict[str, Print]:
    """What each of these measurements, of which "reading" is the making of a read-out, says of two tiny models; a stored one
    is valid as long as this does not move."""
    return {name: _computes(name) for name in names}


@cache
def _computes(name: str) -> Print:
    if name == "reading":
        return prints.reading()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, n = prints.lively("wg-v2" if name == "sorted" else "poe-v2"), 256 if name == "heldout" else 64
        return prints.flat(steps(model, *prints.tiny_pairs(), 4.0, prints.tiny_judge(), n)[name]())


def numbers(model: MultiModalVAE, train: Pairs, test: Pairs, weight: float, n: int = 4096, subsets: tuple = ()) -> dict:
    """The short measurement, some seconds, on n pairs: "n", "heldout", "probes", and its number of "parameters".

    weight: of the likelihood in the model's training, and so in its ELBO. subsets: probe the posteriors of these only.
    """
    return {"n": n, "heldout": evaluate.heldout(model, test, weight, n),
            "probes": evaluate.probes(model, train, test, n, subsets=subsets), "parameters": _parameters(model)}


def by_person(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 4096) -> dict:
    """{"seen", "unseen": {"value": people, "above_floor": nats a pair, "n": pairs}}: `evaluate.by_group` of n pairs each."""
    found = {split: evaluate.by_group(model, pairs, "identity", n=n) for split, pairs in (("seen", train), ("unseen", test))}
    return {split: of | {"above_floor": [round(v, 2) for v in of["above_floor"]]} for split, of in found.items()}


def repeatable(model: MultiModalVAE, test: Pairs, weight: float, n: int = 4096) -> dict:
    """What needs no training head: {"heldout", "probes": those of identity, which are fitted on half of the unseen rows}."""
    others = copy.copy(test)  # of other people, whom no probe of identity is fitted on
    others.values = test.values | {"identity": -1 - test.values["identity"]}
    probes = evaluate.probes(model, others, test, n)
    return {"heldout": evaluate.heldout(model, test, weight, n),
            "probes": {k: v for k, v in probes.items() if ".identity." in k}}


def likelihoods(model: MultiModalVAE, test: Pairs, weight: float = 1.0, pairs: int | None = None,
                samples: tuple[int, ...] = SAMPLES) -> dict:
    """The importance-sampled log-likelihood: {subset: {K: mean over the pairs, nats per pair}, "n": pairs}."""
    found = {"n": pairs or LIKELIHOOD_PAIRS}
    x, _ = test.sample(found["n"], torch.Generator().manual_seed(1))
    for s in model.seen:
        values = evaluate.log_likelihoods(model, {m: x[m] for m in s}, samples, weight)
        found[joined(s)] = {str(k): v.mean().item() for k, v in values.items()}
    return found


def everything(model: MultiModalVAE, train: Pairs, test: Pairs, weight: float, judge: Judge, n: int = 4096,
               progress: bool = True) -> dict:
    """The long measurement, a minute or two: what `numbers` says, and

    "likelihood": {subset: {K: mean over "n" pairs, nats per pair}}, K = 1 being the ELBO;
    "probes_of_samples", "verification", "effects", "mig", "dci", "experts": see `mmvae.evaluate`; "cross", "coherence": see
    `mmvae.faces.judge`; "sorted": see `by_role`. judge: see `judge`.
    """
    record, bar = {"n": n, "parameters": _parameters(model)}, tqdm(steps(model, train, test, weight, judge, n).items(),
                                                                   disable=not progress, leave=False)
    for name, step in bar:
        bar.set_description(name)
        record[name] = step()
    return record


def by_role(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 4096) -> dict:
    """Of a model whose latents are all shared: {"latents": {"I", "S", "T": how many}, "probes": those of the sorted
    latents given both modalities}; see `mmvae.evaluate.Sorted`. Of another one: empty.
    """
    if not evaluate.all_shared(model):
        return {}
    by_silence = evaluate.Sorted(model, test, n)
    return {"latents": by_silence.blocks, "probes": evaluate.probes(by_silence, train, test, n, subsets=(NAMES,))}


def _parameters(model: MultiModalVAE) -> int:
    return sum(p.numel() for p in model.parameters())


def judge(train: Pairs, test: Pairs, folder: str | Path, free: bool = True, iterations: int = 6000,
          progress: bool = True) -> Judge:
    """Who reads factors off generated images: a read-out trained on real ones, and the renders themselves.

    The read-out is trained on every image of both splits, a tenth held out to measure its own error, and, if `free`, on
    the book's heads rendered with all factors free, 20 s. It is kept in `folder`, under a hash of the data, and made anew if
    the code that makes it computes something else.
    """
    words = f"{train.fingerprint} {test.fingerprint} {free} {iterations}"
    path = Path(folder) / f"read-out-{test.size}-{hashlib.sha256(words.encode()).hexdigest()[:12]}.safetensors"
    people, now = torch.cat([train.values["identity"], test.values["identity"]]).tolist(), prints.reading()
    with FileLock(f"{path}.lock"):
        if not path.exists() or moved(json.loads(_meta(path).get("behaviour", "{}")), now):
            parts = [judging.all_images(p) for p in (train, test)]
            if free:
                images, factors = judging.rendered_freely(people, 64, progress=progress, device=test.device)
                parts.append((shrink(images[None, None], test.size)[0, 0], factors))
            factors = {k: torch.cat([f[k].cpu().float() for _, f in parts]) for k in FACTORS}
            factors["identity"] = torch.searchsorted(torch.tensor(people), factors["identity"].long())
            images = torch.cat([images.to(test.device) for images, _ in parts])
            net, errors = judging.read_out(images, factors, iterations, progress=progress)
            meta = {"errors": json.dumps(errors), "scale": json.dumps(net.scale), "behaviour": json.dumps(now)}
            write_atomically(path, save(net.state_dict(), meta))
    with safe_open(path, "pt") as f:
        meta, weights = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    with torch.random.fork_rng(devices=[]):
        net = judging.ReadOut(test.size, len(people), json.loads(meta["scale"]))
    net.load_state_dict(weights)
    return Judge({"train": train, "test": test}, net.to(test.device).eval(), json.loads(meta["errors"]))


def _meta(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as f:
        return f.metadata()


def measure(run_dir: str | Path, train: Pairs, test: Pairs, n: int = 4096, judge: Judge | None = None,
            progress: bool = False) -> dict:
    """Measure one run of a recipe and write run_dir/metrics.json: the run's settings, data and versions beside every number.

    The short measurement, or with a judge the long one. Raises ValueError for a run of no recipe, or on other data than
    `train`.
    """
    run_dir = Path(run_dir)
    record = checkpoint.settings_of(run_dir)
    recipe = Recipe.of(record)
    if record["data"] != train.fingerprint:
        raise ValueError(f"{run_dir}: trained on data {record['data'][:12]}, "
                         f"asked to measure on {train.fingerprint[:12]}")
    model = load_run(run_dir, recipe.build()).to(train.device)
    record = recipe.head(record)
    record |= (numbers(model, train, test, recipe.weight, n) if judge is None else
               everything(model, train, test, recipe.weight, judge, n, progress))
    write_atomically(run_dir / "metrics.json", json.dumps(record, indent=1).encode())
    return record

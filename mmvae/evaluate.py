"""How a model is judged, on identities that training never saw: every row of the book's table of metrics.

    python -m mmvae.evaluate RUN_DIR ... [--data faces.h5] --out metrics.json

measures runs of `mmvae.train`. Terms and log-likelihood are in `likelihood`, probes, MIG and DCI in `probes`, everything
about generated images in `synthesis`; here they are put together.
"""
import argparse
import hashlib
import json
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save
from tqdm.auto import tqdm

from . import likelihood, nets, probes as probing, synthesis
from .data import FACTORS, Pairs, _shrink
from .likelihood import heldout, latent_kl, subsets_of
from .models import MultiModalVAE
from .probes import COLLAPSED, PROBES, codes, partition, probes
from .synthesis import Judge
from .train import load_run, write_atomically

__all__ = ["COLLAPSED", "PROBES", "codes", "everything", "heldout", "judge", "latent_kl", "measure", "numbers",
           "partition", "probes", "subsets_of"]
SAMPLES = 1, 10, 100, 1000  # of the importance-sampled likelihood
LIKELIHOOD_PAIRS = 128


def numbers(model: MultiModalVAE, train: Pairs, test: Pairs, weight: float, n: int = 4096,
            subsets: tuple[str, ...] = ()) -> dict:
    """The short measurement, some seconds, on n pairs: "n", "heldout", "probes", and its number of "parameters".

    weight: of the likelihood in the model's training, and so in its ELBO. subsets: probe the posteriors of these only.
    """
    return {"n": n, "heldout": heldout(model, test, weight, n), "probes": probes(model, train, test, n, subsets=subsets),
            "parameters": sum(p.numel() for p in model.parameters())}


def likelihoods(model: MultiModalVAE, test: Pairs, weight: float = 1.0, pairs: int = LIKELIHOOD_PAIRS,
                samples: tuple[int, ...] = SAMPLES) -> dict:
    """The importance-sampled log-likelihood: {subset: {K: mean over the pairs, nats per pair}, "n": pairs}."""
    x, _ = test.sample(pairs, torch.Generator(test.device).manual_seed(1))
    found = {"n": pairs}
    for s in subsets_of(model):
        values = likelihood.log_likelihood(model, {m: x[m] for m in s}, samples, weight)
        found[s] = {str(k): v.mean().item() for k, v in values.items()}
    return found


def everything(model: MultiModalVAE, train: Pairs, test: Pairs, weight: float, judge: Judge, n: int = 4096,
               progress: bool = True) -> dict:
    """The long measurement, a minute or two: what `numbers` says, and

    "likelihood": {subset: {K: mean over "n" pairs, nats per pair}}, K = 1 being the ELBO;
    "probes_of_samples", "verification", "effects", "mig", "dci": see `mmvae.probes`; "cross", "coherence", "experts": see
    `mmvae.synthesis`; "sorted": see `by_role`. judge: see `judge`.
    """
    steps = {"numbers": lambda: numbers(model, train, test, weight, n),
             "likelihood": lambda: likelihoods(model, test, weight, max(1, min(LIKELIHOOD_PAIRS, n // 4))),
             "probes_of_samples": lambda: probes(model, train, test, n, samples=True),
             "verification": lambda: probing.verification(model, train, test, n),
             "effects": lambda: probing.effects(model, test),
             "mig": lambda: probing.mig(model, test, draws=min(10_000, 4 * n)),
             "dci": lambda: probing.dci(model, train, test, min(10_000, 4 * n)),
             "cross": lambda: synthesis.cross_modal(model, judge, n // 8),
             "coherence": lambda: synthesis.joint_coherence(model, judge, n // 4),
             "experts": lambda: synthesis.experts(model, test, n),
             "sorted": lambda: by_role(model, train, test, n)}
    record, bar = {}, tqdm(steps.items(), disable=not progress, leave=False)
    for name, step in bar:
        bar.set_description(name)
        record |= step() if name == "numbers" else {name: step()}
    return record


def by_role(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 4096) -> dict:
    """Of a model whose latents are all shared: {"latents": {"I", "S", "T": how many}, "probes": those of the sorted
    latents given both modalities}; see `mmvae.synthesis.Sorted`. Of another one: empty.
    """
    if not synthesis.all_shared(model):
        return {}
    by_silence = synthesis.Sorted(model, test, n)
    return {"latents": by_silence.blocks, "probes": probes(by_silence, train, test, n, subsets=("IT",))}


def judge(train: Pairs, test: Pairs, folder: str | Path, free: bool = True, iterations: int = 6000,
          progress: bool = True) -> Judge:
    """Who reads factors off generated images: a read-out trained on real ones, and the renders themselves.

    The read-out is trained on every image of both splits, a tenth held out to measure its own error, and, if `free`, on
    the book's heads rendered with all factors free, 20 s. It is kept in `folder`, under a hash of the data.
    """
    code = "".join(Path(module.__file__).read_text() for module in (nets, synthesis))
    words = f"{train.fingerprint} {test.fingerprint} {free} {iterations} {code}"
    path = Path(folder) / f"read-out-{test.size}-{hashlib.sha256(words.encode()).hexdigest()[:12]}.safetensors"
    people = torch.cat([train.values["identity"], test.values["identity"]]).tolist()
    with FileLock(f"{path}.lock"):
        if not path.exists():
            parts = [synthesis.all_images(p) for p in (train, test)]
            if free:
                images, factors = synthesis.rendered_freely(people, 64, progress=progress)
                parts.append((_shrink(images[None, None], test.size)[0, 0], factors))
            factors = {k: torch.cat([f[k].cpu().float() for _, f in parts]) for k in FACTORS}
            factors["identity"] = torch.searchsorted(torch.tensor(people), factors["identity"].long())
            images = torch.cat([images.cpu() for images, _ in parts])
            net, errors = synthesis.read_out(images, factors, iterations, progress=progress)
            meta = {"errors": json.dumps(errors), "scale": json.dumps(net.scale)}
            write_atomically(path, save(net.state_dict(), meta))
    with safe_open(path, "pt") as f:
        meta, weights = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    with torch.random.fork_rng(devices=[]):
        net = synthesis.ReadOut(test.size, len(people), json.loads(meta["scale"]))
    net.load_state_dict(weights)
    return Judge({"train": train, "test": test}, net.to(test.device).eval(), json.loads(meta["errors"]))


def measure(run_dir: str | Path, train: Pairs, test: Pairs, n: int = 4096, judge: Judge | None = None,
            progress: bool = False) -> dict:
    """Measure one run and write run_dir/metrics.json: the run's settings, data and versions beside every number.

    The short measurement, or with a judge the long one. Raises ValueError for a run on other data than `train`.
    """
    run_dir = Path(run_dir)
    model = load_run(run_dir, train.device)
    record = json.loads((run_dir / "settings.json").read_text())
    if record["data"] != train.fingerprint:
        raise ValueError(f"{run_dir}: trained on data {record['data'][:12]}, "
                         f"asked to measure on {train.fingerprint[:12]}")
    weight = record["settings"]["weight"]
    record |= (numbers(model, train, test, weight, n) if judge is None else
               everything(model, train, test, weight, judge, n, progress))
    write_atomically(run_dir / "metrics.json", json.dumps(record, indent=1).encode())
    return record


def main(argv: list[str] | None = None):
    from .profiles import build_folder, profile  # profiles load from here; only this command turns round
    parser = argparse.ArgumentParser(prog="python -m mmvae.evaluate", description="Measure runs of mmvae.train.")
    parser.add_argument("run_dir", type=Path, nargs="+")
    parser.add_argument("--data", help="the HDF5 file that the runs were trained on (default: the book's)")
    parser.add_argument("--out", type=Path, default=Path("metrics.json"), help="where {run_dir: its numbers} goes")
    parser.add_argument("--pairs", type=int, default=4096, help="unseen pairs to measure on")
    args = parser.parse_args(argv)
    found = {}
    try:
        sizes = {run_dir: load_run(run_dir).size for run_dir in args.run_dir}
        source = args.data or profile("cpu").data_file
        for run_dir in tqdm(args.run_dir, unit="run"):
            pairs = [Pairs(source, split, size=sizes[run_dir]) for split in ("train", "test")]
            who = judge(*pairs, build_folder(), free=not args.data)
            found[str(run_dir)] = measure(run_dir, *pairs, args.pairs, who, progress=True)
            write_atomically(args.out, json.dumps(found, indent=1).encode())
    except (ValueError, FileNotFoundError) as e:
        parser.exit(1, f"{e}\n")
    for run_dir, record in found.items():
        print(f"{run_dir}: ELBO of {{I,T}}, held out: {record['heldout']['IT.elbo']:.1f} nats per pair")
        for name, score in record["probes"].items():
            if name.endswith("knn") and name.startswith("IT"):
                print(f"  {name:28s} {score:.2f}")


if __name__ == "__main__":
    main()

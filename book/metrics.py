"""Measure all six models in one profile: book/metrics.json, and the traversal on the welcome page.

    make metrics            (the cpu profile; a run that the build folder holds is measured, not trained again)

The JSON holds for each model its settings, seed, data fingerprint, versions and device, parameters, seconds a
step, the held-out loss terms (nats per pair) and the probe table, as `mmvae.evaluate` defines them.
"""
import argparse
import json
from pathlib import Path

import torch
from tqdm.auto import tqdm

import mmvae

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="cpu", choices=mmvae.profiles.PROFILES)
    parser.add_argument("--out", type=Path, default=HERE / "metrics.json")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; for these small nets one is fastest")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    profile, records = mmvae.profile(args.profile), {}
    for name in tqdm(mmvae.MODELS, unit="model"):
        profile.train(name)
        records[name] = profile.measure(name)
        log = profile.log(name)
        records[name]["seconds_per_step"] = round(float(log["seconds"][-1] / log["iteration"][-1]), 5)
    text = json.dumps(records, indent=1, default=float)
    mmvae.train.write_atomically(args.out, (text + "\n").encode())
    film = mmvae.plot.traversal_gif(profile.train("mumo"), profile.pairs().fixed(3)[0])
    for suffix in ("gif", "webp"):  # for the README, and for the welcome page with its two themes
        film.save(HERE / "_static" / f"traversal.{suffix}")
    print(f"wrote {args.out.name}: {', '.join(records)}; and _static/traversal.gif and .webp")


if __name__ == "__main__":
    main()

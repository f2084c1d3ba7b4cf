"""The three profiles of the notebooks: how much data and training each asks for, and where the results are kept.

A notebook calls `mmvae.profile(PROFILE)` and then `profile.pairs("train")` and `profile.train("mumo")`. The cpu
profile has its models trained already: they are the published weights (`weights.py`), and its numbers are their
recipe. Whatever else is in the build folder already is loaded, never made twice.
"""
import hashlib
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from . import checkpoint, data, faces, gaussian, heads, models, nets, train, weights

SOURCE = {module: Path(module.__file__).read_bytes()  # as imported: an edit while a kernel runs changes no hash
          for module in (gaussian, nets, models, heads, faces, data, checkpoint, train)}


@dataclass(frozen=True)
class Profile:
    """How large everything is. `mmvae.profile(name)` makes one."""
    name: str
    size: int  # pixels a side, in training
    iterations: int
    batch: int
    identities: int  # for training
    test_identities: int
    stored_size: int = 64  # pixels a side, in the data file
    device: str = "cpu"
    published: bool = False  # its models are the published ones: loaded, not trained

    @property
    def live(self) -> dict:
        """Changes for a run that a reader watches, half a minute on one core: `profile.train(model, **profile.live)`.

        None in a profile that trains its models anyway.
        """
        return dict(size=32, iterations=5000) if self.published else {}

    @property
    def weight(self) -> float:
        """Of the likelihood: (64 / size)^2, so that an image weighs against the KL as it does at 64x64."""
        return self.settings("mumo").weight

    def settings(self, model: str, **changes) -> train.Settings:
        """The training settings of a model in this profile; `changes` are fields of `mmvae.train.Settings`."""
        defaults = dict(model=model, size=self.size, iterations=self.iterations, batch=self.batch)
        return train.Settings(**defaults | changes)

    @property
    def data_file(self) -> Path:
        """The rendered heads: made on first use."""
        code = _digest("", heads, faces)
        name = f"faces-{self.identities}+{self.test_identities}-{self.stored_size}-{code[:8]}.h5"
        path = build_folder() / name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                faces.write(path, self.identities, self.test_identities, self.stored_size)
        return path

    def pairs(self, split: str = "train", size: int | None = None) -> data.Pairs:
        """The pairs of a split ("train" or "test") on this profile's device; size: pixels a side, default its own."""
        return _pairs(self, split, size or self.size)

    def run_dir(self, model: str, **changes) -> Path:
        """Where a run is kept: under a hash of its settings, its data, and the code that training depends on."""
        settings = self.settings(model, **changes)
        words = f"{sorted(asdict(settings).items())} {self.pairs(size=settings.size).fingerprint} {self.device}"
        code = _digest(words, gaussian, nets, models, data, checkpoint, train)
        return build_folder() / "runs" / f"{model}-{code[:12]}"

    def train(self, model: str, progress: bool = True, **changes) -> models.MultiModalVAE:
        """The trained model, in eval mode: published, or trained now, resumed, or loaded if the build folder has it."""
        if name := self._published(model, changes):
            return weights.load(name, self.device)
        settings, run_dir = self.settings(model, **changes), self.run_dir(model, **changes)
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{run_dir}.lock"):  # two notebooks that ask for one run train it once
            return train.fit(settings, self.pairs(size=settings.size), run_dir, progress)

    def log(self, model: str, **changes) -> dict[str, np.ndarray]:
        """The training log of a model that `train` has returned: {column: array}."""
        if name := self._published(model, changes):
            return {column: np.array(values) for column, values in weights.info(name)["log"].items()}
        return train.read_log(self.run_dir(model, **changes))

    def measure(self, model: str, n: int = 4096, **changes) -> dict:
        """`mmvae.evaluate.measure`, on n pairs, of a model that `train` has returned.

        Of a published model its record, which holds the same numbers: tests/test_weights.py measures them again.
        """
        from .evaluate import measure, numbers
        published = self._published(model, changes)
        if published and n == weights.info(published)["n"]:
            return weights.info(published)
        size = self.settings(model, **changes).size
        pairs = self.pairs("train", size), self.pairs("test", size)
        if published:
            return weights.info(published) | numbers(self.train(model, **changes), *pairs, self.weight, n)
        return measure(self.run_dir(model, **changes), *pairs, n)

    def _published(self, model: str, changes: dict) -> str | None:
        """The name under which `train` finds this model among the published ones: in the cpu profile, if it is there."""
        same = (name for name, (of, its) in weights.RECIPES.items()
                if of == model and self.settings(model, **its) == self.settings(model, **changes))
        return next(same, None) if self.published else None


PROFILES = {
    "smoke": Profile("smoke", size=16, iterations=30, batch=32, identities=4, test_identities=2, stored_size=32),
    "cpu": Profile("cpu", size=64, iterations=30_000, batch=64, identities=50, test_identities=10, published=True),
    "gpu": Profile("gpu", size=64, iterations=80_000, batch=64, identities=50, test_identities=10, device="cuda"),
}


def profile(name: str = "") -> Profile:
    """The profile of this name; "" means the environment's MMVAE_PROFILE, or else "cpu".

    Raises ValueError for an unknown name, and RuntimeError for "gpu" on a machine without one.
    """
    name = name or os.environ.get("MMVAE_PROFILE", "") or "cpu"
    if name not in PROFILES:
        raise ValueError(f'PROFILE: found "{name}", expected one of {", ".join(PROFILES)}')
    if PROFILES[name].device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError('PROFILE: "gpu" needs a CUDA device, and PyTorch sees none; use "cpu"')
    return PROFILES[name]


def build_folder() -> Path:
    """`_build/` of the book's repository, or outside of it of the current folder; MMVAE_BUILD overrides both."""
    if "MMVAE_BUILD" in os.environ:
        folder = Path(os.environ["MMVAE_BUILD"])
    else:
        here = Path.cwd()
        root = next((p for p in (here, *here.parents) if (p / "_toc.yml").exists()), here)
        folder = root / "_build"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(words: str, *modules) -> str:
    """A hash of some words and of the source of some modules."""
    digest = hashlib.sha256(words.encode())
    for module in modules:
        digest.update(SOURCE[module])
    return digest.hexdigest()


@cache
def _pairs(profile: Profile, split: str, size: int) -> data.Pairs:
    return data.Pairs(profile.data_file, split, profile.device, size)

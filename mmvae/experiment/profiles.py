"""The profiles of the notebooks: how much data and training each asks for, and where the results are kept.

A notebook calls `mmvae.profile(PROFILE)` and then `profile.pairs("train")` and `profile.train("mumo")`. The cpu
profile has its models trained already: they are the published weights (`weights.py`), made in the book profile, and renders
only the people that it shows, when it shows them. Whatever else is in the build folder already is loaded, never made twice.
"""
import hashlib
import os
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from .. import faces
from ..faces import file
from ..models import MultiModalVAE
from ..train import read_log
from . import weights
from .recipe import Recipe


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

    def settings(self, model: str, **changes) -> Recipe:
        """The recipe of a model in this profile; `changes` are its fields."""
        defaults = dict(model=model, size=self.size, iterations=self.iterations, batch=self.batch)
        return Recipe(**defaults | changes)

    @property
    def data_path(self) -> Path:
        """Where the rendered heads are kept."""
        name = f"faces-{self.identities}+{self.test_identities}-{self.stored_size}-v{faces.GENERATOR_VERSION}.h5"
        return build_folder() / name

    @property
    def data_file(self) -> Path:
        """The rendered heads: made on first use, by as many processes as there are cores."""
        path = self.data_path
        with FileLock(f"{path}.lock"):
            if not path.exists():
                faces.write(path, self.identities, self.test_identities, self.stored_size)
        return path

    def pairs(self, split: str = "train", size: int | None = None) -> faces.Pairs:
        """The pairs of a split ("train" or "test") on this profile's device; size: pixels a side, default its own.

        Where models need no training, and there are no rendered heads yet, they come one by one: `Shown`.
        """
        return _pairs(self, split, size or self.size)

    def run_dir(self, model: str, **changes) -> Path:
        """Where a run is kept: under a hash of its recipe, its data and the device. What its code computed stands in it, and
        `mmvae.fit` refuses to go on with code that computes something else."""
        recipe = self.settings(model, **changes)
        words = f"{sorted(recipe.settings.items())} {self.pairs(size=recipe.size).fingerprint} {self.device}"
        return build_folder() / "runs" / f"{model}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"

    def train(self, model: str, progress: bool = True, **changes) -> MultiModalVAE:
        """The trained model, in eval mode: published, or trained now, resumed, or loaded if the build folder has it."""
        if name := self._published(model, changes):
            return weights.load(name, device=self.device)
        recipe, run_dir = self.settings(model, **changes), self.run_dir(model, **changes)
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{run_dir}.lock"):  # two notebooks that ask for one run train it once
            return recipe.fit(self.pairs(size=recipe.size), run_dir, progress=progress)

    def log(self, model: str, **changes) -> dict[str, np.ndarray]:
        """The training log of a model that `train` has returned: {column: array}."""
        if name := self._published(model, changes):
            return {column: np.array(values) for column, values in weights.info(name)["log"].items()}
        return read_log(self.run_dir(model, **changes))

    def measure(self, model: str, n: int = 4096, **changes) -> dict:
        """`measure.measure`, on n pairs, of a model that `train` has returned.

        Of a published model its record, in which "heldout" and the probes of identity are those of this profile's people, as
        tests/test_weights.py measures them again; those of angles are of all whom the book holds out.
        """
        from .measure import measure, numbers
        published = self._published(model, changes)
        if published and n == (info := weights.info(published))["n"]:
            shown = info["shown"]
            return info | {"heldout": shown["heldout"], "probes": info["probes"] | shown["probes"]}
        size = self.settings(model, **changes).size
        pairs = self.pairs("train", size), self.pairs("test", size)
        if published:
            return weights.info(published) | numbers(self.train(model, **changes), *pairs, self.weight, n)
        return measure(self.run_dir(model, **changes), *pairs, n)

    def does(self, models: dict[str, MultiModalVAE]) -> dict[str, dict[str, list[str]]]:
        """What each latent of some models of the book's pair does, in words, {name: {block: [one a latent]}}, for
        `show.widgets.explorer`: of published weights from their record, of others measured on the people held out."""
        from . import roles
        found = {}
        for name, model in models.items():
            size = model.modalities[next(iter(model.modalities))].shape[-1]
            found[name] = roles.words(model, roles.published(model) or roles.measure(model, self.pairs("test", size)))
        return found

    def _published(self, model: str, changes: dict) -> str | None:
        """The name under which `train` finds this model among the published ones: in the cpu profile, if it is there; of the
        length that it was published with, if `changes` ask for no other."""
        same = (name for name, (of, its) in weights.RECIPES.items() if of == model and self.settings(model, **its) ==
                self.settings(model, **{"iterations": its.get("iterations", self.iterations)} | changes))
        return next(same, None) if self.published else None


PEOPLE = 500, 200  # whom the published models learn from, and who is held out: the first of them are the cpu profile's
PROFILES = {
    "smoke": Profile("smoke", size=16, iterations=30, batch=32, identities=4, test_identities=2, stored_size=32),
    "cpu": Profile("cpu", size=64, iterations=80_000, batch=64, identities=50, test_identities=20, published=True),
    "book": Profile("book", 64, 80_000, 64, *PEOPLE),
    "gpu": Profile("gpu", 64, 80_000, 64, *PEOPLE, device="cuda"),
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


FEW = 8  # people that are rendered by themselves; who asks for more at once has all of them rendered
head = lru_cache(2 * FEW)(file.head)


class Shown(faces.Pairs):
    """The pairs of a profile, each head rendered when it is first seen: the same bytes as those of `Profile.data_file`.

    That file is made, by as many processes as there are cores, when more than `FEW` people are asked for at once, or
    `images`: a chapter's first pictures are of three.
    """

    def __init__(self, profile: Profile, split: str, size: int):
        self.profile, self.split, self.size, self.unit = profile, split, size, "degrees"
        self.device, self.axes, self.factors = torch.device(profile.device), faces.AXES, faces.FACTORS
        first, n = (0, profile.identities) if split == "train" else (faces.TEST_FROM, profile.test_identities)
        values = torch.arange(first, first + n), *map(torch.from_numpy, (faces.AZIMUTHS, faces.ELEVATIONS, faces.LIGHTS))
        self.values = {f: v.to(self.device) for f, v in zip(self.factors, values)}
        self.shape = tuple(map(len, values))
        self.generator = torch.Generator(self.device).manual_seed(0)

    @cached_property
    def images(self) -> dict[str, torch.Tensor]:
        """Everybody's: {modality: uint8 (..., size, size)}."""
        return faces.Pairs(self.profile.data_file, self.split, self.device, self.size).images

    def _pictures(self, cell: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        people, rows = cell["identity"].unique(return_inverse=True)
        if "images" in vars(self) or not 0 < len(people) <= FEW:
            return super()._pictures(cell)
        heads = [head(k, faces.SEED, self.profile.stored_size)[:2] for k in self.values["identity"][people].tolist()]
        grid = faces.Grid(*map(np.stack, zip(*heads)), **self.values | {"identity": people}, test_identities=0)
        return faces.Pairs(grid, "train", self.device, self.size).at(**cell | {"identity": rows})[0]


@cache
def _pairs(profile: Profile, split: str, size: int) -> faces.Pairs:
    if split in ("train", "test") and profile.published and not profile.data_path.exists():
        return Shown(profile, split, size)
    return faces.Pairs(profile.data_file, split, profile.device, size)

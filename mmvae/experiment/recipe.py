"""A recipe: one of the book's models by name, how large it is, and how it is trained; a run of it can be built again."""
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

from .. import strict, terms
from ..distributed import gpus
from ..models import MultiModalVAE
from ..train import Settings, fit
from .table import MODELS

TRAINING = tuple(f.name for f in fields(Settings))
WHOLE, LATENTS = range(2 ** 53), range(1025)  # a count of anything; dimensions of a block
OPTIONS = {"private?": LATENTS, "shared?": LATENTS, "latent?": LATENTS, "single_prior?": bool,
           "likelihood?": str, "subsets?": [[str]]}
FORM = {"model": str, "size": range(1, 513), "iterations": range(1, 10 ** 9 + 1), "batch": range(1, 2 ** 16 + 1),
        "learning_rate": strict.number(0, 10), "warmup": WHOLE, "clip": strict.number(0, 1e9),
        "weight_decay": strict.number(0, 10 ** 6), "weight": strict.number(0, 10 ** 9), "cross": strict.number(0, 10 ** 9),
        "cross_until": (WHOLE, None), "extra?": {str: strict.number(0, 10 ** 9)}, "extra_until?": (WHOLE, None),
        "options": dict, "seed": range(2 ** 63), "log_every": range(1, 2 ** 53), "checkpoint_every": range(1, 2 ** 53)}


@dataclass(frozen=True)
class Recipe:
    """A model of `mmvae.MODELS`, and the settings of its training, of which `mmvae.train.Settings` speaks.

    Raises ValueError for an unknown model or size, and for settings that training does not take.
    """
    model: str = "mumo"  # a key of mmvae.MODELS
    size: int = 64  # pixels a side; images are averaged down to it
    iterations: int = Settings.iterations
    batch: int = Settings.batch
    learning_rate: float = Settings.learning_rate
    warmup: int = Settings.warmup
    clip: float = Settings.clip
    weight_decay: float = Settings.weight_decay
    weight: float | None = None  # of the likelihood; None: (64 / size)^2, an image weighs as it does at 64x64
    cross: float = Settings.cross
    cross_until: int | None = None
    extra: dict | None = None  # terms of mmvae.terms: {"gap": 1.0}
    extra_until: int | None = None
    options: dict = field(default_factory=dict)  # further arguments of the model: {"shared": 3}
    seed: int = 0  # of the first weights, the batches and the noise
    log_every: int = Settings.log_every
    checkpoint_every: int = Settings.checkpoint_every

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f'model: found "{self.model}", expected one of {", ".join(MODELS)}')
        if not strict.fits(self.size, int) or self.size < 1:
            raise ValueError(f"size: found {self.size}, expected a positive whole number")
        if self.weight is None:
            object.__setattr__(self, "weight", (64 / self.size) ** 2)
        object.__setattr__(self, "options", strict.loads(json.dumps(self.options)))  # as a file gives it back
        strict.check({k: v for k, v in self.options.items() if f"{k}?" in OPTIONS}, OPTIONS, "options")
        object.__setattr__(self, "extra", self.training.extra)  # refuses what is wrong with any of them

    @property
    def training(self) -> Settings:
        """What `mmvae.fit` takes beside the model."""
        return Settings(**{name: getattr(self, name) for name in TRAINING})

    def build(self) -> MultiModalVAE:
        """The untrained model; its weights depend on the seed alone, and PyTorch's random state stays as it is.

        Raises ValueError for options that the model does not have.
        """
        with torch.random.fork_rng(devices=[]):
            return self._seeded()

    def _seeded(self) -> MultiModalVAE:
        torch.manual_seed(self.seed)
        try:
            return terms.prepare(MODELS[self.model](size=self.size, **self.options), self.extra)
        except TypeError as e:
            raise ValueError(f"options: found {strict.brief(self.options)}, expected arguments of {self.model} ({e})") from e

    def fit(self, rows, run_dir: str | Path, **more) -> MultiModalVAE:
        """`mmvae.fit` of this recipe: first weights and noise are one stream of random numbers, from the seed alone."""
        with torch.random.fork_rng(gpus(rows.device)):
            return fit(self._seeded(), rows, run_dir, self.training, recipe=self.record(), **more)

    def record(self) -> dict:
        """How to build the model again, as `mmvae.fit` keeps it in a run's settings.json."""
        return {"name": self.model, "size": self.size, "options": self.options}

    @classmethod
    def of(cls, run: dict) -> "Recipe":
        """The recipe of a run, of which settings.json has this content. Raises ValueError if it has none."""
        model = run.get("model", {})
        if set(model) != {"name", "size", "options"}:
            raise ValueError(f"found a run of {model.get('class', model)}, expected one of a recipe, of {', '.join(MODELS)}")
        try:
            return cls(model["name"], model["size"], options=model["options"], **run["settings"])
        except TypeError as e:
            raise ValueError(f"found settings of another version of mmvae ({e})") from e

    @property
    def settings(self) -> dict:
        """Its fields, as records say them: `extra` and `extra_until` only where they say something, as in those of before."""
        return {k: v for k, v in asdict(self).items() if v is not None or k not in ("extra", "extra_until")}

    def head(self, run: dict) -> dict:
        """What the record of a measured run begins with: this recipe as "settings", and the rest of its settings.json."""
        return {"settings": self.settings} | {k: v for k, v in run.items() if k not in ("settings", "model")}

    @property
    def key(self) -> str:
        """What a training of it computes is a function of this: all but the seed, and how often it is logged and saved."""
        kept = {k: v for k, v in self.settings.items() if k not in ("seed", "log_every", "checkpoint_every")}
        return json.dumps(kept, sort_keys=True)

    @classmethod
    def from_key(cls, key: str) -> "Recipe":
        """The recipe of this key, of seed 0."""
        return cls(**json.loads(key))

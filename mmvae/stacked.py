"""Several runs that differ by their seeds alone, trained as one: what one small model leaves idle of a GPU, twenty fill.

The weights of K models stand in one tensor, (K, parameters); `torch.vmap` takes the losses of all at once, each on its own
batch and noise, and on a GPU one CUDA graph is the whole iteration. Each run's folder becomes what `mmvae.fit` leaves.
"""
import copy
import json
import math
import time
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cache, cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from . import checkpoint, gaussian, observed
from .behaviour import Print
from .checkpoint import Checkpoint
from .data import Rows
from .distributed import Loss
from .files import Log, write_atomically
from .likelihoods import Bernoulli
from .models import MultiModalVAE
from .train import BETAS, Settings, behaviour_of

CHUNK = 100  # iterations whose batches and noise are drawn at once, and whose losses are averaged to a row of the log


class Stack:
    """K models of one kind in training: call `advance` until it is `finished`, then `keep` each run.

    models: with their first weights, which are copied. settings: one a model, alike but for the seed; a row of the
    log is always of 100 iterations. rows: `mmvae.data.Rows`, or what has their methods. The batches and the noise are of
    the distributions of `mmvae.fit`, but other numbers, so each run is another draw of what `mmvae.fit` would reach; the same
    seeds in the same order on the same device and versions give the same weights. Raises ValueError for settings that differ
    or are no whole hundreds of iterations, and for rows that the models do not take.
    """

    def __init__(self, models: Sequence[MultiModalVAE], settings: Sequence[Settings], rows: Rows):
        first, of, self.device = models[0], settings[0], torch.device(rows.device)
        if len(models) != len(settings) or len({json.dumps(asdict(replace(s, seed=0))) for s in settings}) != 1:
            raise ValueError(f"settings: found {len(settings)} for {len(models)} models, expected one each, alike but "
                             "for the seed")
        if of.iterations % CHUNK:
            raise ValueError(f"iterations: found {of.iterations}, expected a multiple of {CHUNK}")
        flat = torch.stack([torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models])
        self.weights = flat.to(self.device).requires_grad_()  # (K, parameters)
        first = copy.deepcopy(first).to(self.device).train()
        for layer in first.modules():
            if isinstance(layer, nn.Conv2d) and plain(layer):
                layer.forward = partial(as_product, layer)
            if type(layer) is Bernoulli:
                layer.log_prob = cross_entropy
        self.model, self.settings, self.rows = Loss(first), list(settings), rows
        self.shapes = {k: p.shape for k, p in self.model.named_parameters()}
        some = torch.arange(min(of.batch, len(rows)), device=self.device)
        x, present = rows.batch(some)
        observed.cases(first, *first.check(x, present), first.subsets)  # in a sentence, before anything is computed
        drawn = _Noise()
        with torch.no_grad(), drawn.instead():
            self.terms = list(first.loss(x, of.weight, present, **of.added_at(0)))
        seed = sum(s.seed * 1009 ** k for k, s in enumerate(settings)) % 2 ** 31  # another for other seeds
        self.generator = torch.Generator(self.device).manual_seed(seed)
        K, kind = len(models), {"device": self.device}
        self.index = torch.zeros(CHUNK, K, of.batch, dtype=torch.int64, **kind)  # of the chunk's rows
        self.noise = torch.zeros(CHUNK, K, drawn.used * of.batch // len(some), **kind)
        self.found = torch.zeros(CHUNK, len(self.terms), K, **kind)  # the losses
        self.rates = torch.zeros(CHUNK, **kind)
        self.at, self.rate = torch.zeros(1, dtype=torch.int64, **kind), torch.zeros((), **kind)  # which of the chunk
        self.optimiser = torch.optim.AdamW([self.weights], self.rate, BETAS, weight_decay=of.weight_decay, fused=True,
                                           capturable=self.device.type == "cuda")
        self.done, self.log, self.started = 0, [], time.perf_counter()
        self.graphs = {}  # of an iteration, by what is added to the loss
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @property
    def finished(self) -> bool:
        return self.done == self.settings[0].iterations

    @property
    def idle(self) -> bool:
        """Whether all that was asked for is computed."""
        return self.stream is None or self.stream.query()

    def advance(self):
        """The next hundred iterations; on a GPU on a stream of the stack's own, for which nobody waits: see `idle`."""
        of, steps = self.settings[0], range(self.done, self.done + CHUNK)
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            self.index.random_(0, len(self.rows), generator=self.generator)
            self.noise.normal_(generator=self.generator)
            self.rates.copy_(torch.tensor([of.rate(i) for i in steps]))
            self.at.zero_()
            for i in steps:
                self._iterate(**of.added_at(i))
            self.log.append(self.found.mean(0))  # (terms, K)
        self.done += CHUNK

    def _iterate(self, cross: float | None, extra: dict[str, float] | None = None):
        if self.stream is None:
            return self._iteration(cross, extra)
        if (key := (cross, *(extra or {}).items())) not in self.graphs:
            kept = [t.detach().clone() for t in self._state()]
            self.at.zero_()
            for _ in range(3):  # what PyTorch sets up at first must not be captured
                self._iteration(cross, extra)
            self.graphs[key] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[key], stream=self.stream):
                self._iteration(cross, extra)
            for now, before in zip(self._state(), kept + [torch.zeros_like(t) for t in self._state()[len(kept):]]):
                now.data.copy_(before)
        self.graphs[key].replay()

    def _state(self) -> list[Tensor]:
        """All that an iteration changes."""
        return [self.weights, self.at, *self.optimiser.state[self.weights].values()]

    def _iteration(self, cross: float | None, extra: dict[str, float] | None = None):
        """One iteration of all K, as `train.update` is of one."""
        of, K = self.settings[0], len(self.settings)
        index, noise, rate = (t.index_select(0, self.at)[0] for t in (self.index, self.noise, self.rates))
        drawn = self.rows.batch(index.flatten())
        x, present = ({m: v.unflatten(0, (K, of.batch)) for m, v in part.items()} for part in drawn)
        terms = self._losses(x, present, noise, cross, extra)
        grad, = torch.autograd.grad(terms["total"].sum(), self.weights)  # of each model's weights by its own loss alone
        norm = grad.square().sum(1, keepdim=True).sqrt()
        self.weights.grad = grad * (of.clip / (norm + 1e-6)).clamp(max=1)  # as clip_grad_norm_, model by model
        self.rate.copy_(rate)
        self.optimiser.step()
        self.found.index_copy_(0, self.at, torch.stack([terms[k].detach() for k in self.terms])[None])
        self.at += 1

    def _losses(self, x: dict[str, Tensor], present: dict[str, Tensor], noise: Tensor, cross: float | None,
                extra: dict[str, float] | None):
        """Every term of the loss of each model on its own rows, {term: (K,)}."""
        def one(weights, x, present, noise):
            with _Noise(noise).instead():
                return functional_call(self.model, weights, (x, self.settings[0].weight, present, cross, False, extra))

        parts = self.weights.split([math.prod(s) for s in self.shapes.values()], 1)
        weights = {k: p.unflatten(1, s) if s else p[:, 0] for (k, s), p in zip(self.shapes.items(), parts)}
        return torch.vmap(one)(weights, x, present, noise)

    def wait(self):
        """Until all that was asked for is computed."""
        if self.stream:
            self.stream.synchronize()

    def model_of(self, k: int) -> MultiModalVAE:
        """The k-th model, with its weights of now; the next call takes them from it."""
        self.wait()
        torch.nn.utils.vector_to_parameters(self.weights[k].detach(), self.model.parameters())
        return self.model.model

    @property
    def seconds(self) -> float:
        """Wall time since it began."""
        return time.perf_counter() - self.started

    def finite(self, k: int) -> bool:
        """Whether every loss and every weight of the k-th run is; what is not says nothing of the others."""
        self.wait()
        return bool(torch.stack(self.log)[..., k].isfinite().all() and self.weights[k].isfinite().all())

    @cached_property
    def behaviour(self) -> Print:
        """What the training of any of them computes: see `train.behaviour_of`."""
        return behaviour_of(self.model.model, self.settings[0])

    def save(self, path: Path):
        """All that the next iteration depends on, and the log so far, to go on from: see `restore`."""
        self.wait()
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": self.weights, "random": self.generator.get_state(), "log": torch.stack(self.log)} | {
            f"adam.{k}": v for k, v in self.optimiser.state[self.weights].items()}
        write_atomically(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()},
                                    {"done": str(self.done), "seconds": str(self.seconds)}))

    def restore(self, path: Path):
        """Go on as it was saved: to the same weights, on the same device and versions."""
        with safe_open(path, "pt") as f:
            tensors, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()
        self.weights.data.copy_(tensors["weights"])
        self.generator.set_state(tensors["random"])
        self.log, self.done = list(tensors["log"].to(self.device)), int(meta["done"])
        self.started = time.perf_counter() - float(meta["seconds"])
        self.optimiser.state[self.weights] = {k.removeprefix("adam."): v.to(self.device) for k, v in tensors.items()
                                              if k.startswith("adam.")}

    def keep(self, k: int, run_dir: str | Path, recipe: dict):
        """Write the k-th run's folder, as `mmvae.fit` does: settings.json, log.csv, the last checkpoint. recipe: how to build
        its model. Its seconds are a K-th of the wall time, in which other stacks may have shared the GPU. Raises
        FloatingPointError for a run that is not `finite`, and what `mmvae.fit` does for a folder of another run."""
        run_dir, of, seconds = Path(run_dir), self.settings[k], self.seconds / len(self.settings)
        if not self.finite(k):
            raise FloatingPointError(f"seed {of.seed}: a loss or a weight is not finite after {self.done} iterations")
        run = json.loads(json.dumps({"settings": asdict(of), "model": recipe, "data": self.rows.fingerprint}))
        extra = {"versions": checkpoint.versions(self.device), "machine": {
            "threads": torch.get_num_threads(), "processes": 1, "compile": False, "stacked": [s.seed for s in self.settings],
            "float32 products": torch.get_float32_matmul_precision()}}
        with checkpoint.lock(run_dir):
            checkpoint.refuse_other(run_dir, run, self.behaviour)
            write_atomically(run_dir / "settings.json",
                             json.dumps(run | extra | {"behaviour": self.behaviour}, indent=1).encode())
            log = Log(run_dir / "log.csv", 0, CHUNK)
            for row, means in enumerate(torch.stack(self.log)[:, :, k].tolist(), 1):
                part = round(seconds * row / len(self.log), 2)
                log.write({"iteration": row * CHUNK, "seconds": part} | dict(zip(self.terms, means)))
            log.sync()
            tensors = {f"model.{name}": v.clone() for name, v in self.model_of(k).state_dict().items()}
            tensors |= {f"random.{name}": self.generator.get_state() for name in ("noise", "batches")}  # no Adam: it is done
            checkpoint.keep(run_dir, Checkpoint(self.done, seconds, run, extra["versions"] | extra["machine"], tensors))


def cross_entropy(output: Tensor, x: Tensor) -> Tensor:
    """`Bernoulli.log_prob` in four kernels, where `torch.vmap` takes PyTorch's own apart into seventeen."""
    return (x * output - F.softplus(output)).flatten(1).sum(1)


def plain(layer: nn.Conv2d) -> bool:
    """Whether `as_product` computes it."""
    return (layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros" and layer.bias is not None and
            not isinstance(layer.padding, str))


def as_product(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What a convolution computes, as a product of matrices: of K models one batched product, and not K groups."""
    (height, width), (down, right) = layer.kernel_size, layer.stride
    if any(layer.padding):
        x = F.pad(x, [p for p in reversed(layer.padding) for _ in range(2)])
    rows, columns = (x.shape[2] - height) // down + 1, (x.shape[3] - width) // right + 1
    if (height, width) == (down, right):  # patches that do not overlap: (B, C, height, width, rows, columns)
        x = x[..., :rows * down, :columns * right].unflatten(3, (columns, right)).unflatten(2, (rows, down))
        x = x.permute(0, 1, 3, 5, 2, 4)
    else:  # which pixel stands where in which patch, as a matrix of zeros and ones: its product is one kernel each way
        x = (x.flatten(2) @ _places(*x.shape[2:], height, width, down, right, x.device, x.dtype)).unflatten(
            2, (height, width, rows, columns))
    x = layer.weight.flatten(1) @ x.flatten(4).flatten(1, 3)  # (B, channels, rows * columns)
    return (x + layer.bias.unsqueeze(1)).unflatten(2, (rows, columns))


@cache
def _places(rows: int, columns: int, height: int, width: int, down: int, right: int, device, dtype) -> Tensor:
    """Which of a picture's pixels stands where in which patch: zeros and ones, (rows * columns, those of all patches)."""
    at = torch.arange(rows * columns, device=device).view(rows, columns)
    at = at.unfold(0, height, down).unfold(1, width, right).permute(2, 3, 0, 1).flatten()
    return F.one_hot(at, rows * columns).to(dtype).T.contiguous()


class _Noise:
    """Draws that were made before, in their order: what stands for `gaussian.noise`. Without any, it counts and says 0."""

    def __init__(self, drawn: Tensor | None = None):
        self.drawn, self.used = drawn, 0

    def __call__(self, like: Tensor) -> Tensor:
        start, self.used = self.used, self.used + like.numel()
        return torch.zeros_like(like) if self.drawn is None else self.drawn[start:self.used].view(like.shape)

    @contextmanager
    def instead(self):
        before, gaussian.noise = gaussian.noise, self
        try:
            yield
        finally:
            gaussian.noise = before

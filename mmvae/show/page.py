"""What of a model the static page computes by itself; of all else it says why it does not.

`own` says what a model has of its own, which the page cannot know. For the others `rule` says in JSON which networks read
what, whose Gaussians are multiplied, and which rows of which network make a modality: js/nets.js computes by it.
`posterior` and `means` are its twin in Python, and `differs` holds the two to the model, for every subset that can be
switched to: what the page computes is the model's own, or it computes nothing. `static` does all of this.
"""
import base64
import gzip
import math
import traceback
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from IPython.utils.capture import capture_output
from safetensors.torch import load, save
from torch import Tensor, nn

from .. import nets, together
from ..gaussian import Gaussian, bounded
from ..likelihoods import Bernoulli, Categorical, Laplace, NegativeBinomial, Normal
from ..models import MuMoVAE, PoEVAE, VanillaVAE
from ..observed import Subset, joined

METHODS = {"posterior": "posterior", "posteriors": "posterior", "fuse": "posterior", "can_see": "posterior",
           "decode": "decoding", "means": "decoding", "likelihood": "likelihood", "check": "posterior"}
SHOWN = {Bernoulli: "sigmoid", Normal: "same", Laplace: "same", Categorical: "softmax", NegativeBinomial: "softplus"}
KNOWN = (nets.Encoder, nets.ImageEncoder, nets.VectorEncoder, nets.CategoryEncoder, together.Joined, nets.VectorDecoder,
         nets.ImageDecoder, together.Sheet, together.Apart, nn.Linear, nn.Conv2d, nn.ModuleList)
PARTS = "encoders", "decoders"
MANTISSA = 8  # bits of a weight's fraction that are kept, of fp16's 10: a sixth less to load, 1/255 in a picture at most


@contextmanager
def quiet(model: nn.Module):
    """Nothing is learnt: no gradients, and dropout and batch norms at rest."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def there(model: nn.Module, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """x on the model's device, in its precision."""
    return {m: v.to(model.like) if v.is_floating_point() else v.to(model.like.device) for m, v in x.items()}


def told(q: dict, row: int) -> dict[str, dict]:
    """A row's posterior as JSON. Raises ValueError for what is not finite."""
    found = {}
    for b, g in q.items():
        found[b] = {k: [round(v, 4) for v in getattr(g, k)[row].tolist()] for k in ("mu", "logvar")}
        if wrong := [v for values in found[b].values() for v in values if not math.isfinite(v)]:
            raise ValueError(f"posterior: found {wrong[0]} in block {b}, expected finite numbers")
    return found


def static(model: nn.Module, seen: list[Subset], x: dict[str, Tensor],
           given: dict[str, Tensor]) -> tuple[dict, dict[str, bytes], str]:
    """(rule, {"encoders": an asset, "decoders": an asset}, ""), or ({}, {}, why not: "has its own encoder (Conv)").

    seen: the subsets that can be switched to. x: as the model takes it; given: as the page has it, {modality: (B, numbers)}.
    """
    if what := own(model):
        return {}, {}, f"has its own {what}"
    try:
        about, weights = rule(model, seen), tensors(model)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return {}, {}, f"is wired in its own way ({error})"
    eps = torch.finfo(model.like.dtype).eps
    exact = {m: _numbers(v, about["make"][m]["classes"]) for m, v in x.items()}
    if what := differs(model, about, weights, x, exact, max(1e-3, 16 * eps), max(1e-3, 16 * eps)):
        return {}, {}, f"has its own {what}"
    for bits in (MANTISSA, 10):
        files = {part: pack({k: v for k, v in weights.items() if k.startswith(part)}, bits) for part in PARTS}
        kept = {key: value for data in files.values() for key, value in unpack(data).items()}
        if not differs(model, about, kept, x, given, max(0.03, 16 * eps), max(0.006, 16 * eps)):
            return about, files, ""
    return {}, {}, "needs more digits than the page keeps"


def own(model: nn.Module) -> str:
    """What of this model the page does not know, "encoder (Conv)", or ""."""
    base = next((cls for cls in type(model).__mro__ if cls in (VanillaVAE, MuMoVAE, PoEVAE)), None)
    if base is None:
        return f"posterior ({type(model).__name__})"
    for name, what in METHODS.items():
        if name in vars(model) or getattr(type(model), name, None) is not getattr(base, name, None):
            return f"{what} ({type(model).__name__}.{name})"
    for m in model.modalities:
        like = model.likelihood(m)
        if type(like) not in SHOWN or "mean" in vars(like):
            return f"likelihood ({type(like).__name__})"
    for part in PARTS:
        for net in (net for one in getattr(model, part).values() for net in one.modules()):
            if type(net) not in KNOWN or "forward" in vars(net) or net._forward_hooks or net._forward_pre_hooks:
                return f"{part[:-1]} ({type(net).__name__})"
    return ""


def rule(model: nn.Module, seen: list[Subset]) -> dict:
    """What js/nets.js computes: {"readers": {name: network}, "infer": {subset: names of encoders}, "single_prior",
    "make": {modality: network}}. seen: the subsets that can be switched to. Raises KeyError, AttributeError or TypeError
    for networks that are wired in another way; so `own` comes first, and `differs` after."""
    names = tuple(model.modalities)
    apart = isinstance(model, PoEVAE)
    infer = {joined(s): list(s) if apart else [joined(s)] for s in seen}
    whole = joined(names)
    readers = {key: names if key == whole else tuple(key.split("+")) for keys in infer.values() for key in keys}
    make, start = {}, 0
    for k, m in enumerate(names):
        like, one = model.likelihood(m), isinstance(model, VanillaVAE)
        net, at = model.decoders[whole if one else m], f"decoders.{whole if one else m}"
        if isinstance(net, together.Apart):
            net, at = net.make[k], f"{at}.make.{k}"
        size = list(net.size) if isinstance(net, nets.ImageDecoder) else None
        rows = len(net.pixels.bias) if size else math.prod(net.shape)  # of the layer that makes the numbers
        if sheet := isinstance(net, together.Sheet):
            rows = rows // sum(net.split) * net.split[k]
        make[m] = {"at": at, "blocks": ["Z"] if one else [m, "S"], "rows": [start, start + rows], "mean": SHOWN[type(like)],
                   "classes": getattr(like, "classes", 0), "size": size}
        start += rows if sheet else 0
    return {"infer": infer, "single_prior": bool(getattr(model, "single_prior", False)), "make": make,
            "readers": {key: {"blocks": dict(model.encoders[key].blocks)} | _network(
                model.encoders[key].net, f"encoders.{key}.net", list(by)) for key, by in readers.items()}}


def _network(net: nn.Module, at: str, x: list[str]) -> dict:
    if isinstance(net, together.Joined):
        return {"net": "joined", "at": at, "parts": [_network(part, f"{at}.read.{k}", [m])
                                                     for k, (part, m) in enumerate(zip(net.read, x, strict=True))]}
    if isinstance(net, nets.ImageEncoder):
        return {"net": "image", "at": at, "x": x, "size": list(net.size)}
    (one,) = x
    return {"net": "vector", "at": at, "x": [one], "log": bool(net.counts)}


# ---- the weights

def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights of its networks by the page's names, on the CPU."""
    return {f"{part}.{key}": value.detach().cpu() for part in PARTS
            for key, value in getattr(model, part).state_dict().items()}


def pack(weights: dict[str, Tensor], bits: int = MANTISSA) -> bytes:
    """Weights as an asset: gzip of a safetensors file, each tensor fp16 with this many bits of fraction.

    uint8 (2, *shape): its numbers' low bytes, then their high bytes, which are alike and so compress.
    """
    packed = {}
    for key, value in weights.items():
        words, drop = value.half().view(torch.int16).int(), 10 - bits
        words = ((words + (1 << drop >> 1)) >> drop << drop).to(torch.int16)  # to the nearest, of either sign
        packed[key] = words.contiguous().view(torch.uint8).unflatten(-1, (-1, 2)).movedim(-1, 0).contiguous()
    return gzip.compress(save(packed), 9, mtime=0)


def unpack(data: bytes) -> dict[str, Tensor]:
    """The weights of an asset, as js/nets.js reads them: float32."""
    return {k: (low.int() | high.int() << 8).to(torch.int16).view(torch.float16).float()
            for k, (low, high) in load(gzip.decompress(data)).items()}


# ---- the twin of js/nets.js

def _dense(w: dict[str, Tensor], layer: str, x: Tensor, rows: slice = slice(None)) -> Tensor:
    return F.linear(x, w[f"{layer}.weight"][rows].to(x), w[f"{layer}.bias"][rows].to(x))


def _read(w: dict[str, Tensor], of: dict, x: dict[str, Tensor]) -> Tensor:
    """A network that reads x, {modality: (B, numbers)}: (B, outputs)."""
    at = of["at"]
    if of["net"] == "joined":
        h = F.silu(_dense(w, f"{at}.hidden", F.silu(torch.cat([_read(w, part, x) for part in of["parts"]], 1))))
    else:
        h = torch.cat([x[m] for m in of["x"]], 1)
        if of["net"] == "image":
            height, width = of["size"]
            h = F.pad(h.unflatten(1, (-1, height, width)) - 0.5, (0, -width % nets.PATCH, 0, -height % nets.PATCH))
            kernel, bias = (w[f"{at}.patches.{k}"].to(h) for k in ("weight", "bias"))
            h = F.silu(F.conv2d(h, kernel, bias, stride=nets.PATCH)).flatten(1)
        elif of["log"]:
            h = h.log1p()
        h = F.silu(_dense(w, f"{at}.hidden2", F.silu(_dense(w, f"{at}.hidden1", h))))
    return torch.cat([_dense(w, f"{at}.mu", h), _dense(w, f"{at}.logvar", h)], 1)


def posterior(about: dict, w: dict[str, Tensor], x: dict[str, Tensor], subset: Subset) -> dict[str, Gaussian]:
    """As the page computes it. about: a `rule`. x: {modality: (B, numbers)}, a class by its one-hot vector."""
    experts = []
    for key in about["infer"][joined(subset)]:
        of = about["readers"][key]
        mu, logvar = _read(w, of, x).chunk(2, 1)
        dims = list(of["blocks"].values())
        experts.append(dict(zip(of["blocks"], zip(mu.split(dims, 1), bounded(logvar).split(dims, 1)))))
    q = {}
    for block in dict.fromkeys(b for e in experts for b in e):
        found = [e[block] for e in experts if block in e]
        if len(found) == 1 and not (block == "S" and about["single_prior"]):
            q[block] = Gaussian(*found[0])
            continue
        precisions = [(-logvar).exp() for _, logvar in found]
        total = 1 + sum(precisions)
        q[block] = Gaussian(sum(mu * p for (mu, _), p in zip(found, precisions)) / total, -total.log())
    return q


def means(about: dict, w: dict[str, Tensor], z: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the page computes them: {modality: (B, numbers)}."""
    made = {}
    for m, of in about["make"].items():
        h = torch.cat([z[b] for b in of["blocks"]], 1)
        h = F.silu(_dense(w, f"{of['at']}.hidden2", F.silu(_dense(w, f"{of['at']}.hidden1", h))))
        out = _drawn(w, of, h)
        made[m] = {"sigmoid": torch.sigmoid, "softplus": F.softplus, "same": lambda v: v,
                   "softmax": lambda v: v.unflatten(1, (-1, of["classes"])).softmax(-1).flatten(1)}[of["mean"]](out)
    return made


def _drawn(w: dict[str, Tensor], of: dict, h: Tensor) -> Tensor:
    """The last layers of a decoder, of its hidden features (B, width): (B, numbers)."""
    at, rows = of["at"], slice(*of["rows"])
    if of["size"] is None:
        return _dense(w, f"{at}.last", h, rows)
    height, width = of["size"]
    h = F.silu(_dense(w, f"{at}.last", h)).unflatten(1, (-1, -(-height // nets.PATCH), -(-width // nets.PATCH)))
    h = F.silu(F.conv2d(h, w[f"{at}.mix.weight"].to(h), w[f"{at}.mix.bias"].to(h), padding=1))
    h = F.conv2d(h, w[f"{at}.pixels.weight"][rows].to(h), w[f"{at}.pixels.bias"][rows].to(h))
    return F.pixel_shuffle(h, nets.PATCH)[..., :height, :width].flatten(1)


def _numbers(x: Tensor, classes: int) -> Tensor:
    """As the twin reads it: float64 (B, numbers), on the CPU."""
    x = x.cpu() if x.is_floating_point() else F.one_hot(x.cpu(), classes)
    return x.detach().double().reshape(len(x), -1)


def differs(model: nn.Module, about: dict, w: dict[str, Tensor], x: dict[str, Tensor], given: dict[str, Tensor],
            close: float, near: float) -> str:
    """What the model computes in another way than this rule with these weights, "posterior (of I+T)", or "".

    close, near: by how much posteriors and means may differ, absolutely and relatively to the largest.
    """
    def apart(a: Tensor, b: Tensor, by: float) -> bool:
        b = b.detach().double().cpu().flatten(1)
        return a.shape != b.shape or b.numel() > 0 and not (a - b).abs().amax() <= by * (1 + b.abs().amax())  # NaN too

    n, generator = len(next(iter(x.values()))), torch.Generator().manual_seed(0)
    latents = [{b: torch.randn(n, dim, generator=generator) for b, dim in model.blocks.items()}]
    blank = {b: Gaussian(*torch.zeros(2, n, dim).double()) for b, dim in model.blocks.items()}
    for key in about["infer"]:
        subset = tuple(m for m in x if m in key.split("+"))
        truth, found = model.posterior({m: x[m] for m in subset}), blank | posterior(about, w, given, subset)
        if set(found) != set(truth) or any(not isinstance(q, Gaussian) or apart(found[b].mu, q.mu, close)
                                           or apart(found[b].logvar, q.logvar, close) for b, q in truth.items()):
            return f"posterior (of {key})"
        latents.append({b: q.mu for b, q in truth.items()})
    for z in latents:
        truth = model.means({b: v.to(model.like) for b, v in z.items()})
        found = means(about, w, {b: v.double().cpu() for b, v in z.items()})
        if wrong := [m for m, value in truth.items() if apart(found[m], value, near)]:
            return f"decoding (of {wrong[0]})"
    return ""


def printed(callback, value) -> tuple[str, list[str]]:
    """What callback(value) prints, displays or raises: its text, and its pictures as PNG in base64."""
    with capture_output() as found:
        try:
            callback(value)
        except Exception:  # whatever a reader's function raises
            traceback.print_exc(limit=-1)
    shown = [out.data for out in found.outputs]
    words = (f"{data.get('text/plain', '')}\n" for data in shown if "image/png" not in data)
    pngs = [data["image/png"] for data in shown if "image/png" in data]  # IPython has them in base64 already, mostly
    pngs = [png if isinstance(png, str) else base64.b64encode(png).decode() for png in pngs]
    return "".join((found.stdout, found.stderr, *words)), pngs

"""Three small explorables: experts and their product, rate against distortion, the pair that four factors make.

Each is a `widgets.Widget`: it moves in a notebook and on the static page. `combine` computes what the page does, for a
reader to check and a test to compare; `rates` computes the tables that the page shows.
"""
import math
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
import traitlets as t
from matplotlib.figure import Figure
from torch import Tensor

from . import plot
from .charts import STYLE, figure
from .data import Pairs
from .gaussian import Gaussian, product_of_experts
from .models import bernoulli_log_likelihood
from .picture import COLOURS, GREY, Picture
from .widgets import Widget, _grid, _keep, _strip

PRESETS = {  # of the experts: mean and standard deviation of each
    "agree": {"I": [0.8, 0.6], "T": [1.4, 0.7], "p": [0.0, 1.0]},
    "disagree": {"I": [-1.6, 0.45], "T": [1.6, 0.45], "p": [0.0, 1.0]},
    "one is overconfident": {"I": [-1.6, 0.7], "T": [1.8, 0.12], "p": [0.0, 1.0]}}
START = {"I": [-1.0, 0.5], "T": [1.5, 0.71], "p": [0.0, 1.0]}  # precisions 4, 2 and 1
WIDTHS = tuple(2 ** (k / 8) for k in range(-24, 25))  # of a posterior, times its own: from 1/8 to 8, eight an octave
EVERY, DRAWS = 4, 3  # at which widths the page has samples, and how many of each


class Explorable(Widget):
    """What all three share. Each trait that a class declares follows the page, and the page follows it."""

    def on_change(self, callback: Callable[[dict], None]) -> None:
        """Call callback({trait: value, ...}) whenever one has changed, there or here."""
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, Explorable)]  # one of them anywidget has made
        names = [name for cls in classes for name in vars(cls) if self.has_trait(name) and name[0] != "_"]
        self.observe(lambda _: callback({name: getattr(self, name) for name in names}), names)


# Experts

class Experts(Explorable):
    """What `experts` returns. values: {"I": [mean, sd], "T": same, "p": same}. prior: whether p is multiplied in."""
    kind = "experts"
    values = t.Dict().tag(sync=True)
    prior = t.Bool(True).tag(sync=True)

    @t.validate("values")
    def _sound(self, proposal):
        return _experts(proposal["value"])


def _experts(values: dict) -> dict[str, list[float]]:
    if not isinstance(values, dict) or set(values) != {"I", "T", "p"}:
        raise ValueError(f'values: found {values}, expected {{"I": [mean, sd], "T": [mean, sd], "p": [mean, sd]}}')
    for name, pair in values.items():
        if len(pair) != 2 or not all(math.isfinite(v) for v in pair) or pair[1] <= 0:
            raise ValueError(f'values["{name}"]: found {pair}, expected a mean and a standard deviation above 0')
    return {name: [float(v) for v in values[name]] for name in ("I", "T", "p")}


def combine(values: dict[str, Sequence[float]], prior: bool = True) -> dict[str, dict]:
    """What two Gaussian experts say together, exactly, in three ways; what the page draws.

    values: {"I": (mean, sd), "T": same, "p": same}, of the experts q_I and q_T and of the prior. prior: whether it is
    multiplied into every product. Returns three dicts, each with "parts", a mixture of Gaussians [(weight, mean, sd), ...],
    and its "mean" and "sd":

    product: Hinton (2002); Wu & Goodman (2018), sec. 2 [eq-poe-gaussian]. Also "shares", {name: share of its precision}.
    mixture: q_I and q_T in equal parts, Shi et al. (2019).
    subsets: the mixture of products of Sutter et al. (2021), in equal parts p, p q_I, p q_T and p q_I q_T, each normalised;
    without the prior q_I, q_T and q_I q_T, since then the product of no expert is no density.

    Raises ValueError for other keys, or a standard deviation that is not positive.
    """
    values, p = _experts(values), "p" * prior
    experts = {name: Gaussian(*torch.tensor([[[mean]], [[2 * math.log(sd)]]], dtype=torch.float64))
               for name, (mean, sd) in values.items()}

    def product(names: str) -> tuple[float, float]:
        q = product_of_experts([experts[name] for name in names], prior=False)  # a general prior is one more expert
        return q.mu.item(), q.precision.item() ** -0.5

    parts = {"product": [product("IT" + p)], "mixture": [values["I"], values["T"]],
             "subsets": [product(names + p) for names in ("", "I", "T", "IT") if names + p]}
    made = {}
    for name, ones in parts.items():
        mean = sum(m for m, _ in ones) / len(ones)
        variance = sum(sd**2 + (m - mean) ** 2 for m, sd in ones) / len(ones)
        made[name] = {"parts": [(1 / len(ones), m, sd) for m, sd in ones], "mean": mean, "sd": variance**0.5}
    made["product"]["shares"] = {name: (made["product"]["sd"] / values[name][1]) ** 2 for name in "IT" + p}
    return made


def density(parts: Sequence[Sequence[float]], z: Tensor) -> Tensor:
    """Of a Gaussian mixture [(weight, mean, sd), ...] at z, of any shape."""
    return sum(w / (sd * math.sqrt(2 * math.pi)) * (-0.5 * ((z - m) / sd) ** 2).exp() for w, m, sd in parts)


def experts(values: dict[str, Sequence[float]] | None = None, prior: bool = True) -> Experts:
    """Two experts and the prior to drag about, with their product and two mixtures: `combine`, drawn.

    values: {"I": (mean, sd), "T": same, "p": same}; default, precisions 4, 2 and 1. prior: whether it is multiplied in.

        curves = experts()
        curves.on_change(print)                    # {"values": {"I": [-1.0, 0.5], ...}, "prior": True} at every move
        curves.values = curves.values | {"T": [1.5, 0.1]}

    Raises ValueError for other keys, or a standard deviation that is not positive.
    """
    values = _experts(values or START)
    caption = ("Two experts, the prior, their product and mixtures. The sharper an expert, the nearer it draws the product. "
               "With JavaScript you can drag them.")
    return Experts(_curves(values, prior), caption, config={"presets": PRESETS}, values=values, prior=prior)


@plt.rc_context(STYLE)
def _curves(values: dict, prior: bool) -> Picture:
    """The still picture of `experts`."""
    fig = Figure(figsize=(7, 3.4), layout="constrained", dpi=100)
    ax, z, made = fig.subplots(), torch.linspace(-4, 4, 201), combine(values, prior)
    for name, colour, line in (("I", COLOURS["I"], "-"), ("T", COLOURS["T"], "-"), ("p", GREY, "--")):
        ax.plot(z, density([(1, *values[name])], z), color=colour, ls=line, label=f"$q_{name}$" if name != "p" else "$p$")
    for name, label, colour, line, width in (("product", "product", COLOURS["S"], "-", 2.6),
                                             ("mixture", "mixture", GREY, ":", 2.0),
                                             ("subsets", "mixture of products", GREY, "-.", 1.4)):
        ax.plot(z, density(made[name]["parts"], z), color=colour, ls=line, lw=width, label=label)
    ax.fill_between(z, density(made["product"]["parts"], z), color=COLOURS["S"], alpha=0.25, lw=0)
    ax.set(xlabel="$z$", yticks=[], ylim=(0, None), xlim=(-4, 4))
    ax.legend(loc="upper left", handlelength=1.8)
    mean, sd = made["product"]["mean"], made["product"]["sd"]
    return figure(fig, f"Two Gaussian experts and the prior over z; their product, at {mean:.2f} with standard deviation "
                       f"{sd:.2f}; their mixture; and the mixture of products.")


# Rate and distortion

class Rate(Explorable):
    """What `rate_distortion` returns. image: the shown one, from 0. width: s. beta: the price of a nat of rate."""
    kind = "rate"
    image = t.Int(0).tag(sync=True)
    width = t.Float(1.0).tag(sync=True)
    beta = t.Float(1.0).tag(sync=True)

    @t.validate("image")
    def _there(self, proposal):
        n = len(self.config["images"])
        if not 0 <= proposal["value"] < n:
            raise ValueError(f"image: found {proposal['value']}, expected 0 to {n - 1}")
        return proposal["value"]

    @t.validate("width", "beta")
    def _positive(self, proposal):
        return _above_0(proposal["trait"].name, proposal["value"])


def _above_0(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: found {value}, expected a number above 0")
    return value


@torch.no_grad()
def rates(model, x: dict[str, Tensor], widths: Sequence[float] = WIDTHS, samples: int = 128, seed: int = 0):
    """Rate and distortion of images as their posterior N(mu, sigma^2) becomes N(mu, (s sigma)^2), in nats.

    model: anything with `posterior(x)` -> {block: Gaussian} and `decode(z)` -> {modality: logits (B, 1, H, W)}. x:
    {modality: (B, 1, H, W) in [0, 1]}, one or several. widths: s. Returns four tensors:

    rate (W, B): R = KL(q || p), exact, without the private block of a modality that is not in x [eq-vae-kl].
    distortion (W, B): D = E_q[-log p(x | z)] of all modalities in x, a mean over `samples` draws with the same noise at
    every width, each with its opposite, so that the curve is smooth [eq-vae-bernoulli]. R + D is the negative ELBO:
    Kingma & Welling (2014), eq. 3 [eq-vae-elbo].
    floor (B,): the entropy of the grey levels, the least that D can be [eq-vae-floor].
    decoded (W, DRAWS, M, B, H, W): what the first draws are decoded to, in [0, 1].

    Raises ValueError for no image, values outside [0, 1], an odd number of samples or fewer than 6, or a width of 0.
    """
    if not x or not all(len(image) and 0 <= image.min() and image.max() <= 1 for image in x.values()):
        raise ValueError(f"x: found { {m: tuple(image.shape) for m, image in x.items()} }, expected images in [0, 1]")
    if samples % 2 or samples < 2 * DRAWS:
        raise ValueError(f"samples: found {samples}, expected an even number, {2 * DRAWS} at least")
    q, generator = model.posterior(x), torch.Generator().manual_seed(seed)
    own = [block for block in q if block in ("S", "Z", *x)]  # another has its prior, and reaches nothing in x
    noise = {b: torch.randn(samples // 2, 1, g.mu.shape[1], generator=generator).to(g.mu) for b, g in q.items()}
    rate, distortion, decoded = [], [], []
    for s in widths:
        log = 2 * math.log(_above_0("widths", s))
        wide = {b: Gaussian(g.mu, g.logvar + log * (b in own)) for b, g in q.items()}
        z = {b: g.mu + (0.5 * g.logvar).exp() * torch.cat([noise[b], -noise[b]]) for b, g in wide.items()}  # (samples, B, D)
        logits = model.decode({b: v.flatten(0, 1) for b, v in z.items()})
        errors = sum(-bernoulli_log_likelihood(logits[m], image.repeat(samples, 1, 1, 1)) for m, image in x.items())
        rate.append(sum(wide[b].kl() for b in own))
        distortion.append(errors.view(samples, -1).mean(0))
        decoded.append(torch.stack([logits[m].unflatten(0, (samples, -1))[:DRAWS, :, 0].sigmoid() for m in x], 1))
    floor = sum((torch.special.entr(image) + torch.special.entr(1 - image)).flatten(1).sum(1) for image in x.values())
    return torch.stack(rate), torch.stack(distortion), floor, torch.stack(decoded)


def rate_distortion(model, x: dict[str, Tensor], beta: float = 1.0, samples: int = 128, seed: int = 0) -> Rate:
    """Rate against distortion of each image as its posterior is made narrower and wider, and what a price beta picks.

    The page draws D above its floor against R along the widths, the line D + beta R = const through the chosen width, and
    the width where D + beta R is least: the curve's slope is -beta there. Higgins et al. (2017) for beta; Alemi et al.
    (2018) for the plane. model, x, samples, seed: as for `rates`; the model also has `size`, the images' side. beta: to
    begin with; a model that was trained with its likelihood weighted w was trained at beta = 1 / w.

        plane = rate_distortion(model, x)                 # x["I"] alone will do, for a model of one modality
        plane.on_change(print)                            # {"image": 0, "width": 1.19, "beta": 1.0} at every move
        plane.beta = 4.0

    Raises ValueError as `rates` does, for images of another size than the model's, or a beta that is not positive.
    """
    for m, image in x.items():
        if image.shape[-1] != model.size:
            raise ValueError(f'rate_distortion: x["{m}"] has {image.shape[-1]} pixels a side, the model {model.size}')
    rate, distortion, floor, decoded = rates(model, x, samples=samples, seed=seed)
    above, assets = distortion - floor, {}
    tiles = [torch.cat([image[:, 0] for image in x.values()]), decoded[::EVERY].flatten(0, 3)]  # as the page counts them
    curves = [{"rate": [round(v, 3) for v in rate[:, k].tolist()], "distortion": [round(v, 2) for v in above[:, k].tolist()],
               "floor": round(floor[k].item(), 2)} for k in range(len(floor))]
    sheet = _strip(torch.cat(tiles).cpu()[:, None], "WEBP")
    config = {"size": model.size, "modalities": list(x), "widths": list(WIDTHS), "every": EVERY, "draws": DRAWS,
              "samples": samples, "images": curves, "sprites": _keep(assets, sheet)}
    caption = (f"Rate and distortion of an image, its posterior from 1/8 to 8 times as wide as it is ({samples} samples). "
               "With JavaScript you can move along the curve, and set beta.")
    return Rate(_plane(curves[0], _above_0("beta", beta)), caption, assets, config=config, beta=beta)


@plt.rc_context(STYLE)
def _plane(curve: dict, beta: float) -> Picture:
    """The still picture of `rate_distortion`."""
    fig = Figure(figsize=(7, 3.6), layout="constrained", dpi=100)
    ax, R, D = fig.subplots(), curve["rate"], curve["distortion"]
    costs = [d + beta * r for r, d in zip(R, D)]
    best = costs.index(min(costs))
    ax.plot(R, D, color=GREY, lw=2.6)
    ax.axline((R[best], D[best]), slope=-beta, color=GREY, ls="--", lw=1.2)
    for k in range(0, len(WIDTHS), 8):
        ax.plot(R[k], D[k], "o", color=GREY)
        ax.annotate(f"{WIDTHS[k]:g}", (R[k], D[k]), (5, 5), textcoords="offset points")
    ax.plot(R[best], D[best], "D", color=GREY, ms=10, label=f"least D + {beta:g} R: s = {WIDTHS[best]:.2f}")
    ax.set(xlabel="rate $R$, nats", ylabel="distortion $D$ above the floor, nats", xlim=(0, None), ylim=(0, 2.4 * min(D)))
    ax.legend(loc="upper right")
    return figure(fig, f"Distortion against rate, a curve along the widths s. A dashed line of slope -{beta:g} touches it "
                       f"at s = {WIDTHS[best]:.2f}: rate {R[best]:.1f}, distortion {D[best]:.1f} nats above the floor.")


# Faces

class Faces(Explorable):
    """What `faces` returns. factors: {factor: index of its value}, "identity", "azimuth", "elevation", "light"."""
    kind = "faces"
    factors = t.Dict().tag(sync=True)

    @t.validate("factors")
    def _there(self, proposal):
        found, words = proposal["value"], self.config["factors"]
        if set(found) != set(words) or not all(found[f] in range(len(words[f])) for f in words):
            raise ValueError(f"factors: found {found}, expected below { {f: len(words[f]) for f in words} }")
        return found


def faces(*pairs: Pairs) -> Faces:
    """The four factors of a pair, and the two pictures that they make: elevation moves x_I alone, light x_T alone.

    pairs: one `Pairs`, or several of one size, for instance both splits: the first three people of each.

        heads = faces(pairs)
        heads.factors = heads.factors | {"light": 0}

    Raises ValueError for no pairs, or for different sizes.
    """
    sizes = {p.size for p in pairs}
    if len(sizes) != 1:
        raise ValueError(f"faces: found {len(pairs)} Pairs of sizes {sorted(sizes)}, expected at least one, of one size")
    x, factors = pairs[0].fixed(3)
    assets, (words, at, sheet) = {}, _grid(pairs, factors, 3, pairs[0].size)
    config = {"size": pairs[0].size, "factors": words, "pairs": at, "sprites": _keep(assets, sheet)}
    caption = ("Above xI, below xT. What is the same in both is shared: the person, and the way the head turns. "
               "With JavaScript there are sliders here.")
    still = plot.pairs(x, factors, "°" if pairs[0].unit == "degrees" else "")
    return Faces(still, caption, assets, config=config, factors=at[0])

"""Small explorables: experts and their product, rate against distortion.

Each is a `widgets.Widget`: it moves in a notebook and on the static page. `combine` computes what the page does, for a
reader to check and a test to compare; `rates` computes the tables that the page shows.
"""
import math
from collections.abc import Callable, Sequence
from itertools import combinations

import matplotlib.pyplot as plt
import torch
import traitlets as t
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluate.likelihood import grey_entropy
from ..gaussian import Gaussian, draw, product_of_experts
from ..likelihoods import Bernoulli, Laplace, Normal
from .charts import STYLE, figure
from .labels import GREY, colours
from .page import quiet, there
from .picture import Picture
from .views import inks, strip
from .widgets import Widget, keep

PRIOR = (0.0, 1.0)  # mean and standard deviation
PRESETS = {  # of two experts: mean and standard deviation of each
    "agree": ((0.8, 0.6), (1.4, 0.7)), "disagree": ((-1.6, 0.45), (1.6, 0.45)),
    "one is overconfident": ((-1.6, 0.7), (1.8, 0.12))}
START = (-1.0, 0.5), (1.5, 0.71)  # precisions 4 and 2; the prior's is 1
WIDTHS = tuple(2 ** (k / 8) for k in range(-24, 25))  # of a posterior, times its own: from 1/8 to 8, eight an octave
EVERY, DRAWS = 4, 3  # at which widths the page has samples, and how many of each


class Explorable(Widget):
    """What they share. Each trait that a class declares follows the page, and the page follows it."""

    def on_change(self, callback: Callable[[dict], None]) -> None:
        """Call callback({trait: value, ...}) when one has changed, there or here; what it prints for there is shown there."""
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, Explorable)]  # one of them anywidget has made
        names = [name for cls in classes for name in vars(cls) if self.has_trait(name) and name[0] != "_"]
        self.observe(lambda _: self.tell(callback, {name: getattr(self, name) for name in names}), names)


def within(name: str, value: float, low: float, high: float) -> float:
    """The value, if it lies there; else ValueError."""
    if not low <= value <= high:
        raise ValueError(f"{name}: found {value}, expected a number from {low:g} to {high:g}")
    return value


# Experts

class Experts(Explorable):
    """What `experts` returns. values: {expert: [mean, sd], ..., "p": same}. prior: whether p is multiplied in."""
    kind = "experts"
    room = 1094, 918, 831
    values = t.Dict().tag(sync=True)
    prior = t.Bool(True).tag(sync=True)

    @t.validate("values")
    def _sound(self, proposal):
        return _experts(proposal["value"], self.values)


def _experts(values: dict, like: dict | None = None) -> dict[str, list[float]]:
    """As lists of floats, the prior last. like: values of the same experts, if there are some."""
    names = [name for name in values if name != "p"] if isinstance(values, dict) else []
    if len(names) < 2 or "p" not in values or like and set(like) != set(values):
        expected = ", ".join(f'"{name}": [mean, sd]' for name in like or ("one", "another", "p"))
        raise ValueError(f"values: found {values}, expected {{{expected}}}")
    for name, pair in values.items():
        if len(pair) != 2 or not all(math.isfinite(v) for v in pair) or pair[1] <= 0:
            raise ValueError(f'values["{name}"]: found {pair}, expected a mean and a standard deviation above 0')
    return {name: [float(v) for v in values[name]] for name in (*names, "p")}


def combine(values: dict[str, Sequence[float]], prior: bool = True) -> dict[str, dict]:
    """What Gaussian experts say together, exactly, in three ways; what the page draws.

    values: {expert: (mean, sd), ..., "p": same}, of two experts or more, and of the prior. prior: whether it is multiplied
    into every product. Returns three dicts, each with "parts", a mixture of Gaussians [(weight, mean, sd), ...], and its
    "mean" and "sd":

    product: Hinton (2002); Wu & Goodman (2018), sec. 2 [eq-poe-gaussian]. Also "shares", {name: share of its precision}.
    mixture: the experts in equal parts, Shi et al. (2019).
    subsets: the mixture of products of Sutter et al. (2021), in equal parts p and p times each set of the experts, each
    normalised; without the prior one part less, since then the product of no expert is no density.

    Raises ValueError for fewer experts, no "p", or a standard deviation that is not positive.
    """
    values, p = _experts(values), ("p",) * prior
    names = [name for name in values if name != "p"]
    experts = {name: Gaussian(*torch.tensor([[[mean]], [[2 * math.log(sd)]]], dtype=torch.float64))
               for name, (mean, sd) in values.items()}

    def product(names: Sequence[str]) -> tuple[float, float]:
        q = product_of_experts([experts[name] for name in names], prior=False)  # a general prior is one more expert
        return q.mu.item(), q.precision.item() ** -0.5

    some = [(*those, *p) for n in range(len(names) + 1) for those in combinations(names, n)]
    parts = {"product": [product((*names, *p))], "mixture": [values[name] for name in names],
             "subsets": [product(those) for those in some if those]}
    made = {}
    for name, ones in parts.items():
        mean = sum(m for m, _ in ones) / len(ones)
        variance = sum(sd**2 + (m - mean) ** 2 for m, sd in ones) / len(ones)
        made[name] = {"parts": [(1 / len(ones), m, sd) for m, sd in ones], "mean": mean, "sd": variance**0.5}
    made["product"]["shares"] = {name: (made["product"]["sd"] / values[name][1]) ** 2 for name in (*names, *p)}
    return made


def density(parts: Sequence[Sequence[float]], z: Tensor) -> Tensor:
    """Of a Gaussian mixture [(weight, mean, sd), ...] at z, of any shape."""
    return sum(w / (sd * math.sqrt(2 * math.pi)) * (-0.5 * ((z - m) / sd) ** 2).exp() for w, m, sd in parts)


def experts(values: dict[str, Sequence[float]] | None = None, prior: bool = True,
            names: tuple[str, str] = ("1", "2")) -> Experts:
    """Experts and the prior to drag about, with their product and two mixtures: `combine`, drawn.

    values: {expert: (mean, sd), ..., "p": same}; default, two experts of these names, precisions 4, 2, and 1 of the prior.
    prior: whether it is multiplied in.

        curves = experts(names=("I", "T"))
        curves.on_change(print)                    # {"values": {"I": [-1.0, 0.5], ...}, "prior": True} at every move
        curves.values = curves.values | {"T": [1.5, 0.1]}

    Raises ValueError for fewer than two experts, or a standard deviation that is not positive.
    """
    values = _experts(values or dict(zip(names, START, strict=True)) | {"p": PRIOR})
    who = [name for name in values if name != "p"]
    presets = {k: {name: list(v) for name, v in zip((*who, "p"), (*pairs, PRIOR))} for k, pairs in PRESETS.items()}
    tints = {name: inks(c) for name, c in colours(who).items()} | {"product": inks(colours("S")["S"])}
    caption = ("Experts, the prior, their product and mixtures. The sharper an expert, the nearer it draws the product. "
               "With JavaScript you can drag them.")
    config = {"presets": presets if len(who) == 2 else {}, "colours": tints}
    return Experts(_curves(values, prior), caption, config=config, values=values, prior=prior)


@plt.rc_context(STYLE)
def _curves(values: dict, prior: bool) -> Picture:
    """The still picture of `experts`."""
    fig = Figure(figsize=(7, 3.4), layout="constrained", dpi=100)
    ax, z, made, green = fig.subplots(), torch.linspace(-4, 4, 201), combine(values, prior), colours("S")["S"]
    for name, colour in (colours([n for n in values if n != "p"]) | {"p": GREY}).items():
        ax.plot(z, density([(1, *values[name])], z), color=colour, ls="--" if name == "p" else "-",
                label="$p$" if name == "p" else rf"$q_\mathrm{{{name}}}$" if name.isalnum() else name)
    for name, label, colour, line, width in (("product", "product", green, "-", 2.6), ("mixture", "mixture", GREY, ":", 2.0),
                                             ("subsets", "mixture of products", GREY, "-.", 1.4)):
        ax.plot(z, density(made[name]["parts"], z), color=colour, ls=line, lw=width, label=label)
    ax.fill_between(z, density(made["product"]["parts"], z), color=green, alpha=0.25, lw=0)
    ax.set(xlabel="$z$", yticks=[], ylim=(0, None), xlim=(-4, 4))
    ax.legend(loc="upper left", handlelength=1.8)
    mean, sd = made["product"]["mean"], made["product"]["sd"]
    many = {2: "Two", 3: "Three"}.get(len(values) - 1, str(len(values) - 1))
    return figure(fig, f"{many} Gaussian experts and the prior over z; their product, at {mean:.2f} with standard deviation "
                       f"{sd:.2f}; their mixture; and the mixture of products.")


# Rate and distortion

class Rate(Explorable):
    """What `rate_distortion` returns. image: the shown one, from 0. width: s. beta: the price of a nat of rate."""
    kind = "rate"
    image = t.Int(0).tag(sync=True)
    width = t.Float(1.0).tag(sync=True)
    beta = t.Float(1.0).tag(sync=True)

    @property
    def room(self) -> tuple[int, int, int]:
        """The height that is kept for it: tiles of each modality below the plot."""
        n = len(self.config["modalities"])
        return 901 + 70 * n, 571 + 134 * n, 571 + 134 * n

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


def rates(model, x: dict[str, Tensor], widths: Sequence[float] = WIDTHS, samples: int = 128, seed: int = 0):
    """Rate and distortion of pictures as their posterior N(mu, sigma^2) becomes N(mu, (s sigma)^2), in nats.

    model: as of `mmvae.MultiModalVAE`, with Gaussian posteriors. x: {modality: (B, C, H, W)}, one or several, each with a
    Bernoulli, Normal or Laplace likelihood. widths: s. Returns four:

    rate (W, B): R = KL(q || p), exact, without the private block of a modality that is not in x [eq-vae-kl].
    distortion (W, B): D = E_q[-log p(x | z)] of all modalities in x, a mean over `samples` draws with the same noise at
    every width, each with its opposite, so that the curve is smooth [eq-vae-bernoulli]. R + D is the negative ELBO:
    Kingma & Welling (2014), eq. 3 [eq-vae-elbo].
    floor (B,): the least that D can be: the entropy of the grey levels, or what a decoder costs that says x [eq-vae-floor].
    decoded (W, DRAWS, B, ...) each, {modality: what the first draws are decoded to}.

    Raises ValueError for no picture, what the model does not take, an odd number of samples or fewer than 6, or a width of
    0; TypeError for posteriors and likelihoods of another kind.
    """
    if not x or not all(image.dim() == 4 and len(image) for image in x.values()):
        found = {m: tuple(image.shape) for m, image in x.items()}
        raise ValueError(f"x: found {found}, expected pictures, (B, C, H, W) each")
    if samples % 2 or samples < 2 * DRAWS:
        raise ValueError(f"samples: found {samples}, expected an even number, {2 * DRAWS} at least")
    x, generator = there(model, x), torch.Generator().manual_seed(seed)
    with quiet(model):
        q, floor = model.posterior(x), sum(_floor(m, model.likelihood(m), image) for m, image in x.items())
        if wrong := [b for b, g in q.items() if not isinstance(g, Gaussian)]:
            raise TypeError(f"posterior: found a {type(q[wrong[0]]).__name__} in block {wrong[0]}, expected a Gaussian")
        own = [b for b in q if b not in model.modalities or b in x]  # another has its prior, and reaches nothing in x
        noise = {b: draw(g.mu.expand(samples // 2, *g.mu.shape), generator) for b, g in q.items()}
        rate, distortion, decoded = [], [], []
        for s in widths:
            log = 2 * math.log(_above_0("widths", s))
            wide = {b: Gaussian(g.mu, g.logvar + log * (b in own)) for b, g in q.items()}
            z = {b: g.mu + (0.5 * g.logvar).exp() * torch.cat([noise[b], -noise[b]])  # (samples, B, D)
                 for b, g in wide.items()}
            output = model.decode({b: v.flatten(0, 1) for b, v in z.items()}, tuple(x))
            errors = sum(-model.likelihood(m).log_prob(output[m], image.repeat(samples, 1, 1, 1))
                         for m, image in x.items())
            rate.append(sum(wide[b].kl() for b in own))
            distortion.append(errors.view(samples, -1).mean(0))
            decoded.append({m: model.likelihood(m).mean(output[m]).unflatten(0, (samples, -1))[:DRAWS] for m in x})
    return torch.stack(rate), torch.stack(distortion), floor, {m: torch.stack([d[m] for d in decoded]) for m in x}


def _floor(m: str, like, x: Tensor) -> Tensor:
    """The least distortion of x (B, C, H, W): (B,), nats."""
    if isinstance(like, Bernoulli):
        return grey_entropy(x)
    if isinstance(like, (Normal, Laplace)):
        return -like.log_prob(x, x)
    raise TypeError(f'likelihood of "{m}": found {type(like).__name__}, expected Bernoulli, Normal or Laplace')


def rate_distortion(model, x: dict[str, Tensor], beta: float = 1.0, samples: int = 128, seed: int = 0) -> Rate:
    """Rate against distortion of each row as its posterior is made narrower and wider, and what a price beta picks.

    The page draws D above its floor against R along the widths, the line D + beta R = const through the chosen width, and
    the width where D + beta R is least: the curve's slope is -beta there. Higgins et al. (2017) for beta; Alemi et al.
    (2018) for the plane. model, x, samples, seed: as for `rates`; all pictures of one square size, and grey. beta: to
    begin with; a model that was trained with its likelihood weighted w was trained at beta = 1 / w.

        plane = rate_distortion(model, x)                 # x["I"] alone will do, where the model can see it alone
        plane.on_change(print)                            # {"image": 0, "width": 1.19, "beta": 1.0} at every move
        plane.beta = 4.0

    Raises as `rates` does, ValueError also for other pictures, or a beta that is not positive.
    """
    sizes = {tuple(image.shape[1:]) for image in x.values() if image.dim() == 4}
    if len(sizes) > 1 or any(c != 1 or h != w for c, h, w in sizes):
        raise ValueError(f"rate_distortion: found pictures of {sorted(sizes)}, expected grey squares of one size")
    rate, distortion, floor, decoded = rates(model, x, samples=samples, seed=seed)
    above, assets, size = distortion - floor, {}, sizes.pop()[-1]
    shown = torch.stack([v[::EVERY] for v in decoded.values()], 2)  # (widths, DRAWS, M, B, 1, size, size)
    tiles = [torch.cat([image.cpu() for image in x.values()]), shown.flatten(0, 3).cpu()]  # as the page counts them
    curves = [{"rate": [round(v, 3) for v in rate[:, k].tolist()], "distortion": [round(v, 2) for v in above[:, k].tolist()],
               "floor": round(floor[k].item(), 2)} for k in range(len(floor))]
    sheet = strip(torch.cat([tile.float() for tile in tiles]).clamp(0, 1), "WEBP")
    config = {"size": size, "modalities": list(x), "widths": list(WIDTHS), "every": EVERY, "draws": DRAWS,
              "samples": samples, "images": curves, "sprites": keep(assets, sheet)}
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

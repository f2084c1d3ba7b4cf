"""An explorable: one dial from product to mixture, the power mean of two experts, beside what is exact for them.

`Pools` moves in a notebook and on the static page, as all of `explorables` do; `summary` computes what the page says, for a
reader to check and a test to compare.
"""
import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
import traitlets as t
from matplotlib.figure import Figure
from torch import Tensor

from ..gaussian import Gaussian
from ..pooling import consensus_of_experts
from .charts import STYLE, figure
from .explorables import Explorable, density, within
from .labels import GREY, colours
from .picture import Picture
from .views import inks

START = (-0.7, 0.5), (0.9, 0.7)  # mean and standard deviation of two experts
PRESETS = {"agree": ((0.3, 0.6), (0.7, 0.7)), "disagree": ((-1.6, 0.45), (1.6, 0.45)),
           "one is far surer": ((-0.9, 0.8), (1.0, 0.2))}
PLACES = {"geometric mean": 0.0, "Hellinger": 0.5, "mixture": 1.0}  # of alpha
REACH, STEPS = 8.0, 1600  # the grid: z from -8 to 8


class Pools(Explorable):
    """What `pools` returns. values: {expert: [mean, sd], ...}, two of them. alpha: the dial, 0 to 1. rho: of the
    consensus."""
    kind = "pools"
    room = 1069, 840, 783
    values = t.Dict().tag(sync=True)
    alpha = t.Float(0.5).tag(sync=True)
    rho = t.Float(0.5).tag(sync=True)

    @t.validate("values")
    def _sound(self, proposal):
        return _two(proposal["value"], self.values)

    @t.validate("alpha", "rho")
    def _part(self, proposal):
        return _within(proposal["trait"].name, proposal["value"])


def _two(values: dict, like: dict | None = None) -> dict[str, list[float]]:
    if not isinstance(values, dict) or len(values) != 2 or like and set(like) != set(values):
        raise ValueError(f"values: found {values}, expected {{expert: [mean, sd]}} of {', '.join(like or ('two experts',))}")
    for name, pair in values.items():
        if len(pair) != 2 or not all(math.isfinite(v) for v in pair) or not 0 < pair[1] < 1:
            raise ValueError(f'values["{name}"]: found {pair}, expected a mean and a standard deviation above 0 and '
                             "below the prior's, 1")
    return {name: [float(v) for v in pair] for name, pair in values.items()}


def _within(name: str, value: float) -> float:
    return within(name, value, 0, 1.0 if name == "alpha" else 0.95)


def power_mean(values: dict[str, Sequence[float]], alpha: float) -> tuple[Tensor, Tensor]:
    """The normalised power mean ((q_1^alpha + q_2^alpha) / 2)^(1 / alpha) of two Gaussians on a grid: z and its density, (N,)
    each, float64 [eq-frontier-power]. alpha = 1 is the mixture, 1/2 the Hölder pool of `mmvae.hoelder_pool`, and 0 the
    geometric mean: the product of experts, with half of each one's say. Raises ValueError for other values than of
    `Pools`."""
    values, alpha = _two(values), _within("alpha", alpha)
    z = torch.linspace(-REACH, REACH, STEPS + 1, dtype=torch.float64)
    logs = torch.stack([density([(1, *pair)], z).clamp(min=1e-300).log() for pair in values.values()])
    log = logs.mean(0) if alpha < 1e-3 else ((alpha * logs).logsumexp(0) - math.log(2)) / alpha
    return z, log.softmax(0) / (z[1] - z[0])


def calibrated(values: dict[str, Sequence[float]]) -> float:
    """The correlation at which the consensus of two exact posteriors is as sure as the exact posterior given both: with their
    precisions l_1 and l_2, (sqrt(l_1 l_2) - sqrt((l_1 - 1) (l_2 - 1))) / (l_1 + l_2 - 1) [eq-frontier-calibrated]."""
    one, two = (sd ** -2 for _, sd in _two(values).values())
    return (math.sqrt(one * two) - math.sqrt((one - 1) * (two - 1))) / (one + two - 1)


def summary(values: dict[str, Sequence[float]], alpha: float, rho: float) -> dict[str, tuple[float, float, float]]:
    """{"pool", "consensus", "exact": (mean, standard deviation, KL from the exact one in nats)}, what the page's table says.

    exact: the experts are read as exact posteriors of z ~ N(0, 1), of one picture each, which are independent given z, as
    those of a linear-Gaussian pair are: given both, the product divided by the prior once [eq-poe-bayes]. Raises as
    `power_mean` does.
    """
    z, pool = power_mean(values, alpha)
    weight = pool * (z[1] - z[0])
    experts = [Gaussian(*torch.tensor([[[mean]], [[2 * math.log(sd)]]], dtype=torch.float64)) for mean, sd in values.values()]
    both = consensus_of_experts(experts, _within("rho", rho))
    precision = sum(e.precision for e in experts) - 1
    exact = Gaussian(sum(e.precision * e.mu for e in experts) / precision, -precision.log())
    mean = (weight * z).sum()
    p = exact.log_prob(z.unsqueeze(1))
    far = (p.exp() * (p - pool.clamp(min=1e-300).log())).sum() * (z[1] - z[0])
    return {"pool": (mean.item(), (weight * (z - mean).square()).sum().sqrt().item(), far.item()),
            "consensus": (both.mu.item(), both.precision.item() ** -0.5, exact.kl(both).item()),
            "exact": (exact.mu.item(), precision.item() ** -0.5, 0.0)}


def pools(values: dict[str, Sequence[float]] | None = None, alpha: float = 0.5, rho: float = 0.5,
          names: tuple[str, str] = ("1", "2")) -> Pools:
    """Two experts to drag about and a dial between their product and their mixture; beside it the consensus of dependent
    experts and the exact posterior: `summary`, drawn.

    values: {expert: (mean, sd)}, two, with standard deviations below the prior's, 1. alpha: the dial; rho: of the consensus.

        dial = pools(names=("I", "T"))
        dial.on_change(print)                      # {"values": {...}, "alpha": 0.5, "rho": 0.5} at every move
        dial.alpha = 1.0

    Raises ValueError for another number of experts, a standard deviation that is not between 0 and 1, an alpha or rho beyond.
    """
    values = _two(values or dict(zip(names, START, strict=True)))
    presets = {k: dict(zip(values, map(list, pairs))) for k, pairs in PRESETS.items()}
    tints = {name: inks(c) for name, c in colours(list(values)).items()} | {"pool": inks(colours("S")["S"])}
    caption = ("Two experts, and what a dial makes of them: their geometric mean, their mixture, and what is in between. "
               "With JavaScript you can turn it.")
    config = {"presets": presets, "places": PLACES, "colours": tints, "reach": REACH, "steps": STEPS}
    return Pools(_still(values, alpha, rho), caption, config=config, values=values, alpha=alpha, rho=rho)


@plt.rc_context(STYLE)
def _still(values: dict, alpha: float, rho: float) -> Picture:
    """The still picture of `pools`."""
    fig = Figure(figsize=(7, 3.4), layout="constrained", dpi=100)
    ax, found, green = fig.subplots(), summary(values, alpha, rho), colours("S")["S"]
    z, pool = power_mean(values, alpha)
    for name, colour in colours(list(values)).items():
        label = rf"$q_\mathrm{{{name}}}$" if name.isalnum() else name
        ax.plot(z, density([(1, *values[name])], z), color=colour, label=label)
    ax.plot(z, pool, color=green, lw=2.6, label=rf"pool, $\alpha$ = {alpha:g}")
    ax.fill_between(z, pool, color=green, alpha=0.25, lw=0)
    for name, line, what in (("consensus", "-.", rf"consensus, $\rho$ = {rho:g}"), ("exact", ":", "exact")):
        ax.plot(z, density([(1, *found[name][:2])], z), color=GREY, ls=line, label=what)
    ax.set(xlabel="$z$", yticks=[], ylim=(0, None), xlim=(-4, 4))
    ax.legend(loc="upper left", handlelength=1.8)
    return figure(fig, f"Two experts over z; their power mean at alpha = {alpha:g}, at {found['pool'][0]:.2f} with standard "
                       f"deviation {found['pool'][1]:.2f}; the consensus at rho = {rho:g}; and the exact posterior, with "
                       f"{found['exact'][1]:.2f}.")

"""An explorable: a private factor turned into a spare shared latent, which no ELBO sees and the gap does.

The world is the smallest with a private, a shared and a spare latent: two pictures of three numbers, linear and Gaussian, so
that all is a formula. `summary` computes what the page draws, for a reader to check and a test to compare.
"""
import math

import matplotlib.pyplot as plt
import traitlets as t
from matplotlib.figure import Figure

from .charts import STYLE, figure
from .explorables import Explorable, within
from .labels import GREY, colours
from .picture import Picture
from .views import inks

SIZE, NOISE, SHARED = 3, 0.5, 8.0  # numbers of a picture; their noise; how sharply either picture tells the shared latent
MOST = {"angle": (0.0, 90.0), "sharpness": (1.0, 9.0), "weight": (0.0, 10.0)}


class Spare(Explorable):
    """What `spare` returns. angle: how far the private factor is turned, degrees. sharpness: how sharply its picture tells
    it. weight: of the gap in the loss. diagonal: whether posteriors are the nearest diagonal ones, or exact."""
    kind = "spare"
    room = 920, 755, 735
    angle = t.Float(0.0).tag(sync=True)
    sharpness = t.Float(4.0).tag(sync=True)
    weight = t.Float(0.0).tag(sync=True)
    diagonal = t.Bool(False).tag(sync=True)

    @t.validate("angle", "sharpness", "weight")
    def _part(self, proposal):
        return _within(proposal["trait"].name, proposal["value"])


def _within(name: str, value: float) -> float:
    return within(name, value, *MOST[name])


def summary(angle: float, sharpness: float = 4.0, weight: float = 0.0, diagonal: bool = False) -> dict[str, float]:
    """What the models of one likelihood say as the private latent of the first picture turns into a spare shared one.

    angle: degrees; 0 at home, 90 moved. sharpness: r, the squared length of the latent's column over the variance of the
    noise. Returns nats a row: "first", "second", "both", the ELBOs of either picture and of the pair [eq-oracle-likelihood],
    less what a diagonal posterior lacks [eq-ask-oracle-barrier]; "gap", KL(q_both || q_m) on the shared block, summed over
    the two [eq-oracle-told], [eq-oracle-charge]; "loss", minus the three ELBOs plus weight times the gap, less its value at
    home. Raises ValueError for a value outside of MOST.
    """
    r, turned = _within("sharpness", sharpness), math.sin(math.radians(_within("angle", angle))) ** 2
    at_home = {"first": (1 + r) * (1 + SHARED), "second": (1 + r) * (1 + SHARED), "both": (1 + r) ** 2 * (1 + 2 * SHARED)}
    constant = SIZE * math.log(2 * math.pi * math.e * NOISE ** 2)
    lacks, charge = 0.0, 0.5 * math.log((1 + r) / (1 + r * (1 - turned)))
    if diagonal:
        lacks = 0.5 * math.log((1 + r * (1 - turned)) * (1 + r * turned) / (1 + r))
        charge = 0.5 * (1 / (1 + r * turned) + r * turned / (1 + r) - 1 + math.log(1 + r * turned))
    made = {name: -0.5 * ((1 + (name == "both")) * constant + math.log(volume)) - lacks * (name != "second")
            for name, volume in at_home.items()}
    loss = 2 * lacks + _within("weight", weight) * charge
    return made | {"gap": math.log((1 + 2 * SHARED) / (1 + SHARED)) + charge, "loss": loss}


def spare(angle: float = 0.0, sharpness: float = 4.0, weight: float = 0.0, diagonal: bool = False,
          names: tuple[str, str] = ("1", "2")) -> Spare:
    """A private factor of the first picture to turn into a spare shared latent: the ELBOs of {1}, {2} and {1, 2} as bars, the
    gap beside them, and the loss with a weight on the gap along the way: `summary`, drawn.

    names: of the two modalities. The others: as for `summary`, to begin with.

        turn = spare(names=("I", "T"))
        turn.on_change(print)                      # {"angle": 30.0, "sharpness": 4.0, "weight": 0.0, "diagonal": False}
        turn.angle = 90.0

    Raises ValueError for a value outside of MOST.
    """
    one, two = names
    tints = {name: inks(c) for name, c in colours([*names, "S"]).items()}
    caption = ("A private factor turned into a spare shared latent: the ELBOs stay, the gap grows. With JavaScript you can "
               "turn it.")
    config = {"names": [one, two], "colours": tints, "most": MOST, "size": SIZE, "noise": NOISE, "shared": SHARED}
    return Spare(_still(names, angle, sharpness, weight, diagonal), caption, config=config, angle=angle, sharpness=sharpness,
                 weight=weight, diagonal=diagonal)


@plt.rc_context(STYLE)
def _still(names: tuple[str, str], angle: float, sharpness: float, weight: float, diagonal: bool) -> Picture:
    """The still picture of `spare`: the bars at home, half way and moved."""
    fig = Figure(figsize=(7, 3.0), layout="constrained", dpi=100)
    one, two = names
    labels = {"first": f"{{{one}}}", "second": f"{{{two}}}", "both": f"{{{one}, {two}}}", "gap": "gap"}
    found = {}
    for ax, at in zip(fig.subplots(1, 3, sharex=True, sharey=True), (0.0, 45.0, 90.0)):
        made = found[at] = summary(at, sharpness, weight, diagonal)
        for row, name in enumerate(labels):
            ax.barh(row, abs(made[name]), height=0.6, color=colours("S")["S"] if name == "gap" else GREY)
            ax.text(abs(made[name]) + 0.2, row, f"{abs(made[name]):.2f}", va="center")
        ax.set(title={0.0: "at home", 45.0: "half way", 90.0: "moved"}[at], xlabel="nats", xlim=(0, 10.5))
        ax.set_yticks(range(len(labels)), [f"\N{MINUS SIGN}ELBO {v}" if k != "gap" else v for k, v in labels.items()])
        ax.invert_yaxis()
    fig.axes[0].set_ylim(3.5, -0.5)
    elbos = ", ".join(f"{-found[0.0][k]:.2f}" for k in ("first", "second", "both"))
    return figure(fig, "Bars at home, half way and moved: minus the ELBOs of either picture and of the pair, "
                       f"{elbos} nats at home; the gap grows from {found[0.0]['gap']:.2f} to {found[90.0]['gap']:.2f} nats.")

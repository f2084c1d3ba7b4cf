"""The explorable of the experiment's own data: the pair that four factors make."""
import traitlets as t

from ..faces import HOME, Pairs
from ..show import plot
from ..show.explorables import Explorable
from ..show.labels import colours
from ..show.views import Faces as Grid
from ..show.views import inks
from ..show.widgets import keep


class Faces(Explorable):
    """What `faces` returns. factors: {factor: index of its value}, "identity", "azimuth", "elevation", "light"."""
    kind = "faces"
    room = 563, 395, 421
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
    assets, grid = {}, Grid(pairs)
    at = grid.nearest(factors)
    config = {"size": pairs[0].size, "factors": grid.words, "axes": grid.axes, "owners": grid.owners, "pairs": at,
              "sprites": keep(assets, grid.sheet()), "colours": {b: inks(c) for b, c in colours([*grid.axes, "S"]).items()}}
    caption = ("Above xI, below xT. What is the same in both is shared: the person, and the way the head turns. "
               "With JavaScript there are sliders here.")
    still = plot.pairs(x, factors, HOME, "°" if pairs[0].unit == "degrees" else "")
    return Faces(still, caption, assets, config=config, factors=at[0])

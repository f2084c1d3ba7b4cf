"""Sliders for a live kernel: move a latent, or a factor, and see both images."""
import io

import ipywidgets as w
import torch
from PIL import Image
from torch import Tensor

from .picture import COLOURS, RETINA

SPAN = 3.0  # a slider's ends, in standard deviations of the prior


class Traversal(w.VBox):
    """What `traversal` returns. sliders: {block: [FloatSlider, ...]}; pictures: {"I": Image, "T": Image}."""

    def __init__(self, model, x: dict[str, Tensor], height: int = 256):
        self.model, self.quiet = model.eval(), False
        with torch.no_grad():
            self.means = {block: q.mu.cpu() for block, q in model.posterior(x).items()}  # (B, D)
        self.pictures, images = _pictures(x["I"].shape[-1], height)
        self.sliders = {block: [self._slider(block, k) for k in range(dim)]
                        for block, dim in model.blocks.items() if dim}
        self.pair = w.ToggleButtons(options=[(f"pair {k + 1}", k) for k in range(len(x["I"]))],
                                    style={"button_width": "5em"})
        self.prior = w.Button(description="sample from the prior", layout=w.Layout(width="auto"))
        self.reset = w.Button(description="reset", layout=w.Layout(width="auto"))
        self.pair.observe(lambda _: self._back(), "value")
        self.prior.on_click(lambda _: self._set({b: torch.randn(len(s)) for b, s in self.sliders.items()}))
        self.reset.on_click(lambda _: self._back())
        self._back()
        groups = [w.VBox([_title("z" if b == "Z" else f"z<sub>{b}</sub>", COLOURS[b]), *sliders])
                  for b, sliders in self.sliders.items()]
        flow = w.Layout(flex_flow="row wrap")  # narrow screens put the sliders under the images
        super().__init__([w.HBox([self.pair, self.prior, self.reset], layout=flow),
                          w.HBox([images, w.VBox(groups)], layout=flow)])

    def _slider(self, block: str, k: int) -> w.FloatSlider:
        slider = w.FloatSlider(min=-SPAN, max=SPAN, step=0.05, description=str(k + 1), readout_format="+.2f",
                               style={"handle_color": COLOURS[block], "description_width": "1.5em"})
        reaches = "IT" if block in "SZ" else block
        slider.observe(lambda _: None if self.quiet else self._show(reaches), "value")
        return slider

    def _back(self) -> None:
        """Every slider to the posterior mean of the chosen pair."""
        self._set({block: mu[self.pair.value] for block, mu in self.means.items()})

    def _set(self, z: dict[str, Tensor]) -> None:
        """Move all sliders, then decode once."""
        self.quiet = True
        for block, sliders in self.sliders.items():
            for slider, value in zip(sliders, z[block].tolist()):
                slider.min, slider.max = min(-SPAN, value), max(SPAN, value)  # a posterior may lie far out
                slider.value = value
        self.quiet = False
        self._show("IT")

    @torch.no_grad()
    def _show(self, modalities: str) -> None:
        """Decode only what has changed: a private block belongs to one image."""
        parameter = next(self.model.parameters())
        z = {block: parameter.new_tensor([[s.value for s in self.sliders.get(block, ())]])  # (1, D)
             for block in self.model.blocks}
        for m, logits in self.model.decode(z, modalities).items():
            self.pictures[m].value = _png(logits[0, 0].sigmoid(), self.pictures[m])


def _pictures(size: int, height: int) -> tuple[dict[str, w.Image], w.HBox]:
    """xI and xT, images of size x size pixels magnified by a whole number to about height, and their row."""
    side = max(1, height // size) * size
    pictures = {m: w.Image(format="png", width=side, height=side) for m in "IT"}
    return pictures, w.HBox([w.VBox([_title(f"x<sub>{m}</sub>"), p]) for m, p in pictures.items()])


def _png(image: Tensor, picture: w.Image) -> bytes:
    """(h, w) in [0, 1] -> a PNG, each pixel a square, at RETINA times the picture's size: sharp."""
    pixels = (image.cpu() * 255).round().to(torch.uint8)
    by = RETINA * int(picture.width) // image.shape[-1]
    out = io.BytesIO()
    Image.fromarray(pixels.repeat_interleave(by, 0).repeat_interleave(by, 1).numpy()).save(out, "PNG")
    return out.getvalue()


def _title(text: str, colour: str = "inherit") -> w.HTML:
    return w.HTML(f'<b style="color:{colour};font-size:1.2em">{text}</b>')


def traversal(model, x: dict[str, Tensor]) -> Traversal:
    """One slider for each latent, in the colours of the blocks, and the two images that it decodes to.

    x: pairs to start from, {"I": (B, 1, H, W), "T": same}: each slider starts at the posterior mean of the
    chosen pair, given both images. A slider of a private block redraws its own image only. Needs a live
    kernel.
    """
    return Traversal(model, x)


def factors(render, identity: int = 3, size: int = 64, height: int = 256) -> w.HBox:
    """One slider for each factor of the experiment, and the pair that they make.

    render(identity, azimuth=, elevation=, light=, size=) -> (size, size), as `mmvae.faces.render`. Sliders wear
    the colour of the block that ought to hold their factor; elevation redraws xI alone, light xT alone. The box
    has `.sliders` {factor: slider} and `.pictures` {"I", "T"}. Needs a live kernel.
    """
    pictures, images = _pictures(size, height)
    ranges = {"identity": (0, 49, 1, identity, "S"), "azimuth": (-90, 90, 3, 0, "S"),
              "elevation": (-30, 30, 2, 0, "I"), "light": (-80, 80, 4, 0, "T")}
    sliders = {name: w.IntSlider(min=low, max=high, step=step, value=value, description=name,
                                 style={"handle_color": COLOURS[block]})
               for name, (low, high, step, value, block) in ranges.items()}

    def show(modalities: str) -> None:
        at = {name: slider.value for name, slider in sliders.items()}
        for m in modalities:
            neutral = {"I": "light", "T": "elevation"}[m]
            pictures[m].value = _png(render(**at | {neutral: 0}, size=size), pictures[m])

    for name, slider in sliders.items():
        reached = {"elevation": "I", "light": "T"}.get(name, "IT")
        slider.observe(lambda _, reached=reached: show(reached), "value")
    show("IT")
    box = w.HBox([images, w.VBox(list(sliders.values()))], layout=w.Layout(flex_flow="row wrap"))
    box.sliders, box.pictures = sliders, pictures
    return box

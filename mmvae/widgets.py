"""Sliders that move with a kernel and without: the explorer of a trained model, and three small explorables.

Each is an anywidget: JupyterLab, VS Code and Colab run its module in `js/`, and so does the book's static page, which
has no kernel. A widget's state is small. What is large, an asset, the module asks for when it first needs it: by a
message, answered here in a kernel, and from a file on the page. An asset's name is a hash of its bytes, so pages share
it. With MMVAE_ASSETS in the environment, a folder, a widget leaves its assets' files there: book/stage.py takes them.
"""
import base64
import gzip
import hashlib
import html
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import torch
import traitlets as t
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.utils import make_grid

from . import diagram, plot
from .data import AXES, FACTORS, Pairs
from .nets import Decoder, Encoder
from .picture import Picture
from .train import write_atomically

JS = Path(__file__).parent / "js"
MODULES = {"explorer": "explorer", "faces": "explorables", "experts": "explorables", "rate": "explorables"}
MANTISSA = 8  # bits of a weight's fraction that are kept, of fp16's 10: a sixth less to load, 1/255 in a picture at most
PEOPLE, STEP = 3, {"azimuth": 2, "elevation": 2, "light": 1}  # of the faces that a page holds: how many, every which
QUALITY = 90  # of their WebP


def module(kind: str) -> str:
    """The ES module of a widget: what its file exports, behind what all files share."""
    return "".join((JS / f"{name}.js").read_text() for name in ("common", MODULES[kind]))


class Widget(anywidget.AnyWidget):
    """A module of `js/`, its state, its assets, and a still picture for where no module runs.

    Without a kernel it shows as HTML: the picture and its caption, and the state beside them, from which the static
    page brings it to life.
    """
    _css = (JS / "widgets.css").read_text()
    kind = ""  # a key of MODULES
    config = t.Dict().tag(sync=True)  # what never changes

    def __init__(self, still: Picture, caption: str, assets: dict[str, bytes] | None = None, **state):
        self._esm = module(self.kind) + f"export default {{ render: renderers.{self.kind} }};\n"
        self.still, self.caption, self.assets = still, caption, assets or {}
        super().__init__(**state)
        self.on_msg(self._answer)
        if folder := os.environ.get("MMVAE_ASSETS"):
            self.export(Path(folder))

    def _answer(self, _, message: dict, buffers: list) -> None:
        name = message.get("need")
        found = self.assets.get(name)
        error = {} if found else {"error": f"no asset {name}"}
        self.send({"asset": name, **error}, buffers=[found] if found else [])

    def export(self, folder: Path) -> None:
        """Write each asset to folder/NAME.js, a script that hands it to the static page's js/host.js."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.assets.items():
            path = folder / f"{name}.js"
            if not path.exists():
                write_atomically(path, f'mmvaeAsset("{name}","{base64.b64encode(data).decode()}");\n'.encode())

    def page(self) -> str:
        """What stands on the static page: HTML."""
        names = [name for cls in type(self).__mro__ if issubclass(cls, Widget) for name in vars(cls)]
        values = {name: getattr(self, name) for name in self.traits(sync=True) if name in names and name[0] != "_"}
        state = json.dumps({"kind": self.kind, "state": values}, ensure_ascii=True).replace("</", "<\\/")
        return (f'<div class="mmvae-widget"><script type="application/json">{state}</script><figure class="mmvae-still">'
                f'{self.still._repr_html_()}<figcaption>{html.escape(self.caption)}</figcaption></figure></div>')

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | {"text/html": self.page()}, metadata


class Explorer(Widget):
    """What `explorer` returns. In a kernel each trait follows the page, and the page follows each.

    model: the shown one's name. pair: the preset, from 0, or -1 where the factors were turned. observed: "I", "T",
    "IT" or "". factors: {factor: index of its value}. latents: {block: [value of each latent]}.
    """
    kind = "explorer"
    model = t.Unicode().tag(sync=True)
    pair = t.Int(0).tag(sync=True)
    observed = t.Unicode("IT").tag(sync=True)
    factors = t.Dict().tag(sync=True)
    latents = t.Dict().tag(sync=True)

    def on_change(self, callback: Callable[[dict], None]) -> None:
        """Call callback(latents) whenever a latent has moved, there or here."""
        self.observe(lambda change: callback(change["new"]), "latents")


def explorer(models: nn.Module | dict[str, nn.Module], x: dict[str, Tensor], factors: dict[str, Tensor] | None = None,
             faces: Sequence[Pairs] = ()) -> Explorer:
    """Sliders for every latent, switches for what the model sees, sliders for the factors of what it sees.

    models: one, or several to pick from by name; the first is shown. Anything will do that has `size`, `blocks`,
    `posterior`, and `encoders` and `decoders`, ModuleDicts of `mmvae.nets.Encoder` by subset ("I", "T", "IT") and of
    `Decoder` by modality (one named "IT" has both images): every model of the book, and a new one that is wired from
    the same networks. Where a subset has no encoder, the experts of its modalities are multiplied. x: pairs to start
    from, {"I": (B, 1, H, W), "T": same} in [0, 1], or one modality of it. factors: theirs, as `Pairs.sample` returns
    them. faces: `Pairs` whose first three people each the factor sliders go through; none: no such sliders.

        sliders = explorer(my_model, x)
        sliders.on_change(print)                          # {"I": [0.3, -1.2], ...} whenever the page moves one
        sliders.latents = {"I": [2.0, 0.0], "S": 5 * [0.0], "T": 2 * [0.0]}     # and the page follows

    Raises ValueError for no model, no pair, images of another size than the models', or faces without factors;
    TypeError for other networks.
    """
    models = models if isinstance(models, dict) else {"model": models}
    if not models or not x or not len(next(iter(x.values()))):
        raise ValueError(f"explorer: found {len(models)} models and {len(x)} modalities, expected some pairs for each")
    first, assets, modalities = next(iter(models.values())), {}, "".join(m for m in "IT" if m in x)
    for name, model in models.items():
        _check(name, model, x)
    if faces and factors is None:
        raise ValueError("explorer: found faces, but not the factors of x; expected those that Pairs.sample returned")
    with torch.no_grad():
        about = {name: _about(name, model, x, assets) for name, model in models.items()}
    words, at, sheet = _grid(faces, factors, len(x[modalities[0]]), first.size)
    images = torch.cat([x[m] for m in modalities]).cpu()  # (modalities B, 1, H, W)
    config = {"size": first.size, "modalities": modalities, "models": about, "pairs": at, "factors": words,
              "inputs": "data:image/png;base64," + base64.b64encode(_strip(images, "PNG")).decode(),
              "sprites": _keep(assets, sheet) if sheet else ""}
    start = next(iter(about.values()))["start"][0]
    still = (plot.traversal_strip(first, x) if modalities == "IT" else
             plot.grid(images, len(images), alt="The images that the sliders start from."))
    caption = "Every latent at three values, the others at rest. With JavaScript there are sliders here."
    return Explorer(still, caption, assets, config=config, model=next(iter(models)), factors=at[0], observed=modalities,
                    latents={block: q["mu"] for block, q in start.items()})


def _check(name: str, model: nn.Module, x: dict[str, Tensor]) -> None:
    for part, kind in (("encoders", Encoder), ("decoders", Decoder)):
        for key, net in getattr(model, part, {"": None}).items():
            if not isinstance(net, kind):
                raise TypeError(f'explorer: {part} of "{name}": found {type(net).__name__} {key}, expected '
                                f"mmvae.nets.{kind.__name__}, which the page computes")
    for m, image in x.items():
        if image.shape[-1] != model.size:
            raise ValueError(f'explorer: x["{m}"] has {image.shape[-1]} pixels a side, "{name}" expects {model.size}')


def _about(name: str, model: nn.Module, x: dict[str, Tensor], assets: dict[str, bytes]) -> dict:
    """What the page needs to know of a model; its networks go to the assets."""
    parts = {part: _keep(assets, pack(getattr(model, part), part)) for part in ("encoders", "decoders")}
    q, n = model.posterior(x), len(next(iter(x.values())))
    start = [{b: {"mu": _short(g.mu[k]), "logvar": _short(g.logvar[k])} for b, g in q.items()} for k in range(n)]
    return {"label": diagram.NAMES.get(name, name), "blocks": model.blocks, "sees": list(model.encoders), **parts,
            "single_prior": getattr(model, "single_prior", False), "start": start}


def _short(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _keep(assets: dict[str, bytes], data: bytes) -> str:
    """Put an asset among the others, under its name."""
    name = hashlib.sha256(data).hexdigest()[:16]
    assets[name] = data
    return name


def pack(networks: nn.Module, part: str) -> bytes:
    """Weights as an asset: gzip of a safetensors file, names "PART.*", each tensor fp16 with MANTISSA bits of fraction.

    uint8 (2, *shape): its numbers' low bytes, then their high bytes, which are alike and so compress.
    """
    tensors = {}
    for key, value in networks.state_dict().items():
        bits, drop = value.detach().cpu().half().view(torch.int16).int(), 10 - MANTISSA
        bits = ((bits + (1 << drop >> 1)) >> drop << drop).to(torch.int16)  # to the nearest, of either sign
        tensors[f"{part}.{key}"] = bits.contiguous().view(torch.uint8).unflatten(-1, (-1, 2)).movedim(-1, 0).contiguous()
    return gzip.compress(save(tensors), 9, mtime=0)


def _grid(faces: Sequence[Pairs], factors: dict | None, n: int, size: int) -> tuple[dict, list[dict], bytes]:
    """The values of each factor in words, the factors of n presets as indices, and all images as one WebP."""
    if not faces:
        return {}, n * [{}], b""
    people = [(pairs, k) for pairs in faces for k in range(min(PEOPLE, pairs.shape[0]))]
    values = {f: faces[0].values[f][::step].cpu() for f, step in STEP.items()}
    degree = "°" if faces[0].unit == "degrees" else ""
    words = {"identity": [f"{k + 1}" + " new" * (pairs.split == "test") for k, (pairs, _) in enumerate(people)]}
    words |= {f: [plot.signed(round(v, 1), degree) for v in value.tolist()] for f, value in values.items()}
    known = torch.tensor([int(pairs.values["identity"][k]) for pairs, k in people])
    values = {"identity": known, **values}
    at = [{f: int((values[f] - factors[f][k].cpu()).abs().argmin()) for f in FACTORS} for k in range(n)]
    sheets = [torch.stack([pairs.images[m][k][tuple(slice(None, None, STEP[f]) for f in AXES[m][1:])].cpu()
                           for pairs, k in people]).flatten(0, 2) for m in "IT"]
    return words, at, _strip(torch.cat(sheets)[:, None].float() / 255, "WEBP")


def _strip(images: Tensor, kind: str) -> bytes:
    """(N, 1, H, W) in [0, 1] -> an image file, at most 32 in a row."""
    columns = min(32, len(images))
    sheet = make_grid(images, columns, padding=0)[0]  # (rows H, columns W)
    out = io.BytesIO()
    Image.fromarray((255 * sheet).round().to(torch.uint8).numpy()).save(out, kind, **({"quality": QUALITY, "method": 4} if kind == "WEBP" else {}))
    return out.getvalue()

"""Networks of several modalities at once: for an encoder that sees more than one, and a decoder that makes more than one.

Pictures of one size with the book's networks are the channels of one picture; all else joins features, or has a decoder each.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import Encoder, Heads, ImageDecoder, ImageEncoder, Modality, WIDTH


class Joined(Heads):
    """Several modalities -> (B, outputs): each is read by a network of its own, and their features are joined."""

    def __init__(self, modalities: list[Modality], outputs: int, width: int = WIDTH):
        super().__init__()
        self.hidden = nn.Linear(len(modalities) * width, width)
        self.add_heads(width, outputs)
        self.read = nn.ModuleList(modality.encoder(width) for modality in modalities)

    def forward(self, *x: Tensor) -> Tensor:
        h = torch.cat([net(part) for net, part in zip(self.read, x)], 1)  # (B, modalities * width)
        return self.heads(F.silu(self.hidden(F.silu(h))))  # (B, outputs)


class Apart(nn.Module):
    """z (B, latent) -> the parameters of several modalities, a decoder each: a list."""

    def __init__(self, modalities: list[Modality], latent: int):
        super().__init__()
        self.make = nn.ModuleList(modality.decoder(latent) for modality in modalities)

    def forward(self, z: Tensor) -> list:
        return [net(z) for net in self.make]


class Sheet(ImageDecoder):
    """z (B, latent) -> the logits of several pictures of one size, drawn by one decoder as its channels: a list."""

    def __init__(self, latent: int, split: list[int], size: tuple[int, int]):
        super().__init__(latent, sum(split), size)
        self.split = split

    def forward(self, z: Tensor) -> list[Tensor]:
        return list(super().forward(z).split(self.split, 1))


def _one_size(modalities: list[Modality], part: str, kind: type) -> tuple[int, int] | None:
    """The size of these modalities, if all are pictures of one size, and this part of each is the book's."""
    nets = [getattr(m, part) for m in modalities]
    known = all(getattr(net, "func", None) is kind and set(net.keywords) == {"channels", "size"} and m.shape
                for net, m in zip(nets, modalities))
    sizes = {m.shape[1:] for m in modalities} if known else ()
    return sizes.pop() if len(sizes) == 1 else None


def read_together(modalities: list[Modality], outputs: int) -> nn.Module:
    """A network that reads these modalities, net(*x) -> (B, outputs): pictures of one size as channels of one picture, all
    else by joining features."""
    if len(modalities) == 1:
        return modalities[0].encoder(outputs)
    if size := _one_size(modalities, "encoder", ImageEncoder):
        return ImageEncoder(outputs, sum(m.shape[0] for m in modalities), size)
    return Joined(modalities, outputs)


def make_together(modalities: list[Modality], latent: int) -> nn.Module:
    """A network z (B, latent) -> [parameters of each modality]: pictures of one size by one decoder, all else by one each."""
    if size := _one_size(modalities, "decoder", ImageDecoder):
        return Sheet(latent, [m.shape[0] for m in modalities], size)
    return Apart(modalities, latent)


def encoder_of(model: nn.Module, subset: tuple[str, ...]) -> Encoder:
    """A new encoder of these modalities: it speaks of their private blocks, and of S."""
    blocks = {b: dim for b, dim in model.blocks.items() if b == "S" or b in subset}
    return Encoder(blocks, read_together([model.modalities[m] for m in subset], 2 * sum(blocks.values())))


def decoders_of(model: nn.Module) -> nn.ModuleDict:
    """New decoders, one a modality, of its private block and S."""
    return nn.ModuleDict({m: of.decoder(of.private + model.blocks["S"]) for m, of in model.modalities.items()})

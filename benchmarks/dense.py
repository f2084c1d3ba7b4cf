"""The decoders of the book's first edition, of dense layers alone: for its weights, and for what was computed with it."""
from torch import Tensor, nn

from mmvae.models import MultiModalVAE, VanillaVAE
from mmvae.nets import VectorDecoder


class Sheet(VectorDecoder):
    """z (B, latent) -> the logits of both pictures, drawn by one dense decoder: a list."""

    def forward(self, z: Tensor) -> list[Tensor]:
        return list(super().forward(z).split(1, 1))


def dense(model: MultiModalVAE, size: int) -> MultiModalVAE:
    """This model of two grey pictures of `size` pixels a side, with such decoders in place of its own."""
    if isinstance(model, VanillaVAE):
        of = {key: Sheet(model.blocks["Z"], (len(model.modalities), size, size)) for key in model.decoders}
    else:
        of = {m: VectorDecoder(model.blocks.get(m, 0) + model.blocks["S"], (1, size, size)) for m in model.decoders}
    model.decoders = nn.ModuleDict(of)
    return model

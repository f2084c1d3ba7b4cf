"""multivae's side of five_views.py: its seven models on our networks, as what is trained and measured. Needs multivae 1.0.

Everything that is a choice is ours on both sides: Gaussian posteriors and priors that are not learnt, one draw, no warm-up of
a weight. What its code computes from there on is its own.
"""
import torch
from multivae import models
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models.nn.base_architectures import BaseJointEncoder
from pythae.models.base.base_utils import ModelOutput
from theirs import Decoder, Encoder
from torch import Tensor, nn

from mmvae.models import MultiModalVAE
from mmvae.observed import joined

ONE_DRAW = {"K": 1, "prior_and_posterior_dist": "normal", "loss": "iwae_looser"}
SUMMED = "mmvae", "mmvae+"  # their loss is the sum over the batch, of all others the mean


class Joint(BaseJointEncoder):
    """Our encoder of all modalities, as theirs is called."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x: dict[str, Tensor]) -> ModelOutput:
        q = self.net(*x.values())["S"]
        return ModelOutput(embedding=q.mu, log_covariance=q.logvar)


def built(name: str, ours: MultiModalVAE) -> nn.Module:
    """Their model of this name, with the encoders and decoders of ours, the same objects."""
    names = tuple(ours.modalities)
    private = {m: of.private for m, of in ours.modalities.items()}
    encoders = {m: Encoder(ours.encoders[m], m) for m in names}
    decoders = {m: Decoder(ours.decoders[m], private[m]) for m in names}
    scale = ours.likelihood(names[0]).scale.item()
    common = {"n_modalities": len(names), "latent_dim": ours.blocks["S"], "decoders_dist": dict.fromkeys(names, "laplace"),
              "decoder_dist_params": {m: {"scale": scale} for m in names}}
    if name == "mvae":
        return models.MVAE(models.MVAEConfig(**common, warmup=0), encoders, decoders)
    if name == "mmvae":
        return models.MMVAE(models.MMVAEConfig(**common, **ONE_DRAW, learn_prior=False), encoders, decoders)
    if name == "mopoe":
        return models.MoPoE(models.MoPoEConfig(**common, beta=ours.beta), encoders, decoders)
    if name == "mvtcae":
        return models.MVTCAE(models.MVTCAEConfig(**common, alpha=ours.alpha, beta=ours.beta), encoders, decoders)
    if name == "dmvae":
        return models.DMVAE(models.DMVAEConfig(**common, modalities_specific_dim=private), encoders, decoders)
    if name == "mmvae+":
        config = models.MMVAEPlusConfig(**common, **ONE_DRAW, modalities_specific_dim=private[names[0]], beta=ours.beta)
        return models.MMVAEPlus(config, encoders, decoders)
    config = models.JMVAEConfig(**common, alpha=ours.alpha, warmup=0)
    return models.JMVAE(config, encoders, decoders, Joint(ours.encoders[joined(names)]))


class Theirs(nn.Module):
    """Their model as `mmvae.train.update` trains it and `mmvae.evaluate.coherence` measures it, with the methods of ours.
    What it draws is from PyTorch's own generator, and from NumPy's."""

    def __init__(self, name: str, ours: MultiModalVAE):
        super().__init__()
        self.model, self.modalities, self.summed = built(name, ours), ours.modalities, name in SUMMED
        self.model.device = "cpu"
        self.all_read = name == "mopoe"  # its encode reads every modality, and then goes by those that are given

    def loss(self, x: dict[str, Tensor], *_, **__) -> dict[str, Tensor]:
        """{"total": its loss, nats a row}."""
        total = self.model(MultimodalBaseDataset(x)).loss
        return {"total": total / len(next(iter(x.values()))) if self.summed else total}

    @torch.no_grad()
    def predict(self, x: dict[str, Tensor], want, n: int = 1, present=None, generator=None) -> dict[str, Tensor]:
        """One draw of `want` given x: {modality: (1, B, ...)}."""
        blank = {m: torch.zeros_like(next(iter(x.values()))) for m in self.modalities if self.all_read}
        made = self.model.predict(MultimodalBaseDataset({**blank, **x}), cond_mod=list(x), gen_mod=list(want))
        return {m: made[m].unsqueeze(0) for m in want}

    @torch.no_grad()
    def sample(self, n: int, want=None, generator=None) -> dict[str, Tensor]:
        """n draws from its prior: {modality: (n, ...)}."""
        want = tuple(want or self.modalities)
        made = self.model.decode(self.model.generate_from_prior(n), list(want))
        return {m: made[m] for m in want}

    @torch.no_grad()
    def minus_log_likelihood(self, x: dict[str, Tensor], draws: int) -> float:
        """Its own estimate, `compute_joint_nll`, nats a row."""
        rows = len(next(iter(x.values())))
        return float(self.model.compute_joint_nll(MultimodalBaseDataset(dict(x)), K=draws, batch_size_K=draws)) / rows

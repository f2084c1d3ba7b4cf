"""multivae's side of throughput.py: its MVAE and DMVAE on our networks, in its own trainer. Needs multivae 1.0."""
import logging

import torch
from multivae.data.datasets import MultimodalBaseDataset
from multivae.models import DMVAE, MVAE, DMVAEConfig, MVAEConfig
from multivae.models.nn import BaseMultilatentEncoder
from multivae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder

from mmvae.experiment.recipe import Recipe
from mmvae.models import PoEVAE

logging.disable(logging.WARNING)  # multivae makes its loggers verbose at import
torch.distributions.Distribution.set_default_validate_args(False)  # or its Bernoulli refuses grey levels


class Encoder(BaseMultilatentEncoder):
    def __init__(self, net, private: str):
        super().__init__()
        self.net, self.private = net, private

    def forward(self, image):
        q = self.net(image)
        shared, private = q["S"], q[self.private]
        return ModelOutput(embedding=shared.mu, log_covariance=shared.logvar,
                           style_embedding=private.mu, style_log_covariance=private.logvar)


class Decoder(BaseDecoder):
    def __init__(self, net, private: int):
        super().__init__()
        self.net, self.private = net, private

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z.roll(self.private, 1)))  # theirs: zS first; ours: private first


def trainer(ours: PoEVAE, x: dict, recipe: Recipe, adam: dict | None, folder: str) -> BaseTrainer:
    """The trainer of its DMVAE, or of its MVAE if `ours` has no private blocks; it trains the networks of `ours`.

    x: the images of its dataset, {modality: (N, 1, H, W)}. adam: arguments of its optimiser beside the rate.
    folder: what it makes for its checkpoints.
    """
    private = {m: ours.blocks[m] for m in "IT"}
    encoders = {m: Encoder(net, m) for m, net in ours.encoders.items()}
    decoders = {m: Decoder(net, private[m]) for m, net in ours.decoders.items()}
    common = {"n_modalities": 2, "latent_dim": ours.blocks["S"], "decoders_dist": dict.fromkeys("IT", "bernoulli")}
    if any(private.values()):
        model = DMVAE(DMVAEConfig(**common, modalities_specific_dim=private), encoders, decoders)
    else:
        model = MVAE(MVAEConfig(**common, warmup=0), encoders, decoders)  # warmup: epochs with less than the whole KL
    config = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=recipe.batch, no_cuda=True,
                               learning_rate=recipe.learning_rate, optimizer_params=adam, seed=recipe.seed)
    result = BaseTrainer(model, MultimodalBaseDataset(x), training_config=config)
    result.callback_handler.callbacks.clear()  # progress bar and console
    return result


def loss(trainer: BaseTrainer, x: dict) -> torch.Tensor:
    """Its loss of one batch."""
    return trainer.model(MultimodalBaseDataset(x)).loss

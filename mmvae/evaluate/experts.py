"""What each expert claims to know of the shared block, and the latents of a model that has no other, sorted by that."""
import torch
from torch import Tensor, nn

from ..data import Rows
from ..gaussian import Gaussian, Mixture
from ..models import MultiModalVAE, Posterior
from ..observed import Data, joined, with_all
from .likelihood import drawn

SPEAKS, SILENT = 5.0, 2.0  # mean precision of an expert, above and below; the prior's is 1


@torch.no_grad()
def experts(model: MultiModalVAE, rows: Rows, n: int = 4096, seed: int = 0) -> dict[str, list[float] | float]:
    """Precision of the shared block's posteriors, and how far those from one modality are from that from all.

    For each modality m, "precision.m": mean precision of each shared latent given it alone (the prior's is 1; in a product
    of experts the expert's own), and "precision.I+T", given all. "kl.m": KL(q(z_S | x) || q(z_S | x_m)), mean, nats
    [eq-learned-gap]; "shift.m": distance of the means in standard deviations of q(z_S | x_m), root mean square of the
    latents. Of mixtures: of the Gaussians of their moments. Rows that lack a modality are left out. For a model that cannot
    infer from one modality: empty.
    """
    if "S" not in model.blocks:
        return {}
    _, x, masks, _ = drawn(rows, n, torch.Generator().manual_seed(seed))
    if (kept := with_all(tuple(masks), masks)) is not None:
        x = {m: v[kept] for m, v in x.items()}
    names = tuple(m for m in getattr(model, "modalities", x) if m in x)
    joint = _shared(model, x)
    found = {f"precision.{joined(names)}": joint.precision.mean(0).tolist()}
    for m in names:
        single = _shared(model, {m: x[m]})
        found[f"precision.{m}"] = single.precision.mean(0).tolist()
        found[f"kl.{m}"] = joint.kl(single).mean().item()
        found[f"shift.{m}"] = ((joint.mu - single.mu).square() * single.precision).mean().sqrt().item()
    return found


def calibration(pair: Gaussian, single: Gaussian) -> dict[str, Tensor]:
    """Whether two posteriors of the same latents, given all modalities and given one, can belong to one model, row by row.

    "ratio" (B, D): (variance of the pair + squared distance of the means) / variance of the single one. "kl" (B,):
    KL(pair || single), nats. "promised" (B,): KL(pair || prior) - KL(single || prior), nats. For exact posteriors the mean
    ratio is 1 (law of total variance) [eq-mumo-ratio] and the means of kl and promised are equal (chain rule)
    [eq-mumo-chain]. Raises ValueError for posteriors of different shape.
    """
    if pair.mu.shape != single.mu.shape:
        raise ValueError(f"single: found means of shape {tuple(single.mu.shape)}, expected the pair's {tuple(pair.mu.shape)}")
    ratio = (pair.logvar.exp() + (pair.mu - single.mu).square()) * single.precision
    return {"ratio": ratio, "kl": pair.kl(single), "promised": pair.kl() - single.kl()}


def _shared(model: MultiModalVAE, x: Data) -> Gaussian:
    q = model.posterior(x)["S"]
    return q.moments() if isinstance(q, Mixture) else q


def all_shared(model: MultiModalVAE) -> bool:
    """Whether a model has no latents but those of S, as WG-VAE."""
    return [block for block, dim in model.blocks.items() if dim] == ["S"]


class Sorted(nn.Module):
    """A model whose latents are all shared, with these sorted by who speaks of them, as if they were private blocks and S.

    A latent goes to modality m if expert m speaks of it (mean precision on n rows above 5) and every other expert is silent
    (below 2; the prior's is 1), and to S otherwise. posterior(x) -> {"I", "S", "T": Gaussian}, so that the probes of a
    partition can be put to it. Raises ValueError for a model with other blocks than "S".
    """

    def __init__(self, model: MultiModalVAE, rows: Rows, n: int = 4096):
        super().__init__()
        if not all_shared(model):
            raise ValueError(f"model: found blocks {model.blocks}, expected all latents in S")
        said = {k.removeprefix("precision."): torch.tensor(v, device=rows.device)
                for k, v in experts(model, rows, n).items() if k.startswith("precision.")}
        names = [m for m in model.blocks if m != "S"]
        silent = {m: said[m] < SILENT for m in names}
        role = {m: torch.stack([said[m] > SPEAKS, *(silent[o] for o in names if o != m)]).all(0) for m in names}
        role["S"] = ~torch.stack(list(role.values())).any(0)
        self.model, self.seen = model, getattr(model, "seen", ())
        self.latents = {block: role[block].nonzero().squeeze(1) for block in model.blocks}
        self.blocks = {block: len(at) for block, at in self.latents.items()}

    def posterior(self, x: Data, present: dict[str, Tensor] | None = None) -> Posterior:
        """{block: Gaussian}, of a mixture that of its moments."""
        q = self.model.posterior(x, present) if present else self.model.posterior(x)
        q = q["S"].moments() if isinstance(q["S"], Mixture) else q["S"]
        return {block: Gaussian(q.mu[:, at], q.logvar[:, at]) for block, at in self.latents.items()}

"""How a model is judged: any model, any rows.

Likelihoods are in `likelihood`, probes of the blocks in `probes`, scores of single latents in `latents`, what an expert knows
in `experts`, agreement of what is made in `coherence`, its distance from what is real in `frechet`, an exact linear-Gaussian
truth in `oracle`. scikit-learn loads when a probe is fitted.
"""
from . import oracle
from .coherence import Classifier, coherence, most_likely, train_classifier, wilson
from .experts import SILENT, SPEAKS, Sorted, all_shared, experts
from .frechet import frechet
from .latents import dci, effects, entropies, importances_to_dci, mig
from .likelihood import Estimate, by_group, heldout, latent_kl, log_likelihood, log_likelihoods, log_weights
from .probes import AT_HOME, COLLAPSED, ELSEWHERE, PROBES, codes, partition, probes, verification

__all__ = ["AT_HOME", "COLLAPSED", "Classifier", "ELSEWHERE", "Estimate", "PROBES", "SILENT", "SPEAKS", "Sorted",
           "all_shared", "by_group", "codes", "coherence", "dci", "effects", "entropies", "experts", "frechet", "heldout",
           "importances_to_dci", "latent_kl", "log_likelihood", "log_likelihoods", "log_weights", "mig", "most_likely",
           "oracle", "partition", "probes", "train_classifier", "verification", "wilson"]

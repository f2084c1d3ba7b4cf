"""How a model is judged: any model, any rows.

Likelihoods are in `likelihood`, probes of the blocks in `probes`, scores of single latents in `latents`, what an expert knows
in `experts`, agreement of what is made in `coherence`, its distance from what is real in `frechet`, an exact linear-Gaussian
truth in `oracle`, what a likelihood and what an added term ask of it in `identified` and `asking`, how sure a number is in
`intervals`. scikit-learn and scipy load when they are first needed.
"""
from . import asking, identified, oracle
from .annealed import annealed_log_likelihood
from .coherence import Classifier, coherence, most_likely, train_classifier
from .experts import SILENT, SPEAKS, Sorted, all_shared, calibration, experts
from .frechet import frechet
from .intervals import Difference, difference, mean_interval, over_people, paired, shares_apart, wilson, without_one
from .latents import dci, effects, entropies, importances_to_dci, mig, mixing, shares
from .likelihood import Estimate, by_group, heldout, latent_kl, log_likelihood, log_likelihoods, log_weights
from .probes import AT_HOME, COLLAPSED, ELSEWHERE, PROBES, codes, partition, probes, verification

__all__ = ["AT_HOME", "COLLAPSED", "Classifier", "Difference", "ELSEWHERE", "Estimate", "PROBES", "SILENT", "SPEAKS",
           "Sorted", "all_shared", "annealed_log_likelihood", "asking", "by_group", "calibration", "codes", "coherence",
           "dci", "difference", "effects", "entropies", "experts", "frechet", "heldout", "identified", "importances_to_dci",
           "latent_kl", "log_likelihood", "log_likelihoods", "log_weights", "mean_interval", "mig", "mixing", "most_likely",
           "oracle", "over_people", "paired", "partition", "probes", "shares", "shares_apart", "train_classifier",
           "verification", "wilson", "without_one"]

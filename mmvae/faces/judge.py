"""What a model imagines of heads: the factors of a generated picture, read by a network and by the nearest rendered one."""
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..models import MultiModalVAE
from ..nets import Encoder, ImageEncoder
from .file import AXES, FACTORS
from .pairs import Pairs
from .renderer import AZIMUTHS, ELEVATIONS, LIGHTS, SEED, clouds, view

ANGLES = FACTORS[1:]  # azimuth, elevation, light
PRIVATE = {"I": "elevation", "T": "light"}


def all_images(pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
    """Every image of a split, both modalities: uint8 (N, H, W), and {factor: (N,)}, the absent ones neutral: 0."""
    images, factors = [], {k: [] for k in FACTORS}
    for m, axes in AXES.items():
        index = torch.unravel_index(torch.arange(pairs.images[m].shape[:3].numel(), device=pairs.device),
                                    pairs.images[m].shape[:3])
        images.append(pairs.images[m].flatten(0, 2))
        value = {k: pairs.values[k][i] for k, i in zip(axes, index)}
        for k in FACTORS:
            factors[k].append(value.get(k, torch.zeros(len(images[-1]), device=pairs.device)))
    return torch.cat(images), {k: torch.cat([v.to(parts[0].dtype) for v in parts]) for k, parts in factors.items()}


def rendered_freely(identities: list[int], size: int, poses: int = 40, lights: int = 3, seed: int = 0,
                    progress: bool = True, device: str | torch.device = "cpu") -> tuple[Tensor, dict[str, Tensor]]:
    """Heads with all four factors drawn freely, as no modality shows them: uint8 (N, size, size), {factor: (N,)}.

    What a model imagines may be tilted *and* lit from the side; who reads it must have met that.
    """
    generator, images, factors = torch.Generator().manual_seed(seed), [], {k: [] for k in FACTORS}
    low = torch.tensor([axis[0] for axis in (AZIMUTHS, ELEVATIONS, LIGHTS)])
    for person in tqdm(identities, "rendering heads for the read-out", disable=not progress):
        cloud = clouds(person, SEED, size, device)
        for _ in range(poses):
            azimuth, elevation, *lamps = (torch.rand(2 + lights, generator=generator) * 2 - 1).tolist()
            a, e, lamps = azimuth * -low[0], elevation * -low[1], [-low[2] * lamp for lamp in lamps]
            images.append((view(*cloud, float(a), float(e), lamps, size) * 255).round().to(torch.uint8))
            for k, v in zip(FACTORS, ([person] * lights, [a] * lights, [e] * lights, lamps)):
                factors[k] += [float(value) for value in v]
    return torch.cat(images), {k: torch.tensor(v) for k, v in factors.items()}


class ReadOut(nn.Module):
    """Reads the four factors off one image: the book's encoder, trained on real images with their factors.

    scale: {angle: its largest value, degrees}. forward(images (B, 1, H, W) in [0, 1]) -> {"azimuth", "elevation",
    "light": degrees (B,), "identity": logits (B, identities)}.
    """

    def __init__(self, size: int, identities: int, scale: dict[str, float]):
        super().__init__()
        blocks = {"angles": 3, "identity": identities}
        self.net, self.scale = Encoder(blocks, ImageEncoder(2 * sum(blocks.values()), size=size, width=256)), dict(scale)

    def hidden(self, image: Tensor) -> Tensor:
        """What the last hidden layer makes of images (B, 1, H, W), which all factors are read from: (B, 256)."""
        kept, net = [], self.net.net
        with net.mu.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])):
            net(image)
        return kept[0]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        q = self.net(image)
        return {k: q["angles"].mu[:, i] * self.scale[k] for i, k in enumerate(ANGLES)} | {"identity": q["identity"].mu}


def read_out(images: Tensor, factors: dict[str, Tensor], iterations: int = 6000, batch: int = 128, seed: int = 0,
             progress: bool = True) -> tuple[ReadOut, dict[str, float]]:
    """A `ReadOut` trained on nine tenths of these real images, and its error on the rest: the ceiling of what it says.

    images: uint8 (N, H, W), on the device that trains it. factors: {factor: (N,)}, identities 0 to their number - 1, angles
    in degrees. The errors: mean absolute ones of the angles, degrees, and the accuracy of "identity". Every other batch is
    blurred a little, as what a decoder makes is.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    kept, rest = order[len(images) // 10:], order[:len(images) // 10]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ReadOut(images.shape[-1], int(factors["identity"].max()) + 1,
                      {k: float(factors[k].abs().max().clamp(min=1)) for k in ANGLES}).to(images.device)
    factors = {k: v.to(images.device) for k, v in factors.items()}
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, iterations, pct_start=0.05)
    for iteration in tqdm(range(iterations), "training the read-out", disable=not progress):
        at = kept[torch.randint(len(kept), (batch,), generator=generator)].to(images.device)
        x, wanted = images[at].unsqueeze(1).float() / 255, {k: v[at] for k, v in factors.items()}
        if iteration % 2:
            x = F.avg_pool2d(x, 3, 1, 1)
        found = net(x)
        loss = F.cross_entropy(found["identity"], wanted["identity"].long(), label_smoothing=0.02)
        loss = loss + 10 * sum(((found[k] - wanted[k]) / net.scale[k]).square().mean() for k in ANGLES)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()
    rest = rest.to(images.device)
    found = read(net, images[rest].unsqueeze(1).float() / 255)
    errors = {k: (found[k] - factors[k][rest]).abs().mean().item() for k in ANGLES}
    return net, errors | {"identity": (found["identity"].argmax(1) == factors["identity"][rest]).float().mean().item()}


@torch.no_grad()
def read(reader: ReadOut, images: Tensor) -> dict[str, Tensor]:
    """What the read-out says of images (B, 1, H, W), in parts."""
    parts = [reader(part) for part in images.split(1024)]
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


@torch.no_grad()
def features(reader: ReadOut, images: Tensor) -> Tensor:
    """What the read-out sees in images (B, 1, H, W) in [0, 1]: its last hidden layer, (B, 256), in parts."""
    return torch.cat([reader.hidden(part) for part in images.split(1024)])


# ---- the nearest render

ROOM = 2 ** 24  # numbers of the real images, and of their distances, that are held at once: 67 MB


def nearest(images: Tensor, real: Tensor, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which of the real images (N, H, W) uint8 is nearest to each image (B, 1, H, W) in [0, 1], and how near.

    Returns its index, int (B,), the lowest of several, and the root mean square difference of a pixel, (B,), in grey levels
    of 0 to 255. Exact: |a - b|^2 = |a|^2 - 2 ab + |b|^2, of as many real ones at once as there is `ROOM` for
    [eq-learned-nearest]. exclude: (B,) indices that do not count.
    """
    a = images.flatten(1) - 0.5  # centred, so that no digits are lost
    least, best = a.new_full((len(a),), math.inf), torch.zeros(len(a), dtype=torch.int64, device=a.device)
    step = max(1, ROOM // (a.shape[1] + 512))
    for start, some in zip(range(0, len(real), step), real.split(step)):
        b = (some.flatten(1).to(a) / 255).sub_(0.5)
        square = b.square().sum(1)
        for k in range(0, len(a), 512):
            part = slice(k, k + 512)
            score = torch.addmm(square, a[part], b.T, alpha=-2)  # (512, some), but for |a|^2
            if exclude is not None:
                out = exclude[part] - start
                row = ((out >= 0) & (out < len(b))).nonzero()[:, 0]
                score[row, out[row]] = math.inf
            value, at = score.min(1)
            apart = (a[part] - b[at]).square().mean(1).masked_fill(value == math.inf, math.inf)
            nearer = apart < least[part]  # by the differences themselves, in which a copy is no nearer
            least[part][nearer], best[part][nearer] = apart[nearer], at[nearer] + start
    return best, 255 * least.sqrt()


# ---- what is asked of a model

class Judge:
    """Reads factors off generated images of the unseen people, by a read-out and by the nearest render.

    pairs: the splits {"train", "test"}. reader, its errors: of `read_out`, trained on people in the order of the splits.
    """

    def __init__(self, pairs: dict[str, Pairs], reader: ReadOut, errors: dict[str, float]):
        parts = [all_images(p) for p in (pairs["train"], pairs["test"])]
        self.real = torch.cat([images for images, _ in parts])  # uint8 (N, H, W)
        self.factors = {k: torch.cat([f[k] for _, f in parts]) for k in FACTORS}
        self.reader, self.errors, self.train, self.test = reader, errors, pairs["train"], pairs["test"]
        seen = len(self.train.values["identity"])
        self.people = self.test.values["identity"]  # the unseen ones, whom the reader counts after the others
        self.unseen = slice(seen, seen + len(self.people))

    def by_reader(self, images: Tensor) -> dict[str, Tensor]:
        """{factor: (B,)}; the identity is one of the unseen people."""
        found = read(self.reader, images)
        return found | {"identity": self.people[found["identity"][:, self.unseen].argmax(1)]}

    def by_nearest(self, images: Tensor) -> dict[str, Tensor]:
        """{factor: (B,)} of the nearest of all renders, and its "distance" in grey levels; identities of everybody."""
        index, distance = nearest(images, self.real)
        return {k: v[index] for k, v in self.factors.items()} | {"distance": distance}

    def real_distance(self, n: int = 2048) -> float:
        """Mean distance of a real unseen image to the nearest *other* render: how near the grid's images lie.

        Heads at the neutral elevation under the neutral light are in both modalities: a copy of itself does not count.
        """
        first = len(self.real) - sum(self.test.images[m].shape[:3].numel() for m in "IT")
        at = torch.randint(first, len(self.real), (n,), generator=torch.Generator().manual_seed(0)).to(self.real.device)
        distance = nearest(self.real[at].unsqueeze(1).float() / 255, self.real, exclude=at)[1]
        return distance[distance > 1e-3].mean().item()

    def scores(self, images: Tensor, m: str, factors: dict[str, Tensor], draws: int) -> dict[str, float]:
        """What images (B draws, 1, H, W) of modality m kept of the pairs' factors (B,), and what they varied.

        The nearest render is looked up for a quarter of the pairs.
        """
        scores, other, some = {}, PRIVATE["T" if m == "I" else "I"], -(-len(images) // draws // 4) * draws
        truth = {k: v.repeat_interleave(draws) for k, v in factors.items()}
        near = self.by_nearest(images[:some])
        for name, found in (("", self.by_reader(images)), ("nearest.", near)):
            wanted = {k: v[:len(found["azimuth"])] for k, v in truth.items()}
            scores[name + "azimuth"] = (found["azimuth"] - wanted["azimuth"]).abs().mean().item()
            scores[name + "identity"] = (found["identity"] == wanted["identity"]).float().mean().item()
            scores[name + "neutral"] = found[other].abs().mean().item()
            if draws > 1:
                scores[name + "spread"] = found[PRIVATE[m]].unflatten(0, (-1, draws)).var(1).mean().sqrt().item()
        return scores | {"distance": near["distance"].mean().item()}


@torch.no_grad()
def cross_modal(model: MultiModalVAE, judge: Judge, n: int = 512, draws: int = 4, seed: int = 0) -> dict[str, float]:
    """Cross-modal synthesis, factor by factor: {"IT.prior.azimuth": ...}, "IT" being xI -> xT, for n unseen pairs.

    The target's private block comes from its prior, or ("aggregate") from the posterior of another pair's own image, one
    pair a draw. Of each: "azimuth": mean absolute error, degrees, and "identity": accuracy among the unseen people (both
    to be kept); "spread": of the target's private factor, standard deviation in degrees among the draws for one given
    image (should vary); "neutral": mean absolute value of the other private factor, degrees (should be 0); "distance": of
    the nearest render, grey levels. As the read-out says, and, with "nearest." before it, the nearest render. Also
    "truth.T" and "reconstruction.T": real images, and reconstructions from {I,T}, judged in the same way: the ceilings.
    The conditional is [eq-side-cross].
    """
    test, generator, scores = judge.test, torch.Generator().manual_seed(seed), {}
    x, factors = test.sample(n, torch.Generator().manual_seed(seed))
    rebuilt = model.means({b: q.mu for b, q in model.posterior(x).items()})
    for m in "IT":
        scores |= {f"truth.{m}.{k}": v for k, v in judge.scores(x[m], m, factors, 1).items()}
        scores |= {f"reconstruction.{m}.{k}": v for k, v in judge.scores(rebuilt[m], m, factors, 1).items()}
        scores[f"truth.{m}.spread"] = factors[PRIVATE[m]].std().item()
    for given, target in ("IT", "TI"):
        if not model.can_see((given,)):
            continue
        q = model.posterior({given: x[given]})
        for way in ("prior", "aggregate")[:2 if model.blocks[target] else 1]:
            images = []
            for k in range(draws):
                z = {b: g.sample(generator) for b, g in q.items()}
                if way == "aggregate":
                    z[target] = model.posterior({target: x[target].roll(1 + k, 0)})[target].sample(generator)
                images.append(model.means(z, (target,))[target])
            images = torch.stack(images, 1).flatten(0, 1)  # (n draws, 1, H, W)
            scores |= {f"{given}{target}.{way}.{k}": v for k, v in judge.scores(images, target, factors, draws).items()}
    return scores


@torch.no_grad()
def joint_coherence(model: MultiModalVAE, judge: Judge, n: int = 1024, seed: int = 0) -> dict[str, float]:
    """Pure synthesis: do the two images of one draw from the prior agree? Shi et al. (2019), here factor by factor.

    "azimuth": mean absolute difference, degrees; "identity": how often both are read as the same of all people;
    "distance": to the nearest render, grey levels, mean of both. With "nearest.": as the nearest render says; with
    "shuffled.": images of two draws, the chance level.
    """
    images, scores = model.sample(n, generator=torch.Generator().manual_seed(seed)), {}
    reading = {m: read(judge.reader, image) for m, image in images.items()}
    reading = {m: found | {"identity": found["identity"].argmax(1)} for m, found in reading.items()}
    near = {m: judge.by_nearest(image) for m, image in images.items()}
    for name, found in (("", reading), ("nearest.", near)):
        for way, shift in (("", 0), ("shuffled.", 1)):
            T = {k: v.roll(shift, 0) for k, v in found["T"].items()}
            scores[f"{name}{way}azimuth"] = (found["I"]["azimuth"] - T["azimuth"]).abs().mean().item()
            scores[f"{name}{way}identity"] = (found["I"]["identity"] == T["identity"]).float().mean().item()
    return scores | {"distance": (near["I"]["distance"].mean() + near["T"]["distance"].mean()).item() / 2}


@torch.no_grad()
def prior_distance(model: MultiModalVAE, judge: Judge, distance: Callable[[Tensor, Tensor], float], n: int = 2048,
                   seed: int = 0) -> dict[str, float]:
    """How far pictures drawn from the prior are from real ones, as the read-out sees them (`features`).

    For each modality m, three distances of two sets of n pictures: "m": means decoded from draws of the prior, and pictures
    of the unseen people; "seen.m": pictures of the people of the training, and the same ones of the unseen people: what a
    model reaches that draws its training data perfectly; "floor.m": two sets of pictures of the unseen people. No real
    picture is in two sets, or in one twice; where a split has too few, all sets are smaller. distance: of two sets of
    features (n, 256); with `mmvae.evaluate.frechet` it is the FID of Heusel et al. (2017), the read-out in place of
    Inception.
    """
    made, found = model.sample(n, generator=torch.Generator().manual_seed(seed)), {}
    for m, images in made.items():
        generator = torch.Generator().manual_seed(seed)
        real, seen = (_pictures(pairs, m, 2 * n, generator) for pairs in (judge.test, judge.train))
        size = min(len(real) // 2, len(seen), n)
        sets = {"": images, "seen.": seen, "floor.": real[size:]}
        real = features(judge.reader, real[:size])
        found |= {f"{name}{m}": distance(features(judge.reader, some[:size]), real) for name, some in sets.items()}
    return found


def _pictures(pairs: Pairs, m: str, n: int, generator: torch.Generator) -> Tensor:
    """n different pictures of modality m, or as many as there are: (n, 1, H, W) in [0, 1]."""
    pictures = pairs.images[m].flatten(0, 2)
    at = torch.randperm(len(pictures), generator=generator)[:n].to(pictures.device)
    return pictures[at].unsqueeze(1).float() / 255

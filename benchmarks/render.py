"""CPU seconds that the pictures of a head take, beside what they should take by what is drawn and shaded.

    python benchmarks/render.py          (about a minute on one core)

A head is 462 pictures at 64x64: 231 poses under one lamp (I), 21 poses under 11 lamps (T); 21 pictures are in both and are
made once. Drawn are the head's points in each of 231 poses, and those of its coarser cloud in the sight of each of 441
lamps, less the tiles that `renderer.shown` and `renderer.cast` leave out. Shaded is every pixel of the z-buffer that shows the head,
under each lamp. The estimate has every operation read and write its numbers once, at the rate of a copy. What the clouds
take is not in it, nor the start of some 15,000 operations of torch.
"""
import argparse
import time

import numpy as np
import torch

from mmvae.faces import AZIMUTHS, ELEVATIONS, LIGHTS, renderer

SIZE, DRAW, CAST, SHADE = 64, 172, 124, 330  # bytes moved a point drawn, a point in a lamp's sight, a pixel shaded


def copied() -> float:
    """Bytes a second that a copy of 1 MB reads and writes."""
    source, target, start = torch.zeros(2 ** 18), torch.zeros(2 ** 18), time.process_time()
    for _ in range(2000):
        target.copy_(source)
    return 2000 * 2 * source.nbytes / (time.process_time() - start)


def head(k: int) -> tuple[float, ...]:
    """Of one head: points, points x poses, points of the coarser cloud x lamps, pixels x lamps, and CPU seconds of both."""
    drawn, cast, shaded, times = 0, 0, 0, [time.process_time()]
    cloud, caster = renderer.clouds(k, renderer.SEED, SIZE)
    times.append(time.process_time())
    renderer.grid(cloud, caster, SIZE)
    times.append(time.process_time())
    for azimuth in AZIMUTHS:
        turns = torch.stack([renderer.rotation(azimuth, elevation) for elevation in ELEVATIONS])
        drawn += tiles(cloud, turns)
        *_, seen = renderer.rasterise(cloud, turns, renderer.SUPERSAMPLE * SIZE)
        shaded += sum(seen) + (len(LIGHTS) - 1) * seen[ELEVATIONS.tolist().index(0)]
        for lights, of in ((LIGHTS, renderer.rotation(azimuth, 0)[None]), ([0.0], turns[ELEVATIONS != 0])):
            lamps, _ = renderer.lamps(tuple(lights), of.device)
            cast += len(lights) * len(of) * renderer.cast(caster, renderer.sights((lamps @ of).flatten(0, 1))).shape[1]
    return len(cloud.rows), drawn, cast, shaded, *np.diff(times)


def tiles(cloud, turns) -> int:
    """How many points of a cloud are drawn at these turns."""
    return sum(map(len, renderer.shown(cloud, turns))) * cloud.place.shape[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=12)
    torch.set_num_threads(1)
    rate, rows = copied(), np.array([head(k) for k in [0, *range(parser.parse_args().heads)]][1:])  # the first warms up
    points, drawn, cast, shaded, clouds, grid = rows.mean(0)
    moved = DRAW * drawn + CAST * cast + SHADE * shaded
    print(f"a head: {points:,.0f} points, x poses {drawn / 1e6:.1f} M, x lamps {cast / 1e6:.1f} M, "
          f"pixels x lamps {shaded / 1e6:.1f} M\n"
          f"estimate: {moved / 1e9:.1f} GB at {rate / 1e9:.0f} GB/s, {moved / rate:.2f} s")
    print(f"CPU seconds: {clouds + grid:.2f} (clouds {clouds:.2f}, pictures {grid:.2f}; heads differ from "
          f"{rows[:, 4:].sum(1).min():.2f} to {rows[:, 4:].sum(1).max():.2f})")


if __name__ == "__main__":
    main()

"""What several test files need, made once."""
import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def unseen():
    """The held-out pairs of the published models: their heads alone, rendered anew."""
    from mmvae import faces
    from mmvae.experiment import profiles
    cpu = profiles.PROFILES["cpu"]
    people = range(faces.TEST_FROM, faces.TEST_FROM + cpu.test_identities)
    heads = [faces.grid(*faces.clouds(k, faces.SEED, cpu.stored_size), cpu.stored_size) for k in people]
    images = {m: torch.from_numpy(np.stack(grids)) for m, grids in zip("IT", zip(*heads))}
    angles = dict(azimuth=faces.AZIMUTHS, elevation=faces.ELEVATIONS, light=faces.LIGHTS)
    grid = faces.Grid(**images, **angles, identity=torch.tensor(people), test_identities=cpu.test_identities)
    return faces.Pairs(grid, "test", size=cpu.size)

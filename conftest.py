"""What `pytest` needs before a notebook runs: the smoke profile, one thread a kernel, the data rendered once."""

import os

os.environ["MMVAE_PROFILE"] = os.environ.get("MMVAE_PROFILE") or "smoke"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # debugger noise at every kernel start


def pytest_collection_finish(session):
    if any(item.path.suffix == ".ipynb" for item in session.items):
        import mmvae

        mmvae.profile().pairs("train")

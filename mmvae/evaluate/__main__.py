"""python -m mmvae.evaluate RUN_DIR ...: the command of `mmvae.experiment`, which measures runs of the book's models."""
from mmvae.experiment.measure import main

if __name__ == "__main__":
    main()

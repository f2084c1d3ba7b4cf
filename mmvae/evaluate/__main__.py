"""python -m mmvae.evaluate [RUN_DIR ...]: the command of `mmvae.experiment`, which measures runs of the book's models, or
prints the book's headline numbers with their intervals."""
from ..experiment.__main__ import evaluate

if __name__ == "__main__":
    evaluate()

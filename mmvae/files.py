"""Files that are whole or absent, and log.csv, which is appended to."""
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import strict

LOG = 256 * strict.MIB  # the longest log.csv that is read


def write_atomically(path: Path, data: bytes):
    """The file is complete or absent, also after a power cut: a temporary name, fsync, rename, fsync of the folder. Of two
    that write it at once one wins, whole. Raises FileExistsError for a path that is a device, a pipe, a link or a folder,
    none of which is replaced, and FileNotFoundError without a folder."""
    strict.replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    with writing(path):
        try:
            with open(temporary, "xb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def tidy(path: Path):
    """Remove what processes that are gone have left of writing this file."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.name.removeprefix(f".{path.name}.").split(".")[0]
        if not (pid.isdecimal() and os.name == "posix" and _alive(int(pid))):
            leftover.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid != os.getpid()


@contextmanager
def writing(path: Path):
    """An error of the system in here, a full disk say, names the file, its folder, and the checkpoint that is left."""
    try:
        yield
    except OSError as e:
        last = checkpoints_in(path.parent)[-1:]
        rest = f"; the last good checkpoint, {last[0].name}, is intact" if last else ""
        raise OSError(e.errno, f"{e.strerror}: could not write {path.name} in {path.parent}{rest}") from e


class Log:
    """log.csv: cut back to the checkpoint that a run goes on from, then appended to, a row at a time.

    done: iterations of that checkpoint. every: iterations between rows. Raises ValueError for a file that is no log;
    rows that are damaged or missing are named on stderr, and the run goes on without them.
    """

    def __init__(self, path: Path, done: int, every: int):
        self.path = path
        columns, rows = _rows(path)[:2] if path.exists() else ([], [])
        if columns and columns[:2] != ["iteration", "seconds"]:
            raise ValueError(f"{path}: found columns {', '.join(columns)[:80]}, expected iteration, seconds and the "
                             "terms of the loss; move it away to go on with a new one")
        rows = [row for row in rows if float(row[0]) <= done]
        last = int(float(rows[-1][0])) if rows else 0
        if last < done - done % every:
            print(f"{path}: rows between iteration {last} and {done} are damaged or missing; the run goes on "
                  "without them", file=sys.stderr)
        if path.exists():
            kept = [columns, *rows] if rows else []
            write_atomically(path, "".join(",".join(line) + "\n" for line in kept).encode())

    def write(self, row: dict[str, float]):
        """Append a row: {"iteration", "seconds", terms of the loss in nats per pair}."""
        cells = [str(v) if k in ("iteration", "seconds") else f"{v:.4f}" for k, v in row.items()]
        with writing(self.path), open(self.path, "a") as f:
            if not f.tell():
                f.write(",".join(row) + "\n")
            f.write(",".join(cells) + "\n")

    def sync(self):
        """A checkpoint is about to say that the rows so far exist: let them survive a power cut too."""
        with writing(self.path), open(self.path, "a") as f:
            os.fsync(f.fileno())


def read_log(run_dir: str | Path) -> dict[str, np.ndarray]:
    """log.csv as {column: float array}: "iteration", "seconds", and the loss terms in nats per pair.

    A last row that is still being written is left out. Raises ValueError, naming the line, for one that is damaged.
    """
    path = Path(run_dir) / "log.csv"
    columns, rows, damaged = _rows(path)
    if damaged or not rows:
        wrong = f"line {damaged} is damaged" if damaged else "no rows"
        raise ValueError(f"{path}: {wrong}, expected a number for each of {', '.join(columns)[:80] or 'the columns'}")
    return {column: np.array(values, float) for column, values in zip(columns, zip(*rows))}


def _rows(path: Path) -> tuple[list[str], list[list[str]], int]:
    """The columns, the rows before the first that is damaged, and the number of its line (0: none is)."""
    lines = strict.read(path, LOG).decode(errors="replace").replace("\r\n", "\n").split("\n")[:-1]  # with no end no row
    columns, rows = lines[0].split(",") if lines else [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(",")
        try:
            whole = len(cells) == len(columns) and np.isfinite([float(c) for c in cells]).all()
        except ValueError:
            whole = False
        if not whole:
            return columns, rows, number
        rows.append(cells)
    return columns, rows, 0


def checkpoints_in(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("checkpoint-*.safetensors"))

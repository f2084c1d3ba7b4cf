"""Spoken digits: what `python -m mmvae.experiment.spoken` makes of espeak-ng's voices, one small file.

The ten words zero ... nine, said by many voices at several pitches and speeds, each as a log-mel spectrogram that
starts with the word and ends in silence, so that a slow word is a long one. The committed file `spoken.npz` needs
no espeak-ng to be read; `digits.py` reads it, and turns a spectrogram back into sound.
"""
import argparse
import os
import pathlib
import subprocess
import tempfile

import numpy as np

PATH = pathlib.Path(__file__).with_name("spoken.npz")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")  # each spoken by each of the
SPEAKERS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4")  # throats of espeak-ng
TAKES, SEED = 3, 1234567890  # of each word by each voice; of their pitches and speeds, and unlike what others draw
PITCHES, SPEEDS = (25, 75), (120, 200)  # espeak-ng's pitch, from 0 to 99; words per minute

RATE, WINDOW, HOP = 16000, 640, 384  # samples a second, in a frame, and from one frame to the next
BANDS, FRAMES, LOW, HIGH = 24, 28, 80, 7000  # of a spectrogram; the outer edges of the bands, in Hz
RANGE, LEVELS = 50, 25  # decibels from the loudest band (grey level LEVELS) to silence (0)
LIMIT = 300_000  # bytes of the file


def espeak(*arguments):
    """What `espeak-ng` writes to its standard output, bytes. RuntimeError where it is missing or refuses."""
    try:
        return subprocess.run(["espeak-ng", *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise RuntimeError("espeak-ng is not installed: `apt-get install espeak-ng`, or read the spoken.npz that comes "
                           "with mmvae") from None
    except subprocess.CalledProcessError as e:
        raise RuntimeError(f"espeak-ng {' '.join(arguments)}: {e.stderr.decode(errors='replace').strip()}") from e


def version():
    """espeak-ng's own version, such as "1.51"."""
    return espeak("--version").decode().split(":")[1].split()[0]


def say(word, voice, pitch, speed):
    """The word as espeak-ng says it: float64 (samples,) in [-1, 1], RATE a second, silence around it as it comes."""
    from scipy.signal import resample_poly
    sound = espeak("-v", voice, "-p", str(pitch), "-s", str(speed), "-z", "--stdout", word)
    if sound[:4] != b"RIFF" or len(sound) <= 44:
        raise RuntimeError(f"espeak-ng said nothing for voice {voice}")
    rate = int.from_bytes(sound[24:28], "little")
    return resample_poly(np.frombuffer(sound[44:], "<i2") / 32768, RATE, rate)


def mel(hertz):
    """Pitch as heard, of frequencies in Hz."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def filters(bands=BANDS, low=LOW, high=HIGH, rate=RATE, size=1024):
    """Triangles equally wide in mel, each of sum 1: float64 (bands, size // 2 + 1); and their centres in mel."""
    edges = np.linspace(mel(low), mel(high), bands + 2)
    place = mel(np.fft.rfftfreq(size, 1 / rate))
    rise, fall = (place - edges[:-2, None]), (edges[2:, None] - place)
    weights = np.maximum(np.minimum(rise, fall) / (edges[1] - edges[0]), 0)
    return weights / weights.sum(1, keepdims=True), edges[1:-1]


def decibels(wave):
    """Level of each band in each frame, relative to the loudest: float64 (BANDS, frames), at most 0."""
    wave = np.pad(wave, (WINDOW // 2, WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = filters()[0] @ (np.abs(np.fft.rfft(frames, 1024)) ** 2).T
    return 10 * np.log10(np.maximum(power / power.max(), 1e-12))


def spectrogram(wave):
    """uint8 (BANDS, FRAMES), low bands first: LEVELS is the loudest, 0 is RANGE decibels below it and after the end."""
    start = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())[0]
    level = np.clip(decibels(wave[start:]) + RANGE, 0, RANGE)[:, :FRAMES]
    level = np.pad(level, ((0, 0), (0, FRAMES - level.shape[1])))
    return np.round(level * LEVELS / RANGE).astype(np.uint8)


def synthesise(progress=True):
    """All arrays of the file by name; the same espeak-ng gives the same ones."""
    from tqdm.auto import tqdm
    made_by, rng, rows = version(), np.random.default_rng(SEED), []
    voices = [f"{accent}+{speaker}" for accent in ACCENTS for speaker in SPEAKERS]
    for voice, name in enumerate(tqdm(voices, unit="voice", disable=not progress)):
        for digit, word in enumerate(WORDS):
            for _ in range(TAKES):
                pitch, speed = int(rng.integers(*PITCHES, endpoint=True)), int(rng.integers(*SPEEDS, endpoint=True))
                rows.append((spectrogram(say(word, name, pitch, speed)), digit, voice, pitch, speed))
    spectra, digit, voice, pitch, speed = (np.array(column, np.uint8) for column in zip(*rows))
    return {"spectra": spectra, "digit": digit, "voice": voice, "voices": np.array(voices), "pitch": pitch,
            "speed": speed, "espeak": np.array(made_by),
            **{k: np.array(globals()[k.upper()]) for k in ("rate", "window", "hop", "low", "high", "range", "levels")}}


def write(path=PATH, progress=True):
    """Synthesise and write the file, whole or not at all. ValueError if it is beyond LIMIT bytes."""
    arrays = synthesise(progress)
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = pathlib.Path(folder) / "part.npz"
        np.savez_compressed(part, **arrays)
        if part.stat().st_size > LIMIT:
            raise ValueError(f"{path}: {part.stat().st_size:,} bytes, expected at most {LIMIT:,}")
        os.replace(part, path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default=PATH, help="default: %(default)s")
    try:
        written = write(parser.parse_args().path)
    except (RuntimeError, ValueError) as e:
        raise SystemExit(str(e)) from None
    print(f"{written}: {pathlib.Path(written).stat().st_size:,} bytes")

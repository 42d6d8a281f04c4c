"""The front end of sounds: a piece of a clip becomes a log-mel picture, or a frame of raw samples.

What stands below the imports needs numpy, scipy and soundfile alone: scripts and the loader of an export carry its very
source, so that they hear as the session did.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import fft, signal

# What scripts carry begins here.

DEPTH = 35.0  # decibels from white to black; more would show the noise of rooms and recorders
QUIET = -60.0  # decibels; what is quieter is never white, so that silence stays dark


@lru_cache
def mel_filters(bands: int, size: int, rate: int) -> np.ndarray:
    """Triangles that lie evenly on the mel scale, each with the peak 1.

    The scale is m = 2595 log10(1 + f / 700) (O'Shaughnessy 1987, as HTK has it), from 0 Hz to half the rate.

    Args:
        bands: how many.
        size: samples of the Fourier transform.
        rate: samples a second.

    Returns:
        float32 of shape (size // 2 + 1, bands).
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    places = np.linspace(0, rate / 2, size // 2 + 1)[:, None]
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def log_mel(wave: np.ndarray, rate: int, bands: int, frame: int, hop: int, size: int) -> np.ndarray:
    """Power in mel bands over time, in decibels (Davis and Mermelstein 1980, without the cosine transform).

    Frames are centred on the multiples of ``hop``, with silence before and after the wave, under a Hann window; each is
    filled up with zeros to ``size`` and transformed; the squares of the magnitudes go through :func:`mel_filters`.
    0 dB is the power of a sine of full scale in its own bin of the transform.

    Args:
        wave: float32 of shape (samples,), in -1..1.
        rate: samples a second.
        bands: how many mel bands.
        frame: samples under the window.
        hop: samples from frame to frame.
        size: samples of the Fourier transform, ``frame`` or more.

    Returns:
        float32 of shape (bands, len(wave) // hop + 1); -140 at the least.
    """
    window = signal.get_window("hann", frame).astype(np.float32)
    padded = np.pad(wave, (frame // 2, frame - frame // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[: len(wave) + 1 : hop]
    power = np.abs(fft.rfft(frames * window, size)) ** 2 * np.float32(4 / window.sum() ** 2)
    return (10 * np.log10(np.maximum(power @ mel_filters(bands, size, rate), 1e-14))).T


def mel_picture(wave: np.ndarray, rate: int, bands: int, frame: int, hop: int, size: int) -> np.ndarray:
    """A log-mel picture: time to the right, low sounds at the bottom, the loudest place white.

    ``DEPTH`` decibels below the loudest place, and all that is quieter, are black.

    Returns:
        uint8 of shape (1, bands, frames).
    """
    levels = log_mel(wave, rate, bands, frame, hop, size)
    white = max(float(levels.max()), QUIET)
    pixels = np.rint((levels - (white - DEPTH)) * (255 / DEPTH)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[None, ::-1])


def plain_frame(wave: np.ndarray) -> np.ndarray:
    """Samples with mean 0 and standard deviation 1, as networks on raw sound take them; silence stays 0."""
    wave = wave - wave.mean()
    return wave / np.float32(max(float(wave.std()), 1e-5))


def read_piece(file: Any, start: float, window: float, rate: int) -> np.ndarray:
    """A piece of a clip: one channel, at the rate that is wanted, silence where the clip has ended.

    Several channels become their mean; another rate is brought to this one by a polyphase filter.

    Args:
        file: an open ``soundfile.SoundFile``.
        start: seconds at which the piece begins.
        window: seconds of the piece.
        rate: samples a second that are wanted.

    Returns:
        float32 of shape (round(window * rate),), in -1..1.
    """
    file.seek(min(round(start * file.samplerate), file.frames))
    wave = file.read(math.ceil(window * file.samplerate), dtype="float32", always_2d=True)
    return at_rate(wave, file.samplerate, window, rate)


def at_rate(wave: np.ndarray, have: int, window: float, rate: int) -> np.ndarray:
    """The beginning of a wave as one channel, at another rate; silence where it has ended.

    Args:
        wave: float32 of shape (samples, channels).
        have: samples a second that it has.
        window: seconds that are wanted.
        rate: samples a second that are wanted.

    Returns:
        float32 of shape (round(window * rate),).
    """
    wave = np.nan_to_num(wave.mean(1), nan=0.0, posinf=0.0, neginf=0.0)
    if have != rate and len(wave):
        common = math.gcd(have, rate)
        wave = signal.resample_poly(wave, rate // common, have // common).astype(np.float32)
    length = round(window * rate)
    return np.pad(wave[:length], (0, max(length - len(wave), 0)))

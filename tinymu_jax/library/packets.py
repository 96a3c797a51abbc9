"""Fingerprint of the encoded audio in a file, which does not depend on the file's tags."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import av

from tinymu_jax.audio.ffmpeg import open_container
from tinymu_jax.errors import InputError, reason_of
from tinymu_jax.utils.fingerprint import of_file


class Packets(NamedTuple):
    """The encoded audio of a file."""

    sha256: str
    """Fingerprint of the bytes and times of all packets, but not of cover pictures."""
    seconds: float
    """Time from the start of the first to the end of the last packet of audio; 0 if unknown."""


def read_packets(path: str | Path) -> Packets:
    """Read the packets of a file without decoding them.

    Raises:
        InputError: FFmpeg cannot read the file, or it has no audio.
    """
    digest, first, last = hashlib.sha256(), math.inf, -math.inf
    try:
        with open(path, "rb") as file, open_container(file) as container:
            streams = [s for s in container.streams if not _is_picture(s)]
            if not any(stream.type == "audio" for stream in streams):
                raise InputError(f"{path}: has no audio; name a recording")
            for packet in container.demux(streams):
                digest.update(repr((packet.stream_index, packet.pts, packet.size)).encode())
                digest.update(bytes(packet))
                if packet.stream.type == "audio" and packet.pts is not None:
                    # FFmpeg does not know the duration of each packet of Vorbis.
                    end = packet.pts + (packet.duration or 0)
                    first = min(first, float(packet.pts * packet.time_base))
                    last = max(last, float(end * packet.time_base))
    except InputError:
        raise
    except Exception as error:  # PyAV raises errors of many classes
        raise InputError(
            f"{path}: its audio cannot be read ({reason_of(error)}); is the file damaged?"
        ) from error
    return Packets(digest.hexdigest(), max(last - first, 0.0))


def audio_fingerprint(path: str | Path) -> str:
    """Return the fingerprint of a file's encoded audio, or of all its bytes if it has none.

    Tags may change. Raises `InputError` if the file cannot be read.
    """
    try:
        return read_packets(path).sha256
    except InputError:
        return of_file(path)


def _is_picture(stream: av.stream.Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)

"""Tests that damage of an Ogg file with a video is found at the right time of its sound."""

import io
import re

import av
import numpy as np
import pytest
from test_decode import sound

from tinymu_jax.audio.bitstream import scan_ogg
from tinymu_jax.audio.decode import decode
from tinymu_jax.errors import InputError

RATE = 48_000


@pytest.fixture(scope="module", params=[True, False], ids=["video first", "audio first"])
def ogg(request):
    """The bytes of an Ogg file of four seconds of Opus with a VP8 video."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg", options={"page_duration": "100000"}) as out:

        def video_stream():
            stream = out.add_stream("libvpx", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            return stream

        video = video_stream() if request.param else None
        audio = out.add_stream("libopus", rate=RATE, layout="mono")
        audio.format = "flt"
        video = video or video_stream()
        samples, noise = sound(4, RATE, 1), np.random.default_rng(0)
        for tenth in range(40):
            picture = noise.integers(0, 256, (64, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            frame.pts = tenth
            out.mux(video.encode(frame))
            block = samples[4800 * tenth : 4800 * (tenth + 1)].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, "flt", "mono")
            frame.rate, frame.pts = RATE, 4800 * tenth
            out.mux(audio.encode(frame))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return file.getvalue()


def with_broken_page(content, is_audio):
    """An Ogg file with a wrong byte in a page in its middle, of its sound or of its video."""
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    serials = {
        content[at + 14 : at + 18]: b"OpusHead" in content[at : at + 60]
        for at in pages
        if content[at + 5] & 2
    }
    middle = [at for at in pages if at > len(content) / 2]
    page = next(at for at in middle if serials[content[at + 14 : at + 18]] == is_audio)
    at = page + 27 + content[page + 26] + 20
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def test_a_sound_file_with_a_video_has_no_damage(ogg):
    assert scan_ogg(ogg).damaged_after is None
    decoded = decode(ogg, None)
    assert decoded.seconds == pytest.approx(4, abs=0.1)


def test_damage_of_the_sound_is_found_where_it_is(ogg):
    broken = with_broken_page(ogg, True)
    assert scan_ogg(broken).damaged_after == pytest.approx(2, abs=0.7)
    with pytest.raises(InputError, match=r"damaged after [12]\.\d s"):
        decode(broken, None)
    assert decode(broken, 1.0).damage is None


def test_damage_of_the_video_is_no_damage_of_the_sound(ogg):
    assert scan_ogg(with_broken_page(ogg, False)).damaged_after is None

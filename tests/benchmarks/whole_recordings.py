"""Whole recordings: how right the rule for one answer is with nano, and how fast it is.

    python tests/benchmarks/whole_recordings.py quality
    python tests/benchmarks/whole_recordings.py speed --tracks 8

`quality` renders pieces of 60 s whose instrument, drums, tempo, mode and loudness change in the
middle, and asks nano about the whole pieces. `speed` takes random full-size weights: one closed
field of 20 options over a track of 4 minutes against asking window by window, and the command
`tinymu caption` on a library of tracks of 30 s.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]

CHANGED = ("timbre", "drums", "tempo", "mode", "dynamics")
CONSTANT = ("metre", "register", "voices", "room")
SECONDS, HALF = 60, 30
PROMPT = "What is the genre of this music?"
GENRES = (
    *("ambient", "blues", "classical", "country", "disco", "electronic", "folk", "funk", "gospel"),
    *(
        "house",
        "indie",
        "jazz",
        "latin",
        "metal",
        "pop",
        "punk",
        "reggae",
        "rock",
        "soul",
        "techno",
    ),
)


def make_piece(rng, offset):
    """Returns a piece of 60 s and the facts of its two halves, which differ in `CHANGED`.

    Nano knows melodies of 4 s, so the piece is a row of such; `offset` is the second at which the
    first of them begins in the piece, 0 or less.
    """
    from tinymu_jax.audio.log_mel import SAMPLE_RATE
    from tinymu_jax.data.synthetic.compose import compose
    from tinymu_jax.data.synthetic.facts import draw_facts

    while True:
        first, second = draw_facts(rng, True), draw_facts(rng, True)
        second = second._replace(**{fact: getattr(first, fact) for fact in CONSTANT})
        second = second._replace(contour=first.contour)
        if all(getattr(first, fact) != getattr(second, fact) for fact in CHANGED):
            break
    start, stop = -offset * SAMPLE_RATE, (SECONDS - offset) * SAMPLE_RATE
    rows = [
        np.concatenate([compose(facts, 4, rng) for _ in range(SECONDS // 4 + 1)])[start:stop]
        for facts in (first, second)
    ]
    half = HALF * SAMPLE_RATE
    samples = np.concatenate([rows[0][:half], rows[1][half:]])
    return samples.astype(np.float32) / 32768, (first, second)


def change_of(values):
    """Returns the number of windows before the change that explains a timeline best."""
    agreement = [
        sum(max(part.count(value) for value in part) for part in (values[:k], values[k:]) if part)
        for k in range(1, len(values))
    ]
    return 1 + int(np.argmax(agreement))


def quality(pieces, offset):
    """Prints how often constant facts and changes are right."""
    import tinymu_jax
    from tinymu_jax.data.synthetic.templates import NAMES, OPEN
    from tinymu_jax.inference.whole_recording import encode_windows, score_windows

    model, rng = tinymu_jax.load("nano"), np.random.default_rng(0)
    facts = [*CHANGED, *CONSTANT]
    names = {fact: [w for v, w in NAMES[fact].items() if v != "accordion"] for fact in facts}
    questions = [(OPEN[fact][0], names[fact]) for fact in facts]
    right = {"changes": [], "windows": [], "whole": [], "first window": []}
    by_fact = {fact: [] for fact in CHANGED}
    for _ in range(pieces):
        samples, halves = make_piece(rng, offset)
        windows = encode_windows(model.engine, samples)
        for fact, scores in zip(
            facts, score_windows(model.engine, windows, questions), strict=True
        ):
            first, second = (NAMES[fact][getattr(half, fact)] for half in halves)
            values = [max(w.probabilities, key=w.probabilities.get) for w in scores.timeline]
            if fact in CONSTANT:
                best = max(scores.options, key=lambda row: row.probability).option
                right["whole"].append(best == first)
                right["first window"].append(values[0] == first)
                continue
            length = scores.timeline[0].end
            by_fact[fact].append(abs(change_of(values) * length - HALF) <= length)
            right["changes"].append(by_fact[fact][-1])
            right["windows"] += [
                value == (first if window.end <= HALF else second)
                for value, window in zip(values, scores.timeline, strict=True)
                if window.end <= HALF or window.start >= HALF
            ]
    shares = {name: float(np.mean(values)) for name, values in right.items()}
    counts = {name: len(values) for name, values in right.items()}
    changes = {fact: float(np.mean(values)) for fact, values in by_fact.items()}
    print(json.dumps({"shares": shares, "counts": counts, "changes": changes}, indent=1))


def write_tracks(folder, tracks, seconds):
    """Writes tracks that change every 4 s, and returns their paths."""
    from tinymu_jax.audio.log_mel import SAMPLE_RATE
    from tinymu_jax.data.synthetic.compose import compose
    from tinymu_jax.data.synthetic.facts import draw_facts

    rng, paths = np.random.default_rng(0), []
    for number in range(tracks):
        parts = [compose(draw_facts(rng, True), 4, rng) for _ in range(-(-seconds // 4))]
        samples = np.concatenate(parts)[: seconds * SAMPLE_RATE]
        paths.append(folder / f"{number:03}.flac")
        soundfile.write(paths[-1], samples, SAMPLE_RATE)
    return paths


def track_seconds(assistant, path, repeats):
    """Returns the median seconds of one closed field over a track: at once, and by window."""
    from ask import medians

    from tinymu_jax.audio.windows import read_windows

    def by_window(ask):
        assistant.audio_cache.clear()
        for window in read_windows(path, assistant.max_seconds):
            ask(window.samples)

    runs = {
        "whole": lambda: assistant.whole_scores(path, PROMPT, GENRES, "pmi"),
        "score by window": lambda: by_window(
            lambda samples: assistant.score(samples, PROMPT, GENRES, "pmi")
        ),
        "ask by window, 40 tokens": lambda: by_window(
            lambda samples: assistant.ask(samples, PROMPT, max_new_tokens=40)
        ),
    }
    return medians(runs, repeats)


def word_tokenizer(size, texts):
    """Returns a tokenizer with one token for each word of texts, as SmolLM2's has for most."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = dict.fromkeys(word for text in texts for word in text.split())
    # "!" pads prompts, and has the number that it has in SmolLM2's tokenizer.
    special = ["<|endoftext|>", *(f"<{n}>" for n in range(1, 17)), "!"]
    words = [*special, *words, *(f"w{n}" for n in range(size))][:size]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made.to_str()


def library_rate(assistant, paths, folder):
    """Returns how many tracks an hour get six fields, a caption of 40 tokens, tempo and key."""
    from tinymu_jax.library.caption_run import SidecarWriter, describe_library, list_recordings
    from tinymu_jax.library.description import DescribeOptions
    from tinymu_jax.library.fields import read_fields
    from tinymu_jax.library.formats.options import FormatOptions
    from tinymu_jax.library.run_log import RunLog

    writer = SidecarWriter("jsonl", FormatOptions())
    options = DescribeOptions(read_fields(), max_new_tokens=40)
    recordings = list_recordings([str(path) for path in paths])
    log = RunLog(folder / "log.jsonl")
    with log.writing():
        describe_library(assistant, recordings[:8], options, log, writer)
        start = time.perf_counter()
        result = describe_library(assistant, recordings[8:], options, log, writer)
        seconds = time.perf_counter() - start
    assert not result.errors
    return 3600 * len(result.descriptions) / seconds


def speed(tracks, repeats):
    """Prints the seconds for a track, and the tracks an hour, with full-size random weights."""
    from ask import make_models

    from tinymu_jax.inference.load import make_assistant
    from tinymu_jax.library.description import CAPTION_PROMPT
    from tinymu_jax.library.fields import read_fields

    texts = [CAPTION_PROMPT, PROMPT, *GENRES]
    texts += [text for field in read_fields() for text in (field.prompt, *field.options)]
    _, checkpoint = make_models()
    size = checkpoint.config.decoder.vocab_size
    checkpoint = checkpoint._replace(tokenizer=word_tokenizer(size, texts))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        assistant = make_assistant(checkpoint)
        (track,) = write_tracks(folder, 1, 240)
        print(json.dumps(track_seconds(assistant, track, repeats), indent=1), flush=True)
        (folder / "library").mkdir()
        paths = write_tracks(folder / "library", tracks + 8, 30)
        for name, pair in {"float32": (), "bfloat16 and int8": ("bfloat16", "int8")}.items():
            place = folder / name.split()[0]
            place.mkdir()
            rate = library_rate(make_assistant(checkpoint, *pair), paths, place)
            print(f"{name}: {rate:.0f} tracks an hour", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=["quality", "speed"])
    parser.add_argument("--pieces", type=int, default=40)
    parser.add_argument("--tracks", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.part == "quality":
        for offset in (0, -1, -2):
            print(f"melodies of 4 s from second {offset} on")
            quality(args.pieces, offset)
        return
    speed(args.tracks, args.repeats)


if __name__ == "__main__":
    main()

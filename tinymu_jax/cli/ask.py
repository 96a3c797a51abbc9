"""The `tinymu ask`, `tinymu score` and `tinymu embed` commands."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tinymu_jax.cli.options import (
    Model,
    Recordings,
    in_batches,
    require_recordings,
    run_each,
    seconds_fields,
    seconds_text,
    show_error,
)
from tinymu_jax.errors import InputError
from tinymu_jax.utils.files import check_folder, make_folder, write_atomic

SILENT = "(silence)"
"""What is printed in place of an answer about silence."""


def check_hop(whole: bool, hop: float | None) -> None:
    """Raise `InputError` if there is a hop, although only a recording's beginning is used."""
    if hop is not None and not whole:
        raise InputError("--hop is for whole recordings: give --whole too")


@dataclass(frozen=True)
class Ask:
    """Ask a question about one or more recordings."""

    recordings: Recordings = ()
    """Sound files (wav, flac, ogg, mp3, m4a, ...), or pipes; - is stdin."""
    prompt: str = ""
    """The question."""
    max_new_tokens: int = 300
    """Maximum number of tokens of an answer."""
    strategy: Literal["greedy", "top-p"] = "greedy"
    """How to choose each token: greedy (the most probable token) or top-p (sampling)."""
    top_p: float = 0.8
    """For top-p: total probability of the most probable tokens, one of which is sampled."""
    temperature: float = 1.0
    """For top-p: temperature, which divides the logits; 0 or less means 1."""
    seed: int = 0
    """For top-p: random seed."""
    truncate_prompt: bool = False
    """Cut a prompt of over 129 tokens instead of rejecting it."""
    whole: bool = False
    """Ask about all of a recording, window by window, not only about its beginning."""
    hop: float | None = None
    """With --whole: seconds from the start of a window to the next (default: window length)."""
    json: bool = False
    """Print one JSON object per recording instead of text."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Print an answer for each recording; return the exit code, 2 if a recording failed."""
        if not self.prompt:
            raise InputError('no prompt: ask something with --prompt "..."')
        check_hop(self.whole, self.hop)
        require_recordings(self.recordings, self.json)
        model = self.model.load_assistant()
        model.tokenizer  # noqa: B018 - a missing tokenizer is reported before anything is computed
        options = {
            "strategy": self.strategy,
            "top_p": self.top_p,
            "temperature": self.temperature,
            "seed": self.seed,
        }
        ask = partial(model.whole_answers, hop=self.hop) if self.whole else model.answers
        show = self._show_whole if self.whole else self._show
        num_errors = 0
        for batch in in_batches(self.recordings, "asking"):
            answers = ask(batch, self.prompt, self.max_new_tokens, self.truncate_prompt, **options)
            num_errors += sum(map(show, batch, answers))
        return 2 if num_errors else 0

    def _show_whole(self, recording: str, answer: Any) -> bool:
        """Print the answer or error for a whole recording; return whether it was an error."""
        if isinstance(answer, InputError):
            show_error(recording, answer, self.json)
            return True
        if self.json:
            fields = {"file": recording, "prompt": self.prompt, "answer": answer.text}
            fields |= {"support": round(answer.support, 4)}
            fields |= {"total_seconds": round(answer.total_seconds, 3)}
            timeline = [
                {"start": round(w.start, 3), "end": round(w.end, 3), "answer": w.answer}
                for w in answer.timeline
            ]
            print(json.dumps(fields | {"timeline": timeline}, ensure_ascii=False), flush=True)
            return False
        if len(self.recordings) > 1:
            print(recording)
        print(SILENT if answer.text is None else answer.text)
        for window in answer.timeline:
            text = SILENT if window.answer is None else window.answer
            print(f"{window.start:7.1f} - {window.end:.1f} s  {text}", flush=True)
        return False

    def _show(self, recording: str, answer: Any) -> bool:
        """Print the answer or error for a recording; return whether it was an error."""
        if isinstance(answer, InputError):
            show_error(recording, answer, self.json)
            return True
        if self.json:
            fields = {
                "file": recording,
                "prompt": self.prompt,
                "answer": answer.text,
                "ended": answer.ended,
            }
            print(json.dumps(fields | seconds_fields(answer), ensure_ascii=False), flush=True)
            return False
        label = f"{recording}: " if len(self.recordings) > 1 else ""
        print(label + answer.text, flush=True)
        print(label + seconds_text(answer), file=sys.stderr)
        return False


@dataclass(frozen=True)
class ScoreCommand:
    """Score given answers to a question about one or more recordings."""

    recordings: Recordings = ()
    """Sound files (wav, flac, ogg, mp3, m4a, ...), or pipes; - is stdin."""
    prompt: str = ""
    """The question."""
    option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An answer to score; repeat the option for each answer."""
    normalize: Literal["sum", "length", "pmi"] = "sum"
    """How to rank the answers: by log-likelihood (sum), by log-likelihood per token (length), or by
    log-likelihood with audio minus log-likelihood without audio (pmi)."""
    truncate_prompt: bool = False
    """Cut a prompt of over 129 tokens instead of rejecting it."""
    whole: bool = False
    """Score all of a recording: the mean of its windows' log-likelihoods."""
    hop: float | None = None
    """With --whole: seconds from the start of a window to the next (default: window length)."""
    json: bool = False
    """Print one JSON object per recording instead of a table."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Print the scores for each recording; return the exit code, 2 if a recording failed."""
        from tinymu_jax.audio.load import read_clip

        if not self.prompt:
            raise InputError('no prompt: ask something with --prompt "..."')
        if len(self.option) < 2:
            raise InputError("fewer than two options: give each with --option")
        check_hop(self.whole, self.hop)
        require_recordings(self.recordings, self.json)
        model = self.model.load_assistant()
        model.tokenizer  # noqa: B018 - a missing tokenizer is reported before anything is computed

        def score(recording: str) -> None:
            if self.whole:
                arguments = self.normalize, self.truncate_prompt, self.hop
                scores = model.whole_scores(recording, self.prompt, self.option, *arguments)
                self._show_whole(recording, scores)
                return
            clip = read_clip(recording, model.max_seconds, keep_damaged=model.keep_damaged)
            rows = model.score_details(clip, self.prompt, self.option, self.truncate_prompt)
            self._show(recording, rows, clip)

        return run_each(self.recordings, "scoring", self.json, score)

    def _show(self, recording: str, rows: list[Any], clip: Any) -> None:
        if self.json:
            self._print_json(recording, seconds_fields(clip), rows)
            return
        self._print_table(recording, rows)
        print(f"{recording}: {seconds_text(clip)}", file=sys.stderr)

    def _show_whole(self, recording: str, scores: Any) -> None:
        if self.json:
            fields = {"total_seconds": round(scores.total_seconds, 3)}
            fields |= {"agreement": round(scores.agreement, 4)}
            fields |= {"timeline": [window._asdict() for window in scores.timeline]}
            self._print_json(recording, fields, scores.options)
            return
        if not scores.options:
            print(f"{recording}: {SILENT}" if len(self.recordings) > 1 else SILENT, flush=True)
            return
        self._print_table(recording, scores.options)
        for window in scores.timeline:
            text = SILENT
            if window.probabilities is not None:
                best = max(window.probabilities, key=window.probabilities.get)
                text = f"{window.probabilities[best]:.3f}  {best}"
            print(f"{window.start:7.1f} - {window.end:.1f} s  {text}", flush=True)
        agreement = f"agreement {scores.agreement:.0%} of {scores.total_seconds:.1f} s"
        print(f"{recording}: {agreement}", file=sys.stderr)

    def _print_json(self, recording: str, fields: dict[str, Any], rows: Sequence[Any]) -> None:
        head = {"file": recording, "prompt": self.prompt, "normalize": self.normalize}
        options = {"options": [row._asdict() for row in self._sorted(rows)]}
        print(json.dumps(head | fields | options, ensure_ascii=False), flush=True)

    def _print_table(self, recording: str, rows: Sequence[Any]) -> None:
        if len(self.recordings) > 1:
            print(recording)
        print("    sum     length         pmi  log-likelihood  option")
        for row in self._sorted(rows):
            over_prior = row.probability_over_prior
            pmi = f"{'-':>10}" if over_prior is None else f"{over_prior:10.3f}"
            print(
                f"{row.probability:7.3f}  {row.probability_per_token:9.3f}  {pmi}  "
                f"{row.log_likelihood:14.2f}  {row.option}",
                flush=True,
            )

    def _sorted(self, rows: Sequence[Any]) -> list[Any]:
        from tinymu_jax.inference.scoring import NORMALIZE

        return sorted(rows, key=lambda row: -getattr(row, NORMALIZE[self.normalize]))


@dataclass(frozen=True)
class Embed:
    """Write the encoder's embeddings of each recording to a .npy file, with one row per 160 ms."""

    recordings: Recordings = ()
    """Sound files (wav, flac, ogg, mp3, m4a, ...), or pipes; - is stdin."""
    output: Path = Path("embeddings")
    """Folder for the .npy files."""
    chunking: Literal["precise", "fast", "fast-interleaved"] = "precise"
    """How to encode long recordings. precise: in chunks, as in the published results; fast: with
    the last chunk padded; fast-interleaved: like fast, with the rows in the published order."""
    all_layers: bool = False
    """Write the outputs of all layers, shape (layers, rows, width), not only of the last layer."""
    plot: bool = False
    """Also plot the log-mel spectrogram of each recording (.png)."""
    json: bool = False
    """Print one JSON object per recording instead of text."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Write the embeddings of each recording; return the exit code, 2 if a recording failed."""
        require_recordings(self.recordings, self.json)
        targets = self._targets()
        check_folder(self.output)
        model = self.model.load()

        def embed(recording: str) -> None:
            self._embed(model, recording, targets[recording])

        return run_each(self.recordings, "embedding", self.json, embed)

    def _targets(self) -> dict[str, Path]:
        """Return each recording's output file; raise `InputError` if two files are the same."""
        targets: dict[str, Path] = {}
        for recording in self.recordings:
            target = self.output / f"{Path(recording).stem}.npy"
            if recording in targets:
                raise InputError(f"{recording}: is named twice; name it once")
            if target in targets.values():
                raise InputError(
                    f"{recording}: another recording is written to {target} too; embed folders "
                    "one by one, each with its own --output"
                )
            targets[recording] = target
        return targets

    def _embed(self, model: Any, recording: str, target: Path) -> None:
        import numpy as np

        from tinymu_jax.audio.load import read_clip
        from tinymu_jax.audio.log_mel import log_mel
        from tinymu_jax.audio.plot import plot_log_mel

        clip = read_clip(recording, model.max_seconds, keep_damaged=model.keep_damaged)
        vectors = model.embed(clip, self.chunking, self.all_layers)
        make_folder(self.output)

        def save(partial: Path) -> None:
            with partial.open("wb") as file:
                np.save(file, vectors)

        write_atomic(target, save)
        if self.plot:
            picture = target.with_suffix(".png")
            plot_log_mel(np.asarray(log_mel(clip.samples)), picture, Path(recording).name)
        fields = {"file": recording, "output": str(target), "shape": list(vectors.shape)}
        if self.json:
            print(json.dumps(fields | seconds_fields(clip), ensure_ascii=False), flush=True)
        else:
            print(
                f"{recording}: {tuple(vectors.shape)} in {target}, {seconds_text(clip)}", flush=True
            )

"""The `tinymu ask`, `tinymu score` and `tinymu embed` commands."""

import json
import sys
from dataclasses import dataclass, field
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
    json: bool = False
    """Print one JSON object per recording instead of text."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Print an answer for each recording; return the exit code, 2 if a recording failed."""
        if not self.prompt:
            raise InputError('no prompt: ask something with --prompt "..."')
        require_recordings(self.recordings, self.json)
        model = self.model.load_assistant()
        model.tokenizer  # noqa: B018 - a missing tokenizer is reported before anything is computed
        num_errors = 0
        for batch in in_batches(self.recordings, "asking"):
            answers = model.answers(
                batch,
                self.prompt,
                self.max_new_tokens,
                self.truncate_prompt,
                strategy=self.strategy,
                top_p=self.top_p,
                temperature=self.temperature,
                seed=self.seed,
            )
            num_errors += sum(map(self._show, batch, answers))
        return 2 if num_errors else 0

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
        require_recordings(self.recordings, self.json)
        model = self.model.load_assistant()
        model.tokenizer  # noqa: B018 - a missing tokenizer is reported before anything is computed

        def score(recording: str) -> None:
            clip = read_clip(recording, model.max_seconds, keep_damaged=model.keep_damaged)
            rows = model.score_details(clip, self.prompt, self.option, self.truncate_prompt)
            self._show(recording, rows, clip)

        return run_each(self.recordings, "scoring", self.json, score)

    def _show(self, recording: str, rows: list[Any], clip: Any) -> None:
        from tinymu_jax.inference.scoring import NORMALIZE

        rows = sorted(rows, key=lambda row: -getattr(row, NORMALIZE[self.normalize]))
        if self.json:
            fields = {"file": recording, "prompt": self.prompt, "normalize": self.normalize}
            fields |= seconds_fields(clip) | {"options": [row._asdict() for row in rows]}
            print(json.dumps(fields, ensure_ascii=False), flush=True)
            return
        if len(self.recordings) > 1:
            print(recording)
        print("    sum     length         pmi  log-likelihood  option")
        for row in rows:
            print(
                f"{row.probability:7.3f}  {row.probability_per_token:9.3f}  "
                f"{row.probability_over_prior:10.3f}  {row.log_likelihood:14.2f}  {row.option}",
                flush=True,
            )
        print(f"{recording}: {seconds_text(clip)}", file=sys.stderr)


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

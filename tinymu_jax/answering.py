"""Questions and answers as tokens: batches, padding, and the compiled calls below `Assistant`."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Float32

from tinymu_jax.audio import Clip, as_clip
from tinymu_jax.config import TinyMUConfig
from tinymu_jax.errors import InputError
from tinymu_jax.generate import Decoding, Question, Sampling, Strategy, decode, prefill
from tinymu_jax.listener import Audio, Listener
from tinymu_jax.listening import Chunking, listen, project
from tinymu_jax.models.tinymu import TinyMU, label_loss
from tinymu_jax.scoring import OptionScore, compare, option_log_likelihoods, pack_options

MAX_BATCH = 16
"""Questions answered in one compiled call."""
SLOT_STEP = 16
"""Audio and prompt slots are padded to multiples of this, so that few shapes are compiled."""
ROOM_STEP = 64
"""The cache's room for answer tokens is padded to a multiple of this."""


class Answer(NamedTuple):
    """What was answered, and on how much of the recording."""

    text: str | None
    """None if the checkpoint has no tokenizer."""
    tokens: list[int]
    """Without the end token."""
    ended: bool
    """Whether the end token came before `max_new_tokens`."""
    heard_seconds: float
    total_seconds: float


class Heard(NamedTuple):
    """A clip as the decoder reads it."""

    vectors: Float32[np.ndarray, "A D"]
    clip: Clip


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


@partial(jax.jit, static_argnames=("config",))
def _answer_logits(
    params: Any, question: Question, answer: Any, num_answer: Any, config: TinyMUConfig
) -> jax.Array:
    return TinyMU(config).apply(
        {"params": params}, *question, answer, num_answer, method="answer_logits"
    )


def _check_request(max_new_tokens: int, sampling: Sampling) -> None:
    """Refuses what cannot be generated."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}: ask for at least 1")
    if sampling.strategy not in get_args(Strategy):
        raise InputError(f"strategy {sampling.strategy!r}: use {' or '.join(get_args(Strategy))}")


class TokenAssistant:
    """A TinyMU that takes and gives token ids; no tokenizer needed."""

    def __init__(self, config: TinyMUConfig, params: Any) -> None:
        """Takes unrolled parameters (`tinymu_jax.inference_layout`); stacked ones work too."""
        self.config, self.params = config, params
        self._listener = Listener(config.encoder, params["encoder"], None, config.max_seconds)
        self._heard: dict[Any, Heard] = {}

    def generate_tokens(
        self, audio: Audio, prompt_ids: Sequence[int], max_new_tokens: int = 300, **sampling: Any
    ) -> list[int]:
        """Returns an answer's tokens, without the end token.

        Args:
            audio: a path or 16 kHz samples.
            prompt_ids: 1 to `config.max_text_tokens` tokens.
            max_new_tokens: longest answer.
            sampling: fields of `Sampling`.

        Raises:
            InputError: as `tinymu_jax.audio.as_clip`; a prompt that is empty or too long.
        """
        return self.generate_token_batch([audio], [prompt_ids], max_new_tokens, **sampling)[0]

    def generate_token_batch(
        self,
        audios: Sequence[Audio],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int = 300,
        **sampling: Any,
    ) -> list[list[int]]:
        """Returns the tokens of many answers; each is what its clip gets alone."""
        found = self._answer_all(list(audios), list(prompts), max_new_tokens, Sampling(**sampling))
        for answer in found:
            if isinstance(answer, InputError):
                raise answer
        return [answer.tokens for answer in found]

    def stream_tokens(
        self, audio: Audio, prompt_ids: Sequence[int], max_new_tokens: int = 300, **sampling: Any
    ) -> Iterator[list[int]]:
        """Yields all tokens so far, without the end token, each time one more is there."""
        options = Sampling(**sampling)
        _check_request(max_new_tokens, options)
        heard, ids = self._hear_one(audio), self._check_prompt(prompt_ids)
        state = self._prefill([heard], [ids], max_new_tokens, options)
        while True:
            tokens, _ = self._read(state, 0, max_new_tokens)
            yield tokens
            if bool(state.done[0]) or int(state.step) >= max_new_tokens:
                return
            state = self._decode(state, int(state.step) + 1, options)

    def target_logits(
        self, audio: Audio, prompt_ids: Sequence[int], target_ids: Sequence[int]
    ) -> Float32[np.ndarray, "T V"]:
        """Returns the scores that predict each target token, end token included.

        Args:
            audio: a path or 16 kHz samples.
            prompt_ids: the question's tokens.
            target_ids: the answer's tokens without the end token, which is added as published:
                an answer of `config.max_text_tokens` or more is cut to that and gets none.
        """
        logits, labels = self._teacher_forced(audio, prompt_ids, target_ids)
        return np.asarray(logits[0, : len(labels)])

    def loss_tokens(
        self, audio: Audio, prompt_ids: Sequence[int], target_ids: Sequence[int]
    ) -> float:
        """Returns the mean cross-entropy of the target tokens; arguments as `target_logits`."""
        logits, labels = self._teacher_forced(audio, prompt_ids, target_ids)
        padded = np.zeros((1, logits.shape[1]), np.int32)
        padded[0, : len(labels)] = labels
        return float(label_loss(logits, padded, np.array([len(labels)]), self.config))

    def score_tokens(
        self,
        audio: Audio,
        prompt_ids: Sequence[int],
        options: Sequence[Sequence[int]],
        names: Sequence[str] | None = None,
    ) -> list[OptionScore]:
        """Scores options given as tokens, without end tokens; see `score`."""
        options = [self._check_ids(ids, "an option") for ids in options]
        if not options or not all(options):
            raise InputError("an option has no tokens: give each at least one")
        heard, ids = self._hear_one(audio), self._check_prompt(prompt_ids)
        packed = pack_options(options, self.config.end_token)
        silence = heard._replace(vectors=heard.vectors[:0])
        with_audio, without_audio = (
            option_log_likelihoods(
                self.params, self._question([h], [ids]), packed, config=self.config
            )
            for h in (heard, silence)
        )
        names = names or [str(list(option)) for option in options]
        return compare(names, [len(o) for o in options], with_audio, without_audio)

    @property
    def max_seconds(self) -> float:
        """How much of a recording is heard."""
        return self.config.max_seconds

    def embed(
        self, audio: Audio, chunking: Chunking = "precise", all_layers: bool = False
    ) -> Float32[np.ndarray, "... A E"]:
        """Returns the encoder's vectors of what is heard; see `Listener.embed`."""
        return self._listener.embed(audio, chunking, all_layers)

    def _check_prompt(self, ids: Sequence[int]) -> list[int]:
        """Returns a prompt's tokens if the model can take them."""
        ids, limit = [int(i) for i in ids], self.config.max_text_tokens
        if not ids:
            raise InputError("the prompt is empty: ask something about the recording")
        if len(ids) > limit:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the model takes {limit}: shorten it, or have "
                "it cut with --truncate-prompt (truncate_prompt=True)"
            )
        return self._check_ids(ids, "the prompt")

    def _check_ids(self, ids: Sequence[int], what: str) -> list[int]:
        """Returns token ids that are in the vocabulary; others would be read as its last."""
        ids, size = [int(i) for i in ids], self.config.decoder.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < size:
            raise InputError(
                f"{what} holds tokens {min(ids)} to {max(ids)}, the vocabulary has {size}: use "
                "this decoder's own tokenizer"
            )
        return ids

    def _hear_one(self, audio: Audio) -> Heard:
        """Listens to one recording."""
        heard = self._hear([audio])[0]
        if isinstance(heard, InputError):
            raise heard
        return heard

    def _hear(self, audios: Iterable[Audio]) -> list[Heard | InputError]:
        """Listens to recordings, to each only once; faults stand in their places."""
        audios, found, kept = list(audios), {}, self._heard
        order = [self._identity(audio) for audio in audios]
        for key, audio in zip(order, audios, strict=True):
            if key in found or key in kept:
                continue
            try:
                found[key] = as_clip(audio, self.config.max_seconds)
            except InputError as error:
                found[key] = error
        clips = {key: clip for key, clip in found.items() if isinstance(clip, Clip)}
        vectors = listen(
            self.params["encoder"], [c.samples for c in clips.values()], self.config.encoder
        )
        fresh: dict[Any, Heard] = {
            key: Heard(project({"projector": self.params["projector"]}, v[0], self.config), clip)
            for (key, clip), v in zip(clips.items(), vectors, strict=True)
        }
        known = kept | fresh
        faults = {key: e for key, e in found.items() if isinstance(e, InputError)}
        # The last clips stay: a second question on one does not listen again.
        self._heard = dict(list(known.items())[-MAX_BATCH:])
        return [faults[key] if key in faults else known[key] for key in order]

    @staticmethod
    def _identity(audio: Audio) -> Any:
        """Returns what tells one recording from another, also after a file has changed."""
        if isinstance(audio, str | Path):
            try:
                status = os.stat(audio)
            except OSError:
                return str(audio)
            return str(audio), status.st_mtime_ns, status.st_size
        array = np.asarray(audio)
        return array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest()

    def _question(self, heard: Sequence[Heard], prompts: Sequence[Sequence[int]]) -> Question:
        """Pads clips and prompts to common lengths, and their number to a power of two."""
        rows = 1 << (len(heard) - 1).bit_length()
        longest = max(len(h.vectors) for h in heard)
        audio_slots = _round_up(longest, SLOT_STEP)
        prompt_slots = min(
            _round_up(max(map(len, prompts)), SLOT_STEP), self.config.max_text_tokens
        )
        audio = np.zeros((rows, audio_slots, self.config.decoder.width), np.float32)
        prompt = np.zeros((rows, prompt_slots), np.int32)
        num_audio, num_prompt = np.zeros(rows, np.int32), np.ones(rows, np.int32)
        for row, (h, ids) in enumerate(zip(heard, prompts, strict=True)):
            audio[row, : len(h.vectors)], num_audio[row] = h.vectors, len(h.vectors)
            prompt[row, : len(ids)], num_prompt[row] = ids, len(ids)
        return Question(audio, num_audio, prompt, num_prompt)

    def _prefill(
        self,
        heard: Sequence[Heard],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling,
    ) -> Decoding:
        """Computes a batch of questions and the first token of each answer."""
        question = self._question(heard, prompts)
        return prefill(
            self.params,
            question,
            np.arange(len(question.num_audio)) < len(heard),
            jax.random.key(sampling.seed),
            self._knobs(sampling),
            config=self.config,
            room=_round_up(max_new_tokens, ROOM_STEP),
            strategy=sampling.strategy,
        )

    def _decode(self, state: Decoding, until: int, sampling: Sampling) -> Decoding:
        """Goes on to `until` tokens."""
        return decode(
            self.params,
            state,
            np.int32(until),
            self._knobs(sampling),
            config=self.config,
            strategy=sampling.strategy,
        )

    @staticmethod
    def _knobs(sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
        return np.float32(sampling.top_p), np.float32(sampling.temperature)

    def _read(self, state: Decoding, row: int, limit: int) -> tuple[list[int], bool]:
        """Returns one row's tokens before the end token, and whether that came."""
        tokens = np.asarray(state.tokens[row])[: min(int(state.step), limit)].tolist()
        end = self.config.end_token
        return (tokens[: tokens.index(end)], True) if end in tokens else (tokens, False)

    def _answer_all(
        self,
        audios: Sequence[Audio],
        prompts: Sequence[Sequence[int] | InputError],
        max_new_tokens: int,
        sampling: Sampling,
    ) -> list[Answer | InputError]:
        """Answers questions in batches; a fault stands in place of its answer."""
        _check_request(max_new_tokens, sampling)
        if len(audios) != len(prompts):
            raise InputError(
                f"{len(audios)} recordings and {len(prompts)} prompts: give one prompt for each"
            )
        results: list[Answer | InputError | None] = [None] * len(audios)
        checked: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            try:
                if isinstance(prompt, InputError):
                    raise prompt
                checked[i] = self._check_prompt(prompt)
            except InputError as error:
                results[i] = error
        for start in range(0, len(audios), MAX_BATCH):
            batch = [i for i in range(start, min(start + MAX_BATCH, len(audios))) if i in checked]
            heard = dict(zip(batch, self._hear(audios[i] for i in batch), strict=True))
            good = [i for i in batch if isinstance(heard[i], Heard)]
            results[start : start + MAX_BATCH] = [
                heard.get(i, results[i]) for i in range(start, min(start + MAX_BATCH, len(audios)))
            ]
            if not good:
                continue
            state = self._prefill(
                [heard[i] for i in good], [checked[i] for i in good], max_new_tokens, sampling
            )
            state = self._decode(state, max_new_tokens, sampling)
            for row, i in enumerate(good):
                tokens, ended = self._read(state, row, max_new_tokens)
                clip = heard[i].clip
                results[i] = Answer(None, tokens, ended, clip.heard_seconds, clip.total_seconds)
        return results

    def _teacher_forced(
        self, audio: Audio, prompt_ids: Sequence[int], target_ids: Sequence[int]
    ) -> tuple[jax.Array, list[int]]:
        """Returns scores (1, R, V) and the labels they predict, end token added as published."""
        limit = self.config.max_text_tokens
        labels = self._check_ids(target_ids, "the answer")[:limit]
        if len(labels) < limit:
            labels.append(self.config.end_token)
        heard, ids = self._hear_one(audio), self._check_prompt(prompt_ids)
        answer = np.zeros((1, min(_round_up(len(labels), SLOT_STEP), limit)), np.int32)
        answer[0, : len(labels)] = labels
        question = self._question([heard], [ids])
        logits = _answer_logits(
            self.params, question, answer, np.array([len(labels)], np.int32), self.config
        )
        return logits, labels

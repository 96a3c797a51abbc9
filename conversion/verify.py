"""Do two checkpoints say the same? python -m conversion.verify A B recording.wav ...

Both answer the same prompts about the same recordings; then both score the first one's answer.
Prints the largest difference of their logits and the share of equal greedy tokens.
"""

from dataclasses import dataclass

import numpy as np
import tyro

from tinymu_jax.errors import InputError, one_line_errors
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.compare import compare_models
from tinymu_jax.inference.load import load


@dataclass(frozen=True)
class Verify:
    """Compare two checkpoints on recordings."""

    first: tyro.conf.Positional[str]
    """Hub name, .pt or checkpoint folder."""
    second: tyro.conf.Positional[str]
    """The same."""
    recordings: tyro.conf.Positional[tuple[str, ...]] = ()
    """wav, flac, ogg or mp3 files."""
    prompt: str | None = None
    """The question; without one, fixed token ids are the prompt, and no tokenizer is needed."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, where a checkpoint has none."""
    max_new_tokens: int = 64
    """Greedy tokens to compare."""
    tolerance: float = 1e-3
    """Largest logit difference that passes."""

    def run(self) -> int:
        """Prints a line a recording and a verdict; returns 0 if they agree, else 1."""
        if not self.recordings:
            raise InputError("no recording: name one or more to compare on")
        first, second = (self._open(name) for name in (self.first, self.second))
        if first.config.decoder.vocab_size != second.config.decoder.vocab_size:
            raise InputError(
                f"{self.second}: has another vocabulary than {self.first}; compare checkpoints of "
                "one model"
            )
        prompt = list(range(20, 40)) if self.prompt is None else first.encode_prompt(self.prompt)
        rows = [
            compare_models(first, second, recording, prompt, self.max_new_tokens)
            for recording in self.recordings
        ]
        for recording, row in zip(self.recordings, rows, strict=True):
            print(
                f"{recording}: largest logit difference {row.logit_difference:.2e}, "
                f"equal tokens {row.equal_tokens} of {row.tokens}"
            )
        largest = float(np.max([row.logit_difference for row in rows]))
        equal, tokens = (sum(row[i] for row in rows) for i in (1, 2))
        same = largest <= self.tolerance and equal == tokens
        print(
            f"{'same' if same else 'DIFFERENT'}: largest logit difference {largest:.2e}, equal "
            f"tokens {100 * equal / tokens:.1f} %"
        )
        return 0 if same else 1

    def _open(self, name: str) -> Assistant:
        model = load(name, tokenizer=self.tokenizer)
        if not isinstance(model, Assistant):
            raise InputError(f"{name}: is an encoder alone; name a TinyMU checkpoint")
        return model


def main() -> None:
    """Runs the command."""
    with one_line_errors():
        raise SystemExit(tyro.cli(Verify, prog="python -m conversion.verify").run())


if __name__ == "__main__":
    main()

"""The `tinymu convert` commands: convert weights from and to PyTorch, and compare two models."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    encoder_of,
    save_checkpoint,
)
from tinymu_jax.checkpoints.model_card import (
    count_folder_parameters,
    count_parameters,
    origin_of_file,
    write_card,
)
from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import SmolLM2Config
from tinymu_jax.utils.files import exists, make_folder
from tinymu_jax.utils.tree import flatten

if TYPE_CHECKING:
    from tinymu_jax.inference.assistant import Assistant


@dataclass(frozen=True)
class FromTorch:
    """Convert a PyTorch checkpoint to a checkpoint folder; PyTorch need not be installed.

    The source is a TinyMU .pt (with its yaml and, for unpublished sizes, a json in the same
    folder), a MATPAC, MATPAC++ or pre-training .pt, or a SmolLM2 folder or GGUF file. The command
    also writes a model card, and checks that converting back gives the same weights, bit for bit
    (of a GGUF file: the weights as read from it).
    """

    source: tyro.conf.Positional[Path]
    """A TinyMU or MATPAC .pt, or a SmolLM2 folder or GGUF file."""
    output: tyro.conf.Positional[Path]
    """Checkpoint folder to write."""
    probe: Path | None = None
    """File of a probe (a linear classifier) to add to a MATPAC encoder."""
    tokenizer: str | None = None
    """tokenizer.json to include; default: the tokenizer.json beside the source."""
    verify: tuple[str, ...] = ()
    """Recordings on which to compare the answers of the two models."""
    keep_damaged: bool = False
    """Use what can be read of a damaged recording of `verify`, instead of refusing it."""

    def run(self) -> int:
        """Convert and check the checkpoint; return 1 if the two models' answers differ, else 0."""
        from tinymu_jax.checkpoints.pytorch.convert import check_converted

        if not exists(self.source):
            raise InputError(f"{self.source}: no such file or folder; name a PyTorch checkpoint")
        if self.source.is_dir() and self.source.resolve() == self.output.resolve():
            raise InputError(f"{self.output}: is the source itself; name another folder")
        checkpoint = open_checkpoint(self.source, probe=self.probe)
        if self.tokenizer is not None:
            checkpoint = checkpoint._replace(tokenizer=read_tokenizer(self.tokenizer))
        numbers = sum(leaf.size for _, leaf in flatten(checkpoint.params))
        kind = type(checkpoint.config).__name__.removesuffix("Config")
        save_checkpoint(self.output, checkpoint)
        # Free the weights (in a reference cycle of the unpickler) before both files are mapped.
        del checkpoint
        gc.collect()
        verified = check_converted(self.source, self.output, self.probe)
        print(f"{kind}, {numbers / 1e6:.2f} M numbers -> {self.output}/{CONFIG_FILE}")
        print(
            f"verified: {count_folder_parameters(self.output) / 1e6:.2f} M parameters; back from "
            f"{self.output}/ to {self.source.name}: {verified}"
        )
        card = write_card(self.output, origin_of_file(self.source, self.probe))
        print(f"model card: {card}")
        if not self.verify:
            return 0
        models = str(self.source), str(self.output)
        return Verify(*models, self.verify, keep_damaged=self.keep_damaged).run()


@dataclass(frozen=True)
class ToTorch:
    """Convert a checkpoint to a PyTorch checkpoint; PyTorch need not be installed.

    A TinyMU becomes a .pt for the original code, with its yaml and, for unpublished sizes, a json;
    or a .safetensors file with the same keys. A MATPAC encoder or a pre-training checkpoint becomes
    a .pt in the published format. A decoder alone becomes a SmolLM2 folder. The command reads the
    result and checks that all weights are equal to the checkpoint bit for bit.
    """

    checkpoint: tyro.conf.Positional[str]
    """Checkpoint folder, hub name or .pt."""
    output: tyro.conf.Positional[Path]
    """File to write (.pt or .safetensors); for a decoder alone, a folder."""
    encoder: bool = False
    """Write only the encoder of a TinyMU, or the student's encoder of a pre-training checkpoint."""

    def run(self) -> int:
        """Convert and check the checkpoint; return the exit code."""
        from tinymu_jax.checkpoints.pytorch import smollm2
        from tinymu_jax.checkpoints.pytorch.convert import check_written, write_model

        checkpoint = open_checkpoint(self.checkpoint)
        if self.encoder:
            checkpoint = encoder_of(checkpoint)
        if isinstance(checkpoint.config, SmolLM2Config):
            self._check_folder()
            smollm2.write_published(self.output, checkpoint)
            print(f"-> {self.output}/")
        else:
            self._check_file()
            make_folder(self.output.parent)
            for path in write_model(checkpoint, self.output):
                print(f"-> {path}")
        verified = check_written(checkpoint, self.output)
        count = count_parameters(checkpoint.params)
        print(
            f"verified: {count / 1e6:.2f} M parameters; {self.output.name} read again: {verified}"
        )
        return 0

    def _check_file(self) -> None:
        if self.output.is_dir():
            raise InputError(f"{self.output}: is a folder; name the .pt file to write")
        if self.output.suffix not in (".pt", ".pth", ".safetensors"):
            raise InputError(f"{self.output}: name a file that ends in .pt or .safetensors")

    def _check_folder(self) -> None:
        """Raise `InputError` if the output is a file or the checkpoint, or holds other files."""
        if exists(self.output) and not self.output.is_dir():
            raise InputError(f"{self.output}: is a file; a decoder is written to a folder")
        if self.output.resolve() == Path(self.checkpoint).resolve():
            raise InputError(f"{self.output}: is the checkpoint itself; name another folder")
        from tinymu_jax.checkpoints.pytorch.smollm2 import SETTINGS_FILES

        written = {CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, *SETTINGS_FILES}
        others = {path.name for path in self.output.glob("*")} - written
        if others:
            raise InputError(
                f"{self.output}: holds other files ({min(others)}); name a new or empty folder"
            )


@dataclass(frozen=True)
class Verify:
    """Compare the answers of two checkpoints to a question about recordings.

    Both models answer the same question about each recording. The logits of both models are then
    compared at each token of the first model's answer. Prints the largest difference between two
    logits, and the share of answer tokens that are equal.
    """

    first: tyro.conf.Positional[str]
    """Hub name, .pt or checkpoint folder."""
    second: tyro.conf.Positional[str]
    """Hub name, .pt or checkpoint folder."""
    recordings: tyro.conf.Positional[tuple[str, ...]] = ()
    """Sound files (wav, flac, ogg, mp3, m4a, ...)."""
    prompt: str | None = None
    """The question; default: fixed token ids, which need no tokenizer."""
    tokenizer: str | None = None
    """tokenizer.json or hub name of the decoder, for a checkpoint without a tokenizer."""
    max_new_tokens: int = 64
    """Maximum number of tokens of an answer, generated greedily."""
    tolerance: float = 1e-3
    """Largest logit difference that passes."""
    keep_damaged: bool = False
    """Use what can be read of a damaged recording, instead of refusing it."""

    def run(self) -> int:
        """Compare the models on each recording; return the exit code, 0 if they agree, else 1."""
        from tinymu_jax.inference.compare import compare_models

        if not self.recordings:
            raise InputError("no recording: name one or more to compare on")
        first, second = (self._load(name) for name in (self.first, self.second))
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

    def _load(self, name: str) -> "Assistant":
        from tinymu_jax.inference.assistant import Assistant
        from tinymu_jax.inference.load import load

        model = load(name, tokenizer=self.tokenizer, keep_damaged=self.keep_damaged)
        if not isinstance(model, Assistant):
            raise InputError(f"{name}: is an encoder alone; name a TinyMU checkpoint")
        return model


@dataclass(frozen=True)
class Convert:
    """Convert checkpoints from and to PyTorch, and compare two checkpoints."""

    command: Annotated[
        Annotated[FromTorch, tyro.conf.subcommand("from-torch")]
        | Annotated[ToTorch, tyro.conf.subcommand("to-torch")]
        | Annotated[Verify, tyro.conf.subcommand("verify")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Run the chosen subcommand; return its exit code."""
        return self.command.run()

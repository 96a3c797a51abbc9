"""From a checkpoint to PyTorch: python -m conversion.to_torch CHECKPOINT tinymu.pt.

A TinyMU becomes the file that the original loads strictly, with its yaml, and a json of the sizes
that the yaml does not tell; or, where the name ends in .safetensors, the same keys in that format.
A MATPAC encoder becomes a published `.pt`, and so does all of pre-training, its teachers included;
a decoder alone becomes a SmolLM2 folder. What was written is read again and compared bit for bit.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    encoder_of,
)
from tinymu_jax.checkpoints.model_card import count_parameters
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.checkpoints.pytorch import smollm2
from tinymu_jax.checkpoints.pytorch.round_trip import check_written
from tinymu_jax.checkpoints.pytorch.write import write_model
from tinymu_jax.errors import InputError, one_line_errors
from tinymu_jax.models.config import SmolLM2Config
from tinymu_jax.utils.files import exists, make_folder


@dataclass(frozen=True)
class ToTorch:
    """Convert a checkpoint to PyTorch; no torch needed."""

    checkpoint: tyro.conf.Positional[str]
    """Checkpoint folder, hub name or .pt."""
    output: tyro.conf.Positional[Path]
    """.pt or .safetensors file; for a decoder alone a folder."""
    encoder: bool = False
    """Write the encoder alone, of a TinyMU or of pre-training (then the student's)."""

    def run(self) -> None:
        """Converts, reads what was written, and compares."""
        checkpoint = open_checkpoint(self.checkpoint)
        if self.encoder:
            checkpoint = encoder_of(checkpoint)
        if isinstance(checkpoint.config, SmolLM2Config):
            self._check_folder()
            smollm2.write_published(self.output, checkpoint)
            print(f"-> {self.output}/")
            self._verify(checkpoint)
            return
        if self.output.is_dir():
            raise InputError(f"{self.output}: is a folder; name the .pt file to write")
        if self.output.suffix not in (".pt", ".pth", ".safetensors"):
            raise InputError(f"{self.output}: name a file that ends in .pt or .safetensors")
        make_folder(self.output.parent)
        for path in write_model(checkpoint, self.output):
            print(f"-> {path}")
        self._verify(checkpoint)

    def _verify(self, checkpoint: Checkpoint) -> None:
        """Reads what was written again, and prints what was found the same."""
        same = check_written(checkpoint, self.output)
        count = count_parameters(checkpoint.params)
        print(f"verified: {count / 1e6:.2f} M parameters; {self.output.name} read again: {same}")

    def _check_folder(self) -> None:
        """Refuses to write a decoder over something else."""
        if exists(self.output) and not self.output.is_dir():
            raise InputError(f"{self.output}: is a file; a decoder is written to a folder")
        if self.output.resolve() == Path(self.checkpoint).resolve():
            raise InputError(f"{self.output}: is the checkpoint itself; name another folder")
        written = {CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE}
        others = {path.name for path in self.output.glob("*")} - written
        if others:
            raise InputError(
                f"{self.output}: holds other files ({min(others)}); name a new or empty folder"
            )


def main() -> None:
    """Runs the command."""
    with one_line_errors():
        tyro.cli(ToTorch, prog="python -m conversion.to_torch").run()


if __name__ == "__main__":
    main()

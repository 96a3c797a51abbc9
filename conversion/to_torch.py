"""From a checkpoint to PyTorch: python -m conversion.to_torch CHECKPOINT tinymu.pt.

A TinyMU becomes the file that the original loads strictly, with its yaml, and a json of the sizes
that the yaml does not tell; or, where the name ends in .safetensors, the same keys in that format.
A MATPAC encoder becomes a published `.pt`, and so does all of pre-training, its teachers included;
a decoder alone becomes a SmolLM2 folder. What was written is read again and compared bit for bit.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
import yaml

from conversion import matpac, pretraining, smollm2, tinymu
from conversion.published_files import PARTS, read_json_beside
from conversion.round_trip import check_written
from conversion.torch_file_writer import write_torch_file
from tinymu_jax.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    encoder_of,
    write_safetensors,
)
from tinymu_jax.config import MatpacConfig, SmolLM2Config
from tinymu_jax.errors import InputError, one_line_errors
from tinymu_jax.files import exists, make_folder, read_text, remove, write_json, write_text
from tinymu_jax.model_card import count_parameters
from tinymu_jax.pretrained import open_checkpoint
from tinymu_jax.pretraining.config import SelfSupervisedConfig


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


def write_model(checkpoint: Checkpoint, output: Path) -> list[Path]:
    """Writes a checkpoint of a TinyMU, a MATPAC or its pre-training; returns the files."""
    written, beside = [output], output.with_suffix(".json")
    earlier = read_json_beside(output)
    if isinstance(checkpoint.config, MatpacConfig):
        state = matpac.to_published(checkpoint)
        _write_state(output, state, state)
        sizes = matpac.sizes(checkpoint.config, checkpoint.source.get("labels", ()))
    elif isinstance(checkpoint.config, SelfSupervisedConfig):
        if output.suffix == ".safetensors":
            raise InputError(
                f"{output}: a pre-training checkpoint holds dictionaries (its teachers), which "
                "that format has not; name a .pt, or write the encoder alone (--encoder)"
            )
        write_torch_file(output, pretraining.to_published(checkpoint))
        sizes = pretraining.sizes_of(checkpoint.config)
    else:
        tokenizer = output.with_name(TOKENIZER_FILE)
        _check_tokenizer(tokenizer, checkpoint.tokenizer, replaced=exists(output))
        content = tinymu.to_published(checkpoint)
        _write_state(output, content, content["model"])
        sizes = tinymu.sizes(content["config"], checkpoint.config)
        written.append(output.with_suffix(".yaml"))
        write_text(written[-1], yaml.safe_dump(content["config"], sort_keys=False))
        if checkpoint.tokenizer is not None:
            write_text(tokenizer, checkpoint.tokenizer)
            written.append(tokenizer)
    if earlier.keys() & PARTS.keys():
        remove(beside)
    if sizes:
        write_json(beside, sizes)
        written.append(beside)
    return written


def _check_tokenizer(there: Path, own: str | None, replaced: bool) -> None:
    """Refuses a folder whose tokenizer would be taken for this model's, or lost to it."""
    if not exists(there):
        return
    if own is None:
        raise InputError(
            f"{there}: lies beside a checkpoint that has no tokenizer, and would be taken for its "
            "own; name another folder"
        )
    if not replaced and read_text(there) != own:
        raise InputError(f"{there}: is another model's tokenizer; name another folder")


def _write_state(output: Path, content: object, state: dict[str, np.ndarray]) -> None:
    """Writes `content` as a .pt, or the state dict alone as safetensors."""
    if output.suffix != ".safetensors":
        write_torch_file(output, content)
        return
    # safetensors has no ties: tied copies are written out.
    write_safetensors(output, state)


def main() -> None:
    """Runs the command."""
    with one_line_errors():
        tyro.cli(ToTorch, prog="python -m conversion.to_torch").run()


if __name__ == "__main__":
    main()

"""From a checkpoint to PyTorch: python -m conversion.to_torch CHECKPOINT tinymu.pt.

A TinyMU becomes the file that the original loads strictly, with its yaml, and a json of the sizes
that the yaml does not tell; or, where the name ends in .safetensors, the same keys in that format.
A MATPAC encoder becomes a published `.pt`, a decoder alone a SmolLM2 folder.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from conversion import matpac, smollm2, tinymu
from conversion.torch_file import write_torch_file
from tinymu_jax.checkpoint import Checkpoint
from tinymu_jax.config import MatpacConfig, SmolLM2Config
from tinymu_jax.errors import InputError, one_line_errors
from tinymu_jax.pretrained import open_checkpoint


@dataclass(frozen=True)
class ToTorch:
    """Convert a checkpoint to PyTorch; no torch needed."""

    checkpoint: tyro.conf.Positional[str]
    """Checkpoint folder, hub name or .pt."""
    output: tyro.conf.Positional[Path]
    """.pt or .safetensors file; for a decoder alone a folder."""

    def run(self) -> None:
        """Converts."""
        checkpoint = open_checkpoint(self.checkpoint)
        if isinstance(checkpoint.config, SmolLM2Config):
            if self.output.exists() and not self.output.is_dir():
                raise InputError(f"{self.output}: is a file; a decoder is written to a folder")
            smollm2.write_published(self.output, checkpoint)
            print(f"-> {self.output}/")
            return
        if self.output.is_dir():
            raise InputError(f"{self.output}: is a folder; name the .pt file to write")
        if self.output.suffix not in (".pt", ".pth", ".safetensors"):
            raise InputError(f"{self.output}: name a file that ends in .pt or .safetensors")
        self.output.parent.mkdir(parents=True, exist_ok=True)
        for path in write_model(checkpoint, self.output):
            print(f"-> {path}")


def write_model(checkpoint: Checkpoint, output: Path) -> list[Path]:
    """Writes a TinyMU or MATPAC checkpoint in PyTorch's terms; returns the files."""
    if isinstance(checkpoint.config, MatpacConfig):
        _write_state(output, state := matpac.to_published(checkpoint), state)
        return [output]
    content = tinymu.to_published(checkpoint)
    _write_state(output, content, content["model"])
    import yaml

    description = output.with_suffix(".yaml")
    description.write_text(yaml.safe_dump(content["config"], sort_keys=False))
    written = [output, description]
    if tinymu.needs_sizes(content["config"], checkpoint.config):
        written.append(output.with_suffix(".json"))
        written[-1].write_text(json.dumps(tinymu.sizes(checkpoint.config), indent=1) + "\n")
    return written


def _write_state(output: Path, content: object, state: dict[str, np.ndarray]) -> None:
    """Writes `content` as a .pt, or the state dict alone as safetensors."""
    if output.suffix != ".safetensors":
        write_torch_file(output, content)
        return
    from safetensors.numpy import save_file

    # safetensors has no ties: tied copies are written out.
    save_file({key: np.array(value, order="C") for key, value in state.items()}, output)


def main() -> None:
    """Runs the command."""
    with one_line_errors():
        tyro.cli(ToTorch, prog="python -m conversion.to_torch").run()


if __name__ == "__main__":
    main()

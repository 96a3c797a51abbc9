"""From PyTorch to a checkpoint folder: python -m conversion.from_torch tinymu.pt OUT/.

Takes a published TinyMU `.pt` (its yaml, and for other sizes its json, beside it), a MATPAC or
MATPAC++ `.pt` (with --probe a probe's file too; also a training checkpoint with its teachers), or a
SmolLM2 folder of safetensors. What was written is read again, turned back to PyTorch's keys and
compared with the source bit for bit; a model card is written beside it.
"""

import gc
from dataclasses import dataclass
from pathlib import Path

import tyro

from conversion.verify import Verify
from tinymu_jax.checkpoints.checkpoint import CONFIG_FILE, save_checkpoint
from tinymu_jax.checkpoints.model_card import made_from_file, parameters, write_card
from tinymu_jax.checkpoints.open import open_checkpoint, read_tokenizer
from tinymu_jax.checkpoints.pytorch.round_trip import check_converted
from tinymu_jax.errors import InputError, one_line_errors
from tinymu_jax.utils.files import exists
from tinymu_jax.utils.tree import flatten


@dataclass(frozen=True)
class FromTorch:
    """Convert a PyTorch checkpoint to a checkpoint folder; no torch needed."""

    source: tyro.conf.Positional[Path]
    """A TinyMU or MATPAC .pt, or a SmolLM2 folder."""
    output: tyro.conf.Positional[Path]
    """Folder to write."""
    probe: Path | None = None
    """A probe's file that goes with a MATPAC encoder."""
    tokenizer: str | None = None
    """tokenizer.json to put into the folder; default is the one beside the source."""

    verify: tuple[str, ...] = ()
    """Recordings about which both sides, source and folder, are asked as well."""

    def run(self) -> int:
        """Converts, and compares; returns the exit code, 1 where answers differ."""
        if not exists(self.source):
            raise InputError(f"{self.source}: no such file or folder; name a PyTorch checkpoint")
        if self.source.is_dir() and self.source.resolve() == self.output.resolve():
            raise InputError(f"{self.output}: is the source itself; name another folder")
        checkpoint = open_checkpoint(self.source, probe=self.probe)
        if self.tokenizer is not None:
            checkpoint = checkpoint._replace(tokenizer=read_tokenizer(self.tokenizer))
        weights = sum(leaf.size for _, leaf in flatten(checkpoint.params))
        kind = type(checkpoint.config).__name__.removesuffix("Config")
        save_checkpoint(self.output, checkpoint)
        # From here on both sides are views of their files; the first view of the source is held in
        # a cycle, and goes with the collector only.
        del checkpoint
        gc.collect()
        same = check_converted(self.source, self.output, self.probe)
        print(f"{kind}, {weights / 1e6:.2f} M numbers -> {self.output}/{CONFIG_FILE}")
        print(
            f"verified: {parameters(self.output) / 1e6:.2f} M parameters; back from "
            f"{self.output}/ to {self.source.name}: {same}"
        )
        card = write_card(self.output, made_from_file(self.source, self.probe))
        print(f"model card: {card}")
        if not self.verify:
            return 0
        return Verify(str(self.source), str(self.output), self.verify).run()


def main() -> None:
    """Runs the command."""
    with one_line_errors():
        code = tyro.cli(FromTorch, prog="python -m conversion.from_torch").run()
        if code:
            raise SystemExit(code)


if __name__ == "__main__":
    main()

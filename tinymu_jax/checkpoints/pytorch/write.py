"""From a checkpoint to PyTorch: python -m conversion.to_torch CHECKPOINT tinymu.pt.

A TinyMU becomes the file that the original loads strictly, with its yaml, and a json of the sizes
that the yaml does not tell; or, where the name ends in .safetensors, the same keys in that format.
A MATPAC encoder becomes a published `.pt`, and so does all of pre-training, its teachers included;
a decoder alone becomes a SmolLM2 folder. What was written is read again and compared bit for bit.
"""

from pathlib import Path

import numpy as np
import yaml

from tinymu_jax.checkpoints.checkpoint import TOKENIZER_FILE, Checkpoint
from tinymu_jax.checkpoints.pytorch import matpac, matpac_ssl, tinymu
from tinymu_jax.checkpoints.pytorch.pickle_writer import write_torch_file
from tinymu_jax.checkpoints.pytorch.published_files import PARTS, read_json_beside
from tinymu_jax.checkpoints.safetensors import write_safetensors
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import MatpacConfig, SelfSupervisedConfig
from tinymu_jax.utils.files import exists, read_text, remove, write_json, write_text


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
        write_torch_file(output, matpac_ssl.to_published(checkpoint))
        sizes = matpac_ssl.sizes_of(checkpoint.config)
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

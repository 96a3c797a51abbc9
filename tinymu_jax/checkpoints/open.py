"""From a name or a path to a model that answers: every format that checkpoints come in."""

from collections.abc import Callable
from pathlib import Path

from tinymu_jax.checkpoints import hub
from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    MODEL_FOLDER,
    RUN_FILE,
    TOKENIZER_FILE,
    Checkpoint,
    encoder_of,
    read_checkpoint,
)
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import (
    NANO,
    PUBLISHED,
    MatpacConfig,
    SelfSupervisedConfig,
    smollm2_preset,
)
from tinymu_jax.tokenizer import Tokenizer
from tinymu_jax.utils.files import exists, read_json_object, read_text

NANO_FOLDER = Path(__file__).parent / "nano"
"""The checkpoint that comes with the package; a folder of that name elsewhere is `./nano`."""


def _tokenizer_finder(
    checkpoint: Checkpoint, given: str | Path | None, name: str
) -> Callable[[], Tokenizer]:
    """Returns what finds the tokenizer when text first comes in."""
    pad = checkpoint.config.pad_token

    def find() -> Tokenizer:
        if given is not None:
            return Tokenizer(read_tokenizer(given), pad, str(given))
        if checkpoint.tokenizer is not None:
            return Tokenizer(checkpoint.tokenizer, pad, name)
        published = checkpoint.source.get("config") or {}
        decoder = published.get("model", {}).get("decoder", {}).get("textdec_name", "")
        advice = "put the decoder's tokenizer.json beside it, or name one (--tokenizer, tokenizer=)"
        if not hub.is_hub_name(decoder):
            raise InputError(f"{name}: has no tokenizer; {advice}")
        try:
            return Tokenizer(hub.fetch_tokenizer(decoder), pad, decoder)
        except InputError as error:
            raise InputError(f"{name}: has no tokenizer, and {error}; or {advice}") from error

    return find


def read_tokenizer(given: str | Path) -> str:
    """Returns the text of a tokenizer: a file's, a checkpoint's or run's, nano's, or the hub's."""
    path = NANO_FOLDER if str(given) == NANO else Path(given)
    if exists(path):
        folder = path / MODEL_FOLDER if exists(path / RUN_FILE) else path
        return read_text(folder / TOKENIZER_FILE if path.is_dir() else path)
    if hub.is_hub_name(str(given)):
        return hub.fetch_tokenizer(str(given))
    raise InputError(f"{path}: no such file; name a tokenizer.json, or a decoder on the hub")


def open_checkpoint(
    name: str | Path, revision: str | None = None, probe: str | Path | None = None
) -> Checkpoint:
    """Reads a checkpoint of any known format; arguments as `load`.

    Raises:
        InputError: nothing there, or of no known format.
    """
    from tinymu_jax.checkpoints.pytorch import matpac as matpac_files
    from tinymu_jax.checkpoints.pytorch import smollm2 as smollm2_files
    from tinymu_jax.checkpoints.pytorch import tinymu as tinymu_files

    if str(name) == NANO:
        return read_checkpoint(NANO_FOLDER)
    path = Path(name)
    local = exists(path)
    if local and revision is not None:
        raise InputError(f"{name}: is a path, which has no revision; leave it out")
    if path.is_dir():
        if exists(path / RUN_FILE):
            opened = read_checkpoint(model_folder(path))
        elif (path / hub.PUBLISHED_WEIGHTS).exists() and not (path / CONFIG_FILE).exists():
            opened = tinymu_files.from_published(path / hub.PUBLISHED_WEIGHTS)
        elif _is_transformers_folder(path):
            opened = smollm2_files.from_published(path)
        else:
            opened = read_checkpoint(path)
    elif local:
        opened = _open_file(path)
    elif smollm2_preset(str(name)) and hub.is_hub_name(str(name)):
        opened = smollm2_files.from_published(hub.fetch_decoder(str(name), revision))
    elif hub.is_hub_name(str(name)):
        opened = read_checkpoint(hub.fetch(str(name), revision))
    else:
        raise InputError(
            f"{name}: no such file or folder; name a checkpoint, or a hub repository such as "
            f"{PUBLISHED}"
        )
    if probe is None:
        return opened
    if isinstance(opened.config, SelfSupervisedConfig):
        opened = encoder_of(opened)
    if not isinstance(opened.config, MatpacConfig):
        raise InputError(f"{name}: a probe goes with a MATPAC encoder; leave it out")
    return matpac_files.with_probe(opened, probe)


def _open_file(path: Path) -> Checkpoint:
    """Reads a published file by what it holds."""
    from tinymu_jax.checkpoints.pytorch import matpac, matpac_ssl, tinymu
    from tinymu_jax.checkpoints.pytorch.published_files import read_published

    content = read_published(path)
    if tinymu.is_tinymu(content):
        return tinymu.from_published(path, content)
    if matpac_ssl.is_training(content):
        return matpac_ssl.from_published(path, content)
    return matpac.from_published(path, content)


def model_folder(folder: Path) -> Path:
    """Returns the checkpoint folder that is in a run's folder; any other folder as it is.

    Raises:
        InputError: the run has not finished.
    """
    if not exists(folder / RUN_FILE):
        return folder
    if not exists(folder / MODEL_FOLDER / CONFIG_FILE):
        raise InputError(
            f"{folder}: is a run that has not finished; wait for it, or export a checkpoint of "
            f"it: tinymu export {folder} FOLDER"
        )
    return folder / MODEL_FOLDER


def _is_transformers_folder(folder: Path) -> bool:
    """Tells a SmolLM2 folder by its config."""
    try:
        return "model_type" in read_json_object(folder / CONFIG_FILE, "")
    except InputError:
        return False

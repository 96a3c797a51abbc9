"""Opens a checkpoint of any supported format, and its tokenizer, by name or path."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tinymu_jax.checkpoints import hub
from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    MODEL_FOLDER,
    RUN_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    encoder_of,
    expected_shapes,
    published_decoder,
    read_checkpoint,
    read_config,
)
from tinymu_jax.checkpoints.gguf import from_gguf, is_gguf, tokenizer_from_gguf
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import (
    NANO,
    PUBLISHED,
    MatpacConfig,
    SelfSupervisedConfig,
    smollm2_preset,
)
from tinymu_jax.tokenizer import MAX_UNUSED, Tokenizer
from tinymu_jax.utils.files import check_content, exists, read_json_object, read_text
from tinymu_jax.utils.pipes import is_pipe

NANO_FOLDER = Path(__file__).parent / "nano"
"""Checkpoint folder that the name `nano` selects; write `./nano` for a folder of that name."""


def tokenizer_loader(
    checkpoint: Checkpoint, tokenizer: str | Path | None, name: str
) -> Callable[[], Tokenizer]:
    """Return a function that loads, and if necessary downloads, a model's tokenizer.

    The function uses `tokenizer`, a name or path for `read_tokenizer`, if given; else the
    checkpoint's tokenizer; else the published decoder's, from the hub. It raises `InputError` if
    there is none. `name` names the checkpoint in messages.
    """
    pad, size = checkpoint.config.pad_token, checkpoint.config.decoder.vocab_size
    # The function must not hold the checkpoint, whose weights are a mapped file.
    inside, source = checkpoint.tokenizer, checkpoint.source

    def load_tokenizer() -> Tokenizer:
        if tokenizer is not None:
            return Tokenizer(read_tokenizer(tokenizer), pad, str(tokenizer), size, MAX_UNUSED)
        if inside is not None:
            return Tokenizer(inside, pad, name, size)
        decoder = published_decoder(source)
        advice = "put the decoder's tokenizer.json beside it, or name one (--tokenizer, tokenizer=)"
        if not hub.is_hub_name(decoder):
            raise InputError(f"{name}: has no tokenizer; {advice}")
        try:
            return Tokenizer(hub.fetch_tokenizer(decoder), pad, decoder, size, MAX_UNUSED)
        except InputError as error:
            raise InputError(f"{name}: has no tokenizer, and {error}; or {advice}") from error

    return load_tokenizer


def read_tokenizer(name: str | Path) -> str:
    """Return the text of a tokenizer.json.

    `name` is the path of the file, or of a checkpoint, run or GGUF file that contains it; or a hub
    name; or `nano`, the small checkpoint in this package.

    Raises:
        InputError: the file does not exist, or cannot be downloaded.
    """
    path = NANO_FOLDER if str(name) == NANO else Path(name)
    check_content(path)
    if exists(path):
        folder = path / MODEL_FOLDER if exists(path / RUN_FILE) else path
        path = folder / TOKENIZER_FILE if path.is_dir() else path
        check_content(path)
        return tokenizer_from_gguf(path) if is_gguf(path) else read_text(path)
    if hub.is_hub_name(str(name)):
        return hub.fetch_tokenizer(str(name))
    raise InputError(f"{path}: no such file; name a tokenizer.json, or a decoder on the hub")


def open_checkpoint(
    name: str | Path, revision: str | None = None, probe: str | Path | None = None
) -> Checkpoint:
    """Read a checkpoint of any supported format.

    Args:
        name: path of a published `.pt` or `.safetensors` file, SmolLM2 folder or GGUF file,
            checkpoint folder or finished run; or a hub name; or `nano`, the small checkpoint in
            this package.
        revision: branch, tag or commit of a hub repository.
        probe: path of a `.pt` file with a probe (a linear classifier) to add to a MATPAC encoder.

    Raises:
        InputError: the checkpoint does not exist, or its format is unknown.
    """
    if str(name) == NANO:
        return read_checkpoint(NANO_FOLDER)
    path = Path(name)
    check_content(path)
    if is_pipe(path):
        raise InputError(f"{name}: is a pipe; write it to a file, and name that")
    if exists(path):
        if revision is not None:
            raise InputError(f"{name}: is a path, which has no revision; leave it out")
        opened = _open_folder(path) if path.is_dir() else _open_file(path)
    else:
        opened = _open_from_hub(str(name), revision)
    return opened if probe is None else _add_probe(opened, probe, name)


def describe_checkpoint(name: str | Path) -> Checkpoint:
    """Return a checkpoint like `open_checkpoint`, but read no weights of a checkpoint folder.

    The parameters of a checkpoint folder are then shapes and dtypes (`jax.ShapeDtypeStruct`).

    Raises:
        InputError: as `open_checkpoint`.
    """
    path = NANO_FOLDER if str(name) == NANO else Path(name)
    if not path.is_dir():
        return open_checkpoint(name)
    folder = model_folder(path)
    is_own_format = False
    with suppress(InputError):  # `open_checkpoint` reports it
        is_own_format = "format" in read_json_object(folder / CONFIG_FILE, "")
    if not is_own_format:
        return open_checkpoint(name)
    config, source = read_config(folder)
    check_content(folder / WEIGHTS_FILE)
    tokenizer = folder / TOKENIZER_FILE
    text = read_text(tokenizer) if exists(tokenizer) else None
    return Checkpoint(config, expected_shapes(config), text, source)


def _open_folder(path: Path) -> Checkpoint:
    """Read the folder of a run, a published TinyMU, a SmolLM2 or a checkpoint."""
    from tinymu_jax.checkpoints.pytorch import smollm2, tinymu

    if exists(path / RUN_FILE):
        return read_checkpoint(model_folder(path))
    if (path / hub.PUBLISHED_WEIGHTS).exists() and not (path / CONFIG_FILE).exists():
        return tinymu.from_published(path / hub.PUBLISHED_WEIGHTS)
    is_transformers = False
    with suppress(InputError):  # a config.json that cannot be read is reported by read_checkpoint
        is_transformers = "model_type" in read_json_object(path / CONFIG_FILE, "")
    return smollm2.from_published(path) if is_transformers else read_checkpoint(path)


def _open_file(path: Path) -> Checkpoint:
    """Read a GGUF file, or a published TinyMU, encoder or pre-training file.

    The keys in a published file tell which of them it is.
    """
    from tinymu_jax.checkpoints.pytorch import matpac, matpac_ssl, tinymu
    from tinymu_jax.checkpoints.pytorch.published_files import read_published

    if is_gguf(path):
        return from_gguf(path)
    content = read_published(path)
    if tinymu.is_tinymu(content):
        return tinymu.from_published(path, content)
    if matpac_ssl.is_pretraining(content):
        return matpac_ssl.from_published(path, content)
    return matpac.from_published(path, content)


def _open_from_hub(name: str, revision: str | None) -> Checkpoint:
    """Download and read a SmolLM2 decoder or any other model from the hub."""
    from tinymu_jax.checkpoints.pytorch import smollm2

    if not hub.is_hub_name(name):
        raise InputError(
            f"{name}: no such file or folder; name a checkpoint, {NANO}, or a hub repository such "
            f"as {PUBLISHED}"
        )
    if smollm2_preset(name):
        decoder = smollm2.from_published(hub.fetch_decoder(name, revision))
        # Which settings the hub's cache holds depends on other programs.
        return decoder._replace(source={})
    return read_checkpoint(hub.fetch(name, revision))


def _add_probe(opened: Checkpoint, probe: str | Path, name: str | Path) -> Checkpoint:
    """Add the linear classifier in a file to a checkpoint's encoder; `name` is for messages."""
    from tinymu_jax.checkpoints.pytorch.matpac import with_probe

    if isinstance(opened.config, SelfSupervisedConfig):
        opened = encoder_of(opened)
    if not isinstance(opened.config, MatpacConfig):
        raise InputError(f"{name}: a probe needs a MATPAC encoder; leave it out")
    return with_probe(opened, probe)


def model_folder(folder: Path) -> Path:
    """Return the checkpoint folder in a training run's folder; any other folder unchanged.

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

"""Downloads checkpoints and tokenizers from the Hugging Face hub; converts published TinyMUs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    published_decoder,
    save_checkpoint,
)
from tinymu_jax.checkpoints.hub_connection import (
    Unreachable,
    check_hub_variables,
    why_unreachable,
    with_route,
)
from tinymu_jax.errors import InputError, reason_of, translate
from tinymu_jax.models.config import NANO
from tinymu_jax.utils.compilation_cache import cache_folder
from tinymu_jax.utils.files import read_json_object, read_text

PUBLISHED_WEIGHTS, PUBLISHED_CONFIG = "tinymu.pt", "tinymu.yaml"


class FileMissingError(InputError):
    """A hub repository exists, but does not have the requested file."""


def is_hub_name(name: str) -> bool:
    """Return whether a name looks like a hub repository, "owner/name", and not like a path."""
    owner, _, repo = name.partition("/")
    is_file = Path(repo).suffix in (".pt", ".pth", ".ckpt", ".json", ".safetensors")
    return bool(owner and repo) and "/" not in repo and owner[0] not in "./~" and not is_file


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence the log of the hub client, which reports every retry, in a `with` block."""
    from huggingface_hub import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def download(repo: str, file: str, revision: str | None = None) -> Path:
    """Download one file of a hub repository and return its path in the hub's cache.

    If the hub cannot be reached, a file that was downloaded before is returned.

    Raises:
        FileMissingError: the repository has no such file.
        InputError: the file cannot be downloaded, or an environment variable is unusable.
    """
    check_hub_variables()
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    missing = {
        errors.RepositoryNotFoundError: f"{repo}: the hub has no such repository, or it is "
        "private; check the name, or log in with `hf auth login`",
        errors.RevisionNotFoundError: f"{repo}: has no revision {revision!r}; check its name",
    }
    with quiet_hub(), translate(lambda error: _download_failure(repo, file, error), missing):
        cached = try_to_load_from_cache(repo, file, revision=revision)
        unreachable = why_unreachable()
        if unreachable is not None:
            if isinstance(cached, str):
                return Path(cached)
            raise _unreachable(repo, file, unreachable)
        try:
            return Path(hf_hub_download(repo, file, revision=revision))
        except errors.LocalEntryNotFoundError as error:
            reason = with_route(reason_of(error.__cause__ or error))
            raise _unreachable(repo, file, Unreachable(reason)) from error
        except errors.EntryNotFoundError as error:
            raise FileMissingError(f"{repo}: has no {file}; name a TinyMU repository") from error


def _unreachable(repo: str, file: str, unreachable: Unreachable) -> InputError:
    reason, remedy = unreachable
    alternative = f"a {file}" if file == TOKENIZER_FILE else f"a checkpoint ({PUBLISHED_WEIGHTS})"
    return InputError(
        f"{repo}: {file} cannot be downloaded, the hub is out of reach ({reason}); "
        f"{remedy}, give the path of {alternative} that you have, or use {NANO}, the "
        "small model that comes with the package"
    )


def _download_failure(repo: str, file: str, error: Exception) -> str:
    from huggingface_hub import constants

    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{repo}: {file} cannot be stored in {constants.HF_HUB_CACHE} ({reason_of(error)}); "
            "make room, or set HF_HOME to another folder"
        )
    return (
        f"{repo}: {file} cannot be downloaded ({reason_of(error)}); check the network and try again"
    )


def fetch_tokenizer(repo: str) -> str:
    """Download a decoder's `tokenizer.json` from the hub and return its text.

    Raises:
        InputError: the file cannot be downloaded, or is not text.
    """
    return read_text(download(repo, TOKENIZER_FILE))


def fetch_decoder(repo: str, revision: str | None = None) -> Path:
    """Download a decoder (config, weights, tokenizer) and return its folder in the hub's cache.

    Raises:
        InputError: a file cannot be downloaded.
    """
    names = ("config.json", "model.safetensors", TOKENIZER_FILE)
    return _common_folder(repo, *(download(repo, name, revision) for name in names))


def fetch(repo: str, revision: str | None = None) -> Path:
    """Download a model from the hub and return the path of its checkpoint folder.

    A published TinyMU (`.pt` and yaml) is converted on the first call.

    Raises:
        InputError: the repository has neither a checkpoint folder nor a published TinyMU, or cannot
            be downloaded or converted.
    """
    folder = cache_folder() / "hub" / f"{repo.replace('/', '--')}@{revision or 'main'}"
    if (folder / CONFIG_FILE).exists():
        return folder
    if _has_cached_checkpoint(repo, revision):
        return _fetch_checkpoint(repo, revision)
    try:
        yaml = download(repo, PUBLISHED_CONFIG, revision)
    except FileMissingError:
        is_checkpoint = False
        with suppress(FileMissingError):
            is_checkpoint = _is_checkpoint_config(download(repo, CONFIG_FILE, revision))
        if not is_checkpoint:
            raise
        return _fetch_checkpoint(repo, revision)
    return _convert(repo, revision, yaml, folder)


def _is_checkpoint_config(path: Path) -> bool:
    """Return whether a config.json belongs to a checkpoint folder, not to another library."""
    with suppress(InputError):
        return read_json_object(path, "").keys() >= {"format", "model", "config"}
    return False


def _has_cached_checkpoint(repo: str, revision: str | None) -> bool:
    """Return whether the hub's cache has a checkpoint folder of a repository.

    If so, `fetch` need not ask the hub for a published TinyMU, which fails without a connection.
    """
    check_hub_variables()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        config = try_to_load_from_cache(repo, CONFIG_FILE, revision=revision)
        return isinstance(config, str) and _is_checkpoint_config(Path(config))
    return False


def _fetch_checkpoint(repo: str, revision: str | None) -> Path:
    """Download a checkpoint folder, or find it in the cache if offline, and return its path."""
    files = [download(repo, name, revision) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    # Encoders have no tokenizer. A decoder without one raises an error on its first text.
    with suppress(InputError):
        files.append(download(repo, TOKENIZER_FILE, revision))
    return _common_folder(repo, *files)


def _common_folder(repo: str, *files: Path) -> Path:
    """Return the files' folder; raise `InputError` if the files are of different commits."""
    if len({file.parent for file in files}) > 1:
        raise InputError(f"{repo}: changed while it was downloaded; try again")
    return files[0].parent


def _convert(repo: str, revision: str | None, yaml: Path, folder: Path) -> Path:
    """Download a published TinyMU, convert it to a checkpoint `folder`, and return `folder`.

    `yaml` is the TinyMU's config file, downloaded before; it must be of the weights' commit.
    """
    from tinymu_jax.checkpoints.pytorch import tinymu

    weights = download(repo, PUBLISHED_WEIGHTS, revision)
    _common_folder(repo, yaml, weights)
    checkpoint = tinymu.from_published(weights)
    # If the tokenizer cannot be downloaded now, the model tries again on its first text.
    with suppress(InputError):
        checkpoint = checkpoint._replace(
            tokenizer=fetch_tokenizer(published_decoder(checkpoint.source))
        )
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        save_checkpoint(temporary, checkpoint)
        os.replace(temporary, folder)
    except InputError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except OSError:
        # `folder` exists: another process was faster, or a killed process left it incomplete.
        if (folder / CONFIG_FILE).exists():
            shutil.rmtree(temporary)
            return folder
        shutil.rmtree(folder)
        os.replace(temporary, folder)
    return folder

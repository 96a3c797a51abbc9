"""Published checkpoints from the hub: downloaded, converted once, kept."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    save_checkpoint,
)
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import NANO
from tinymu_jax.utils.compilation_cache import cache_folder
from tinymu_jax.utils.files import read_json_object, read_text

WEIGHTS, DESCRIPTION = "tinymu.pt", "tinymu.yaml"


class FileMissing(InputError):
    """A repository is there, but has no such file."""


def is_hub_name(name: str) -> bool:
    """Tells "owner/name" from a path."""
    owner, slash, rest = name.partition("/")
    looks_like_a_file = Path(rest).suffix in (".pt", ".pth", ".ckpt", ".json", ".safetensors")
    parts = bool(slash and owner and rest) and "/" not in rest
    return parts and owner[0] not in "./~" and not looks_like_a_file


def download(repo: str, file: str, revision: str | None = None) -> Path:
    """Returns the local copy of one file of a hub repository.

    Raises:
        FileMissing: the repository has no such file.
        InputError: it cannot be had; the message says why and what else to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Every retry would be a line of its own; what came of them is told once.
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except LocalEntryNotFoundError as error:
        instead = f"a {file}" if file == TOKENIZER_FILE else f"a checkpoint ({WEIGHTS})"
        raise InputError(
            f"{repo}: {file} cannot be downloaded, the hub is out of reach; check the network, "
            f"give the path of {instead} that you have, or name {NANO}, the small model that comes "
            "along"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{repo}: the hub has no such repository, or it is private; check the name, or log "
            "in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repo}: has no revision {revision!r}; check its name") from error
    except EntryNotFoundError as error:
        raise FileMissing(f"{repo}: has no {file}; name a TinyMU repository") from error
    except Exception as error:
        # The hub's client lets errors of whichever http library it uses through.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{repo}: {file} cannot be downloaded ({reason}); check the network and try again"
        ) from error
    finally:
        hub_logging.set_verbosity(verbosity)


def fetch_tokenizer(name: str) -> str:
    """Returns the text of the `tokenizer.json` of a decoder on the hub.

    Raises:
        InputError: as `download`; it is no text.
    """
    return read_text(download(name, TOKENIZER_FILE))


def fetch_decoder(name: str, revision: str | None = None) -> Path:
    """Returns the folder of a decoder on the hub: sizes, weights, tokenizer.

    Raises:
        InputError: as `download`.
    """
    files = ("config.json", "model.safetensors", TOKENIZER_FILE)
    # All come into one snapshot folder.
    *_, last = (download(name, file, revision) for file in files)
    return last.parent


def fetch(repo: str, revision: str | None = None) -> Path:
    """Returns the checkpoint folder of a model on the hub.

    A repository that holds one (`tinymu push`) gives it as it is; of a published TinyMU, a `.pt`
    with its yaml, one is made on the first call.

    Raises:
        InputError: as `download`, or as the conversion.
    """
    folder = cache_folder() / "hub" / f"{repo.replace('/', '--')}@{revision or 'main'}"
    if (folder / CONFIG_FILE).exists():
        return folder
    if _was_pushed(repo, revision):
        return _fetch_folder(repo, revision)
    try:
        description = download(repo, DESCRIPTION, revision)
    except FileMissing:
        # What is no TinyMU of either kind is told as one without the published file.
        pushed = False
        with suppress(FileMissing):
            pushed = _is_ours(download(repo, CONFIG_FILE, revision))
        if not pushed:
            raise
        return _fetch_folder(repo, revision)
    return _convert(repo, revision, description, folder)


def _is_ours(config: Path) -> bool:
    """Tells our own config.json from that of other libraries."""
    with suppress(InputError):
        return read_json_object(config, "").keys() >= {"format", "model", "config"}
    return False


def _was_pushed(repo: str, revision: str | None) -> bool:
    """Tells whether a checkpoint folder has been had from there before.

    Then no published file is looked for, which could not be told from a missing one where the hub
    is out of reach.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(repo, CONFIG_FILE, revision=revision)
    except HFValidationError:
        return False
    return isinstance(config, str) and _is_ours(Path(config))


def _fetch_folder(repo: str, revision: str | None) -> Path:
    """Returns the local copy of a checkpoint folder on the hub, the newest where it is in reach."""
    files = [download(repo, name, revision) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    # An encoder has none; what lacks one is told when text comes in.
    with suppress(InputError):
        files.append(download(repo, TOKENIZER_FILE, revision))
    if len({file.parent for file in files}) > 1:
        raise InputError(f"{repo}: changed while it was downloaded; try again")
    return files[0].parent


def _convert(repo: str, revision: str | None, description: Path, folder: Path) -> Path:
    """Converts a published TinyMU and keeps it as `folder`."""
    from tinymu_jax.checkpoints.pytorch import tinymu

    weights = download(repo, WEIGHTS, revision)
    # Both come into one snapshot folder, so that the yaml lies beside the weights.
    if description.parent != weights.parent:
        raise InputError(f"{repo}: changed while it was downloaded; try again")
    checkpoint = tinymu.from_published(weights)
    decoder = checkpoint.source["config"]["model"]["decoder"]["textdec_name"]
    own = folder.with_name(f"{folder.name}.{os.getpid()}")
    # One that cannot be had is asked for again, and missed with a reason, when text comes in.
    with suppress(InputError):
        checkpoint = checkpoint._replace(tokenizer=fetch_tokenizer(decoder))
    try:
        save_checkpoint(own, checkpoint)
        os.replace(own, folder)
    except InputError:
        shutil.rmtree(own, ignore_errors=True)
        raise
    except OSError:
        # Another process was faster; a folder without config is what one left that was killed.
        if (folder / CONFIG_FILE).exists():
            shutil.rmtree(own)
            return folder
        shutil.rmtree(folder)
        os.replace(own, folder)
    return folder

"""The `tinymu push` command: upload a checkpoint folder to the hub."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    published_decoder,
    read_checkpoint,
)
from tinymu_jax.checkpoints.hub import quiet_hub
from tinymu_jax.checkpoints.hub_connection import check_hub_variables, require_hub
from tinymu_jax.checkpoints.model_card import (
    CARD_FILE,
    REPORT_FILE,
    card_text,
    is_generated,
    origin_of,
    with_name,
)
from tinymu_jax.checkpoints.open import NANO_FOLDER, model_folder
from tinymu_jax.errors import InputError, reason_of, translate
from tinymu_jax.models.config import NANO, SmolLM2Config, TinyMUConfig, smollm2_preset
from tinymu_jax.utils.files import exists, read_text
from tinymu_jax.utils.numbers import file_size

UPLOADED = (
    *(CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE),
    *("LICENSE", "LICENSE.md", "LICENSE.txt", REPORT_FILE, "report.md"),
)
"""Names of the files to upload; all other files, such as optimizer states, are skipped."""


@dataclass(frozen=True)
class Push:
    """Upload a checkpoint folder to the Hugging Face hub.

    The checkpoint is checked first. If the folder has no model card, a card is generated.
    """

    folder: tyro.conf.Positional[Path]
    """A checkpoint folder, or the folder of a finished training run."""
    name: tyro.conf.Positional[str]
    """OWNER/NAME on the hub; the repository is created if it does not exist."""
    private: bool = False
    """Create a private repository."""
    revision: str | None = None
    """Branch to upload to, created if it does not exist; default: main."""
    message: str = "Upload a checkpoint of tinymu_jax"
    """Commit message."""
    license: str | None = None
    """Licence of the weights (apache-2.0, ...), for the generated model card."""
    dry_run: bool = False
    """Check the checkpoint and list the files without uploading them."""

    def run(self) -> int:
        """Check the checkpoint, list its files and upload them; return the exit code."""
        check_hub_variables()
        _check_name(self.name)
        folder = _checkpoint_folder(self.folder)
        _check_tokenizer(folder, read_checkpoint(folder))
        card = self._card(folder)
        # The card is not written to the folder, so that a failed upload leaves the folder as it is.
        files: dict[str, Path | bytes] = {
            name: folder / name for name in UPLOADED if (folder / name).is_file()
        }
        if card is not None:
            files[CARD_FILE] = card.encode()
        for name, content in sorted(files.items(), key=lambda item: UPLOADED.index(item[0])):
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            print(f"{name:20}{file_size(size)}")
        if others := sorted(p.name for p in folder.iterdir() if p.name not in UPLOADED):
            print(f"skipped: {', '.join(others)}")
        if self.dry_run:
            branch = f" ({self.revision})" if self.revision else ""
            print(f"dry run: nothing is uploaded to {self.name}{branch}")
            return 0
        token = _token()
        require_hub(f"{self.name}: cannot be uploaded")
        with quiet_hub(), _progress_on_terminals(), translate(partial(_failure, self.name)):
            print(f"-> {self._upload(files, token)}")
        revision = f', revision="{self.revision}"' if self.revision else ""
        print(f'load it with tinymu_jax.load("{self.name}"{revision})')
        return 0

    def _card(self, folder: Path) -> str | None:
        """Return the text of the model card to upload; None if the folder's card is handwritten."""
        card = folder / CARD_FILE
        if not exists(card):
            return card_text(folder, origin_of(folder), self.name, self.license)
        if is_generated(card):
            return with_name(read_text(card), self.name, self.license)
        if self.license is not None:
            raise InputError(
                f"{card}: was written by hand, and --license does not change it; write the licence "
                "there"
            )
        return None

    def _upload(self, files: Mapping[str, Path | bytes], token: str) -> str:
        """Upload files (name -> path or content) in one commit; return the repository's URL."""
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token, library_name="tinymu_jax")
        api.create_repo(self.name, private=self.private or None, exist_ok=True)
        if self.private and not api.repo_info(self.name).private:
            raise InputError(
                f"{self.name}: exists already and is public; make it private on the hub first, or "
                "leave out --private"
            )
        if self.revision is not None:
            api.create_branch(self.name, branch=self.revision, exist_ok=True)
        api.create_commit(
            self.name,
            [CommitOperationAdd(name, content) for name, content in sorted(files.items())],
            commit_message=self.message,
            revision=self.revision,
        )
        tree = f"/tree/{self.revision}" if self.revision else ""
        return f"{api.endpoint}/{self.name}{tree}"


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    owner, _, repo = name.partition("/")
    allowed = bool(owner and repo)
    try:
        validate_repo_id(name)
    except HFValidationError:
        allowed = False
    if not allowed:
        raise InputError(
            f"{name}: is not a repository name; write OWNER/NAME, in letters, digits, '-', '_' "
            "and '.'"
        )


def _checkpoint_folder(folder: Path) -> Path:
    """Return the checkpoint folder: `folder` itself, or the model's folder in a finished run."""
    if str(folder) == NANO:
        return NANO_FOLDER
    if not exists(folder):
        raise InputError(f"{folder}: no such folder; name a checkpoint folder")
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is a file; convert it to a checkpoint folder with tinymu convert from-torch"
        )
    return model_folder(folder)


def _check_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise `InputError` if a checkpoint with a language model has no usable tokenizer."""
    from tinymu_jax.tokenizer import Tokenizer

    config = checkpoint.config
    if not isinstance(config, TinyMUConfig | SmolLM2Config):
        return
    if checkpoint.tokenizer is not None:
        is_tinymu = isinstance(config, TinyMUConfig)
        pad, decoder = (config.pad_token, config.decoder) if is_tinymu else (None, config)
        path = str(folder / TOKENIZER_FILE)
        Tokenizer(checkpoint.tokenizer, pad, path, decoder.vocab_size)
        return
    if smollm2_preset(published_decoder(checkpoint.source)) is None:
        raise InputError(
            f"{folder}: has no {TOKENIZER_FILE}, and names no published decoder to take it from; "
            "put the decoder's there"
        )


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError("no token for the hub: log in with `hf auth login`, or set HF_TOKEN")
    return token


@contextmanager
def _progress_on_terminals() -> Iterator[None]:
    """Hide the hub's progress bars if stderr is no terminal, unless the user set a preference."""
    from huggingface_hub import constants, utils

    chosen = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    if chosen or utils.are_progress_bars_disabled() or sys.stderr.isatty():
        yield
        return
    with utils.disable_progress_bars():
        yield


def _failure(name: str, error: Exception) -> str:
    # The hub's client wraps the error of a single file in a RuntimeError without the reason.
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"{name}: the hub does not know the token; log in again with `hf auth login`"
    if status == 403:
        return (
            f"{name}: the token has no write access; check the owner's name, or use a token with "
            "write access (`hf auth login`)"
        )
    return f"{name}: cannot be uploaded ({reason_of(error)}); check the network and try again"

"""The `tinymu push` command: a checkpoint folder to the hub, from where `load` has it by name."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tinymu_jax.checkpoints.checkpoint import (
    CONFIG_FILE,
    MODEL_FOLDER,
    RUN_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    read_checkpoint,
)
from tinymu_jax.checkpoints.model_card import (
    CARD_FILE,
    REPORT_FILE,
    card_text,
    is_written_by_us,
    origin_of,
    renamed,
)
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import NANO, SmolLM2Config, TinyMUConfig, smollm2_preset
from tinymu_jax.utils.files import exists, read_text

SENT = (
    *(CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE),
    *("LICENSE", "LICENSE.md", "LICENSE.txt", REPORT_FILE, "report.md"),
)
"""What belongs to a checkpoint; states of optimisers, data and hidden files do not."""


@dataclass(frozen=True)
class Push:
    """Upload a checkpoint folder to the hub.

    The folder is read as `load` reads it first; a model card is sent along where there is none.
    """

    folder: tyro.conf.Positional[Path]
    """A checkpoint folder, or that of a run that has come to its end."""
    name: tyro.conf.Positional[str]
    """OWNER/NAME on the hub; the repository is made if it is not there."""
    private: bool = False
    """Make it one that only its owner sees."""
    revision: str | None = None
    """Branch, made if it is not there; default is main."""
    message: str = "Upload a checkpoint of tinymu_jax"
    """Of the commit."""
    license: str | None = None
    """Identifier of the weights' licence (apache-2.0, ...), for the model card of this upload."""
    dry_run: bool = False
    """Check and list only; nothing is sent."""

    def run(self) -> int:
        """Pushes; returns the exit code."""
        _check_name(self.name)
        folder = _checkpoint_in(self.folder)
        _check_whole(folder, read_checkpoint(folder))
        card = self._card(folder)
        files = {name: folder / name for name in SENT if (folder / name).is_file()}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        if card is not None:
            sizes[CARD_FILE] = len(card.encode())
        for name in (name for name in SENT if name in sizes):
            print(f"{name:20}{_size(sizes[name])}")
        others = sorted(p.name for p in folder.iterdir() if p.name not in SENT)
        if others:
            print(f"left out: {', '.join(others)}")
        where = f"{self.name} ({self.revision})" if self.revision else self.name
        if self.dry_run:
            print(f"dry run: nothing is sent to {where}")
            return 0
        token = _token()
        # The folder itself stays as it is, whatever becomes of the upload.
        sent = files if card is None else {**files, CARD_FILE: card.encode()}
        with _told(self.name):
            print(f"-> {self._upload(sent, token)}")
        print(f'load it with tinymu_jax.load("{self.name}"{self._revision_argument()})')
        return 0

    def _card(self, folder: Path) -> str | None:
        """Returns the card that is to be sent; None where somebody wrote one."""
        card = folder / CARD_FILE
        if not exists(card):
            return card_text(folder, origin_of(folder), self.name, self.license)
        if is_written_by_us(card):
            return renamed(read_text(card), self.name, self.license)
        if self.license is not None:
            raise InputError(
                f"{card}: is a card of your own, in which --license changes nothing; write the "
                "licence there"
            )
        return None

    def _revision_argument(self) -> str:
        return f', revision="{self.revision}"' if self.revision else ""

    def _upload(self, files: Mapping[str, Path | bytes], token: str) -> str:
        """Sends the files in one go and returns the address where they are."""
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token, library_name="tinymu_jax")
        api.create_repo(self.name, private=self.private or None, exist_ok=True)
        if self.private and not api.repo_info(self.name).private:
            raise InputError(
                f"{self.name}: is there already and public; make it private on the hub first, or "
                "leave --private out"
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
    """Refuses what the hub takes for no name, before anything is read."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        owner, _, rest = name.partition("/")
        allowed = bool(owner and rest)
    except HFValidationError:
        allowed = False
    if not allowed:
        raise InputError(
            f"{name}: is no name of a repository; write OWNER/NAME, in letters, digits, '-', '_' "
            "and '.'"
        )


def _checkpoint_in(folder: Path) -> Path:
    """Returns the checkpoint folder that is meant."""
    if str(folder) == NANO:
        from tinymu_jax.checkpoints.open import NANO_FOLDER

        return NANO_FOLDER
    if not exists(folder):
        raise InputError(f"{folder}: no such folder; name a checkpoint folder")
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is a file; make a checkpoint folder of it with "
            "python -m conversion.from_torch"
        )
    if not exists(folder / RUN_FILE):
        return folder
    if not exists(folder / MODEL_FOLDER / CONFIG_FILE):
        raise InputError(
            f"{folder}: is a run that has not come to its end; wait for it, or write the model of "
            f"a checkpoint: tinymu export {folder} FOLDER"
        )
    return folder / MODEL_FOLDER


def _check_whole(folder: Path, checkpoint: Checkpoint) -> None:
    """Refuses a tokenizer that cannot be used, and text without any."""
    from tinymu_jax.tokenizer import Tokenizer

    config = checkpoint.config
    if not isinstance(config, TinyMUConfig | SmolLM2Config):
        return
    if checkpoint.tokenizer is not None:
        pad = config.pad_token if isinstance(config, TinyMUConfig) else 0
        Tokenizer(checkpoint.tokenizer, pad, str(folder / TOKENIZER_FILE))
        return
    published = (checkpoint.source.get("config") or {}).get("model") or {}
    if smollm2_preset(str((published.get("decoder") or {}).get("textdec_name", ""))) is None:
        raise InputError(
            f"{folder}: has no {TOKENIZER_FILE}, and names no known decoder that would bring one; "
            "put the decoder's there"
        )


def _token() -> str:
    """Returns the token that the hub's client finds."""
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError("no token for the hub: log in with `hf auth login`, or set HF_TOKEN")
    return token


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Says in a sentence what the hub, or the way there, refuses."""
    from huggingface_hub import constants
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    # Who has set the variable, or put the bars out, is not to be overruled.
    chosen = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled()
    without_bars = not sys.stderr.isatty() and not chosen
    if without_bars:
        disable_progress_bars()
    try:
        yield
    except InputError:
        raise
    except Exception as caught:
        # What went wrong with one file is the cause of an error without a reason.
        plain = isinstance(caught, RuntimeError) and caught.__cause__ is not None
        error = caught.__cause__ if plain else caught
        if isinstance(error, HfHubHTTPError):
            raise InputError(f"{name}: {_refusal(error)}") from error
        # The hub's client lets errors of whichever http library it uses through.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        unreached = isinstance(error, ConnectionError) or "Connect" in type(error).__name__
        if unreached or "Timeout" in type(error).__name__:
            raise InputError(
                f"{name}: the hub is out of reach ({reason}); check the network and try again"
            ) from error
        raise InputError(f"{name}: cannot be uploaded ({reason}); try again") from error
    finally:
        hub_logging.set_verbosity(verbosity)
        if without_bars:
            enable_progress_bars()


def _refusal(error: Any) -> str:
    """Returns why the hub refused, and what to do."""
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return "the hub does not know the token; log in again with `hf auth login`"
    if status == 403:
        return (
            "the token may not write there; check the owner's name, or take a token that may "
            "write (`hf auth login`)"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the hub refuses ({reason}); try again"


def _size(count: int) -> str:
    """Writes a number of bytes."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} B"

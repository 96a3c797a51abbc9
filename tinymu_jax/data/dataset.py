"""Random access to a prepared data set, a folder with shards of records and a manifest.

dataset.json                  manifest: features, preprocessing, counts, shards; written last
index.npz                     lengths of all clips and questions, for planning the packing
bad.jsonl                     paths of unusable recordings, each with the reason
shard-00000.array_record      records (clips with questions), see `tinymu_jax.data.records`
shard-00000.json              entries of this shard in the manifest and the index
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.records import Record, decode_record
from tinymu_jax.data.sampler import SequenceLengths
from tinymu_jax.errors import InputError, translate
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import check_content, check_library_path, exists, read_json_object
from tinymu_jax.utils.tree import has_arrays

DATASET_FILE, INDEX_FILE, BAD_FILE = "dataset.json", "index.npz", "bad.jsonl"
FORMAT = 2
RERUN = "run `tinymu data prepare` again, it continues where something is missing"


class DatasetIndex(NamedTuple):
    """Lengths of the R clips of a data set and of their Q questions, before truncation."""

    columns: Int[np.ndarray, "R"]
    """Number of encoder outputs of each clip; number of tokens if the clips are texts."""
    first: Int[np.ndarray, "R1"]
    """Index of each clip's first question, and Q as the last of R + 1 numbers."""
    prompt: Int[np.ndarray, "Q"]
    """Number of prompt tokens of each question."""
    answer: Int[np.ndarray, "Q"]
    """Number of answer tokens of each question, without the end token."""

    def lengths(
        self, config: TinyMUConfig, max_columns: int | None = None, text: bool = False
    ) -> SequenceLengths:
        """Count the decoder positions of each clip, prompt and answer after truncation.

        Args:
            config: config of the model; its `max_text_tokens` limits prompts and answers.
            max_columns: number of encoder outputs to which longer clips are cropped
                (`tinymu_jax.data.augment.max_columns`); None: clips are not cropped.
            text: whether the clips are texts. Each token of a text takes one position; the outputs
                of the encoder are first pooled and projected.
        """
        limit = config.max_text_tokens
        audio = self.columns if max_columns is None else np.minimum(self.columns, max_columns)
        if not text:
            num_outputs = config.projector.num_outputs
            audio = np.array([num_outputs(n // config.pooling) for n in audio.tolist()])
        prompt, labels = np.minimum(self.prompt, limit), np.minimum(self.answer + 1, limit)
        return SequenceLengths(audio, self.first, prompt, labels)


class _Shard(NamedTuple):
    """A shard's entry in the manifest."""

    name: str
    bytes: int
    records: int


class Dataset:
    """The records (clips with questions) of a prepared data set, by index."""

    def __init__(self, folder: str | Path) -> None:
        """Open the folder of a data set and compare the shards' sizes with the manifest.

        Raises:
            InputError: the folder holds no data set, or a shard is missing or truncated.
        """
        self.folder = Path(folder)
        check_library_path(folder)
        path = self.folder / DATASET_FILE
        if not exists(path):
            raise InputError(f"{folder}: has no {DATASET_FILE}; {RERUN}")
        self.manifest = read_json_object(path, RERUN)
        version = self.manifest.get("format")
        if version != FORMAT:
            raise InputError(
                f"{folder}: format {version!r}, this version reads {FORMAT}; prepare it again"
            )
        self.features = FeatureConfig.from_dict(self.manifest.get("features"), str(path))
        with translate(f"{path}: is damaged ({{reason}}); {RERUN}"):
            self.tokenizer, self.encoder = self.manifest["tokenizer"], self.manifest["encoder"]
            shards = [_Shard(**shard) for shard in self.manifest["shards"]]
            sizes = [(self.folder / shard.name, int(shard.bytes)) for shard in shards]
            if outside := [s.name for s in shards if s.name != Path(s.name).name]:
                raise ValueError(f"{outside[0]!r} is outside the folder")
            num_records = sum(int(shard.records) for shard in shards)
        for shard, expected in sizes:
            size = shard.stat().st_size if exists(shard) else 0
            if size != expected:
                check_content(shard, may_be_empty=True)
                raise InputError(f"{shard}: has {size} bytes of {expected}; {RERUN}")
        index = self.folder / INDEX_FILE
        check_content(index, may_be_empty=True)
        with translate(f"{index}: is damaged ({{reason}}); {RERUN}"):
            with np.load(index) as file:
                self.index = DatasetIndex(*(file[name] for name in DatasetIndex._fields))
            if len(self) != num_records:
                raise ValueError(f"{len(self)} clips instead of {num_records}")
        self._shard_paths = [str(self.folder / shard.name) for shard in shards if shard.records]
        self._source: Any = None

    def __len__(self) -> int:
        return len(self.index.columns)

    def lengths(self, config: TinyMUConfig, max_columns: int | None = None) -> SequenceLengths:
        """Count the decoder positions of each clip and question; see `DatasetIndex.lengths`."""
        return self.index.lengths(config, max_columns, self.features.kind == "text")

    def __getitem__(self, number: int) -> Record:
        """Read the record with a given index: a clip's features and questions."""
        if self._source is None:
            from grain.sources import ArrayRecordDataSource

            self._source = ArrayRecordDataSource(self._shard_paths)
        return decode_record(self._source[number])

    def __getstate__(self) -> Mapping[str, Any]:
        """Return the state to pickle, without the open shard files."""
        return self.__dict__ | {"_source": None}

    def check_model(self, tokenizer: str, encoder: Mapping[str, Any]) -> None:
        """Raise `InputError` if the data set was prepared with another tokenizer or encoder.

        Args:
            tokenizer: contents of the model's `tokenizer.json`.
            encoder: parameters of the model's encoder. They are compared if the data set stores
                embeddings, unless they are shapes without values.
        """
        if fingerprint.of_text(tokenizer) != self.tokenizer:
            raise InputError(
                f"{self.folder}: its tokens come from another tokenizer than the model's; prepare "
                "it again with the model's tokenizer.json (--tokenizer)"
            )
        if not has_arrays(encoder):
            return
        if self.encoder is not None and fingerprint.of_weights(encoder) != self.encoder:
            raise InputError(
                f"{self.folder}: its embeddings come from another encoder than the model's; "
                "prepare it again with the model (--checkpoint), or store log_mel"
            )

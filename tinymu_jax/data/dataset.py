"""A prepared data set: shards of records, and one page that says what they are.

dataset.json                  what is stored, how it was read, how many; written last
index.npz                     lengths of every record, from which a run is planned
bad.jsonl                     recordings that could not be used, and why
shard-00000.array_record      records, as `tinymu_jax.data.records` writes them
shard-00000.json              what `dataset.json` and the index are made of
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from tinymu_jax.data.config import FeatureConfig
from tinymu_jax.data.records import Record, decode_record
from tinymu_jax.data.sampler import SequenceLengths
from tinymu_jax.errors import InputError
from tinymu_jax.models.config import TinyMUConfig
from tinymu_jax.utils import fingerprint
from tinymu_jax.utils.files import exists, read_json_object

DATASET_FILE, INDEX_FILE, BAD_FILE = "dataset.json", "index.npz", "bad.jsonl"

FORMAT = 2

AGAIN = "run `tinymu data prepare` again, it goes on where something is missing"


class DatasetIndex(NamedTuple):
    """Lengths of R records and their Q questions, before anything is cut."""

    columns: Int[np.ndarray, "R"]
    """Vectors that the encoder gives for each clip."""
    first: Int[np.ndarray, "R1"]
    """The first question of each record; at the end, the number of all."""
    prompt: Int[np.ndarray, "Q"]
    answer: Int[np.ndarray, "Q"]
    """Tokens of each answer, without the end token."""

    def lengths(
        self, config: TinyMUConfig, max_columns: int | None = None, text: bool = False
    ) -> SequenceLengths:
        """Returns the lengths that a model computes: prompts and answers cut as published.

        Args:
            config: of the model.
            max_columns: of a clip, where longer ones are cropped while training
                (`tinymu_jax.data.augment.max_columns`).
            text: the clips are texts, which go to the decoder as they are.
        """
        limit = config.max_text_tokens
        columns = self.columns if max_columns is None else np.minimum(self.columns, max_columns)
        audio = columns
        if not text:
            given = config.projector.num_outputs
            audio = np.array([given(n // config.pooling) for n in columns.tolist()])
        return SequenceLengths(
            audio,
            self.first,
            np.minimum(self.prompt, limit),
            np.minimum(self.answer + 1, limit),
        )


class Dataset:
    """Reads the records of a prepared data set by their number."""

    def __init__(self, folder: str | Path) -> None:
        """Opens a folder and holds its files against its page.

        Raises:
            InputError: it is no data set, or a shard is missing or cut short.
        """
        self.folder = Path(folder)
        if not exists(self.folder / DATASET_FILE):
            raise InputError(f"{folder}: has no {DATASET_FILE}; {AGAIN}")
        self.manifest = read_json_object(self.folder / DATASET_FILE, AGAIN)
        if self.manifest.get("format") != FORMAT:
            raise InputError(
                f"{folder}: format {self.manifest.get('format')!r}, this version reads {FORMAT}; "
                "prepare it again"
            )
        self.features = FeatureConfig.from_dict(
            self.manifest.get("features"), str(self.folder / DATASET_FILE)
        )
        for shard in self.manifest["shards"]:
            path = self.folder / shard["name"]
            size = path.stat().st_size if exists(path) else 0
            if size != shard["bytes"]:
                raise InputError(f"{path}: has {size} bytes of {shard['bytes']}; {AGAIN}")
        with np.load(self.folder / INDEX_FILE) as file:
            self.index = DatasetIndex(*(file[name] for name in DatasetIndex._fields))
        self._source: Any = None

    def __len__(self) -> int:
        return len(self.index.columns)

    def lengths(self, config: TinyMUConfig, max_columns: int | None = None) -> SequenceLengths:
        """Returns the lengths that a model computes; arguments as `Index.lengths`."""
        return self.index.lengths(config, max_columns, self.features.kind == "text")

    def __getitem__(self, number: int) -> Record:
        """Returns one record."""
        if self._source is None:
            from grain.sources import ArrayRecordDataSource

            names = [shard["name"] for shard in self.manifest["shards"] if shard["records"]]
            self._source = ArrayRecordDataSource([str(self.folder / name) for name in names])
        return decode_record(self._source[number])

    def __getstate__(self) -> Mapping[str, Any]:
        """Leaves open files behind when it goes to another process."""
        return self.__dict__ | {"_source": None}

    def check_model(self, tokenizer: str, encoder: Mapping[str, Any]) -> None:
        """Refuses a model that would read the stored tokens or vectors as others.

        Args:
            tokenizer: the text of the model's `tokenizer.json`.
            encoder: weights of its encoder.

        Raises:
            InputError: the data set was made with another tokenizer or encoder.
        """
        if fingerprint.of_text(tokenizer) != self.manifest["tokenizer"]:
            raise InputError(
                f"{self.folder}: its tokens are of another tokenizer than the model's; prepare it "
                "again with the model's tokenizer.json (--tokenizer)"
            )
        made_by = self.manifest["encoder"]
        if made_by is not None and fingerprint.of_weights(encoder) != made_by:
            raise InputError(
                f"{self.folder}: its vectors are of another encoder than the model's; prepare it "
                "again with the model (--checkpoint), or store log_mel"
            )

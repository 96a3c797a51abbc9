"""Write MusicSkills lists as a TensorFlow Datasets (TFDS) data set, without TensorFlow.

The files are in array_record format. Read them with `tfds.data_source("musicskills",
data_dir=FOLDER, split="train")`; this package is not needed. Texts are bytes, as everywhere in
TFDS.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from tinymu_jax.data.musicskills import FIELDS
from tinymu_jax.utils.json_records import read_json_records

TEXT_KEYS = (*FIELDS, "clip", "artist", "category", "evidence", "by")
LIST_KEYS = ("tags", "options", "kinds")
NAME, SPLIT = "musicskills", "train"


class Musicskills(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of a data set of questions and answers about recordings."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Lists written by `tinymu data build`."}

    def __init__(self, *, lists: Sequence[str | Path] = (), **options: Any) -> None:
        """Create the builder for the lists at the paths `lists`; `options` go to TFDS."""
        self.lists = [Path(path) for path in lists]
        # The default format, tfrecord, needs TensorFlow.
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in TEXT_KEYS}
        features |= {name: tfds.features.Sequence(tfds.features.Text()) for name in LIST_KEYS}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Questions and answers about recordings, in the MusicSkills format.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for path in self.lists:
            for _, record in read_json_records(path, "name lists written by tinymu data build"):
                texts = {name: str(record.get(name, "")) for name in TEXT_KEYS}
                yield number, texts | {name: record.get(name, []) for name in LIST_KEYS}
                number += 1


def write_tfds(lists: Sequence[Path], output: Path) -> Path:
    """Write MusicSkills lists, in order, as a TFDS data set below the folder `output`.

    Replaces an earlier data set. Returns `output`, which TFDS takes as `data_dir`. Raises
    `InputError` if a list cannot be read.
    """
    shutil.rmtree(output / NAME, ignore_errors=True)
    tfds.disable_progress_bar()
    builder = Musicskills(lists=lists, data_dir=str(output))
    builder.download_and_prepare()
    return output

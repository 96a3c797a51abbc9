"""Lists of questions as a TensorFlow data set: array_record files, no TensorFlow.

`tfds.data_source("musicskills", data_dir=FOLDER, split="train")` reads what `write_tfds` wrote,
with or without this package. Texts come as bytes, as everywhere in TFDS.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from tinymu_jax.data.musicskills import FIELDS
from tinymu_jax.utils.files import read_json_list

TEXTS = (*FIELDS, "clip", "artist", "category", "evidence", "by")

SEVERAL = ("tags", "options", "kinds")

NAME, SPLIT = "musicskills", "train"


class Musicskills(tfds.core.GeneratorBasedBuilder):
    """Questions about recordings, with answers."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Lists as `tinymu data build` writes them."}

    def __init__(self, *, lists: Sequence[str | Path] = (), **options: Any) -> None:
        """Takes MusicSkills lists, and what every TFDS builder takes."""
        self.lists = [Path(path) for path in lists]
        # TFDS' own default, tfrecord, would need TensorFlow.
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in TEXTS}
        features |= {name: tfds.features.Sequence(tfds.features.Text()) for name in SEVERAL}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Questions about recordings with answers, in MusicSkills' format.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for path in self.lists:
            for record in read_json_list(path, "name lists that tinymu data build wrote"):
                texts = {name: str(record.get(name, "")) for name in TEXTS}
                yield number, texts | {name: record.get(name, []) for name in SEVERAL}
                number += 1


def write_tfds(lists: Sequence[Path], output: Path) -> Path:
    """Writes lists as a TFDS data set below a folder, in their order; returns the folder.

    One of an earlier build is replaced.

    Raises:
        InputError: a list that cannot be read.
    """
    shutil.rmtree(output / NAME, ignore_errors=True)
    tfds.disable_progress_bar()
    builder = Musicskills(lists=lists, data_dir=str(output))
    builder.download_and_prepare()
    return output

"""Reads and writes the tags of each audio format with mutagen, under the same names of fields.

| field | mp3, wav, aiff (ID3v2) | flac, ogg, opus (Vorbis comments) | m4a (iTunes) |
| --- | --- | --- | --- |
| genre | TCON | GENRE | ©gen |
| mood | TMOO (ID3v2.3: TXXX:MOOD) | MOOD | freeform MOOD |
| comment | COMM, eng, no description | COMMENT | ©cmt |
| bpm | TBPM, an integer | BPM | tmpo, an integer |
| key | TKEY, such as "Am" | INITIALKEY | freeform initialkey |
| others | TXXX:NAME | NAME | freeform NAME |
"""

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import mutagen
from mutagen import id3
from mutagen.aiff import AIFF
from mutagen.flac import FLAC
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4FreeForm
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from tinymu_jax.errors import InputError, translate
from tinymu_jax.utils.files import check_content, exists

TAGGED_FORMATS = "mp3, flac, ogg, opus, m4a, wav or aiff"
Padding = Callable[[Any], int]
"""Callback of mutagen: from a `PaddingInfo` to the number of bytes left free after the tag."""
FLAC_PADDING = 1
"""Code of a flac's blocks of free bytes."""
_FRAMES = {"genre": "TCON", "bpm": "TBPM", "key": "TKEY", "mood": "TMOO"}
_ATOMS = {"genre": "\xa9gen", "comment": "\xa9cmt", "bpm": "tmpo"}
_FREEFORM = "----:com.apple.iTunes:"
_TAIL = 256
"""Number of bytes at the end of an mp3 in which mutagen may change an ID3v1 tag."""


class TaggedFile(ABC):
    """The tags of one file; the classes below hold what the kinds of tags differ in."""

    def __init__(self, path: Path, file: Any) -> None:
        """Store the path, and the file as mutagen opened it."""
        self.path, self.file = path, file
        self.had_tags = file.tags is not None
        """Whether the file has a container for tags, be it empty."""
        if file.tags is None:
            file.add_tags()

    @property
    def tags(self) -> Any:
        """The tags, as mutagen holds them."""
        return self.file.tags

    def encode(self, field: str, values: Sequence[str]) -> list[str]:
        """Return the texts by which this format holds a field's values; the default is all as is.

        Raises:
            InputError: the format cannot hold the field or a value.
        """
        for value in values:
            if "\0" in value or not _is_utf8(value):
                raise InputError(f"{self.path}: {field} {value!r} is not UTF-8 text; repair it")
        return list(values)

    @abstractmethod
    def texts(self, field: str) -> list[str]:
        """Return a field's values as texts; [] if there is none."""

    @abstractmethod
    def dump(self, field: str) -> list[Any]:
        """Return all that the file holds for a field, as JSON without loss."""

    @abstractmethod
    def load(self, contents: Mapping[str, Sequence[Any]]) -> None:
        """Replace what the file holds for some fields by what `dump` returned for each."""

    @abstractmethod
    def set(self, field: str, texts: Sequence[str]) -> None:
        """Replace what the file holds for a field by texts, as `encode` returned them."""

    def is_empty(self) -> bool:
        """Return whether the tags hold nothing."""
        return not len(self.tags)

    def save(self, padding: Padding | None = None) -> None:
        """Write the tags into the file."""
        self.file.save(self.path, padding=padding)

    def remove(self, padding: int) -> None:
        """Remove the container of the tags from the file, where the format can be without."""
        self.save(lambda info: max(padding, 0))

    def measure_padding(self) -> int:
        """Return the number of free bytes after the tags; write the tags as they are, if any."""
        sizes: list[int] = []
        if not self.had_tags:
            return 0

        def keep(info: Any) -> int:
            sizes.append(info.padding)
            return max(info.padding, 0)

        self.save(keep)
        # FLAC in an ogg has no free bytes.
        return sizes[-1] if sizes else 0


class Id3File(TaggedFile):
    """An ID3v2 tag: at the start of an mp3, or in a chunk of a wav or aiff."""

    def __init__(self, path: Path, file: Any) -> None:
        """Store the path and the file. A new tag in an mp3 takes over the fields of ID3v1."""
        super().__init__(path, file)
        self.version = 3 if self.had_tags and self.tags.version[:2] == (2, 3) else 4
        """Second number of the version in which the tag is saved: 2.3 stays, else 2.4."""
        if self.tags.version[:2] == (2, 2):
            self.tags.update_to_v24()
        if not self.had_tags:
            for frame in self._read_v1().values():
                self.tags.add(frame)

    def _read_v1(self) -> dict[str, Any]:
        if not isinstance(self.file, MP3):
            return {}
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - 128))
            end = file.read()
        return (id3.ParseID3v1(end) if end.startswith(b"TAG") else None) or {}

    def encode(self, field: str, values: Sequence[str]) -> list[str]:
        """Return the texts of a field: bpm as an integer, a comment as one text."""
        texts = super().encode(field, values)
        if field == "bpm":
            return [_to_integer(text) for text in texts]
        if field == "genre":
            frame = id3.TCON(encoding=id3.Encoding.UTF8, text=texts)
            if frame.genres != texts:
                raise InputError(
                    f"{self.path}: ID3 reads the genre {'; '.join(texts)!r} as a number of its "
                    "list; rename the value with --map"
                )
        return texts

    def _frames(self, field: str) -> list[Any]:
        if field == "comment":
            return [frame for frame in self.tags.getall("COMM") if not frame.desc]
        named = self.tags.getall(_FRAMES[field]) if field in _FRAMES else []
        if named or (field in _FRAMES and field != "mood"):
            return named
        return [f for f in self.tags.getall("TXXX") if f.desc.casefold() == field.casefold()]

    def texts(self, field: str) -> list[str]:
        """Return a field's values; numbers of ID3v1's genres as their names."""
        frames = self._frames(field)
        return [str(t) for f in frames for t in (f.genres if field == "genre" else f.text)]

    def dump(self, field: str) -> list[str]:
        """Return the frames of a field as an ID3v2 tag in base64."""
        frames = self._frames(field)
        if not frames:
            return []
        tags, content = id3.ID3(), io.BytesIO()
        for frame in frames:
            tags.add(frame)
        self._save(partial(tags.save, content), lambda info: 0)
        return [base64.b64encode(content.getvalue()).decode()]

    def load(self, contents: Mapping[str, Sequence[Any]]) -> None:
        """Replace the frames of fields by those of `dump`."""
        for field, content in contents.items():
            self._delete(field)
            for text in content:
                tag = io.BytesIO(base64.b64decode(text))
                for frame in id3.ID3(tag, translate=False, load_v1=False).values():
                    self.tags.add(frame)

    def _delete(self, field: str) -> None:
        for frame in self._frames(field):
            del self.tags[frame.HashKey]

    def set(self, field: str, texts: Sequence[str]) -> None:
        """Replace the frames of a field by one frame."""
        self._delete(field)
        # ID3v2.3 has no UTF-8.
        encoding = id3.Encoding.UTF8 if self.version == 4 else id3.Encoding.UTF16
        if field == "comment":
            frame = id3.COMM(encoding=encoding, lang="eng", desc="", text=list(texts))
        elif field in _FRAMES and (field != "mood" or self.version == 4):
            frame = getattr(id3, _FRAMES[field])(encoding=encoding, text=list(texts))
        else:
            frame = id3.TXXX(encoding=encoding, desc=field.upper(), text=list(texts))
        self.tags.add(frame)

    def is_empty(self) -> bool:
        """Return whether the tag holds nothing that ID3v1 does not hold too."""
        v1 = {key: frame.pprint() for key, frame in self._read_v1().items()}
        return {key: frame.pprint() for key, frame in self.tags.items()} in ({}, v1)

    def save(self, padding: Padding | None = None) -> None:
        """Write the ID3v2 tag; an ID3v1 tag stays as it is."""
        with self.path.open("r+b") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail, start = file.read(), _id3_size(file)
            file.seek(0)
            self._save(partial(self.tags.save, file), padding)
            if isinstance(self.file, MP3):
                # mutagen rewrites ID3v1 with the new genre and comment.
                file.seek(size - start + _id3_size(file) - len(tail))
                file.write(tail)
                file.truncate()

    def _save(self, save: Callable[..., Any], padding: Padding | None) -> None:
        save(v2_version=self.version, v23_sep=None, padding=padding)

    def remove(self, padding: int) -> None:
        """Remove the ID3v2 tag or chunk."""
        only_v2 = {"delete_v1": False} if isinstance(self.file, MP3) else {}
        self.tags.delete(self.path, **only_v2)


class VorbisFile(TaggedFile):
    """Vorbis comments of a flac, or of Vorbis, Opus, Speex or FLAC in an ogg."""

    def __init__(self, path: Path, file: Any) -> None:
        """Store the path and the file; refuse comments that would not survive a writing."""
        super().__init__(path, file)
        if any("\ufffd" in value for _, value in self.tags):
            raise InputError(
                f"{path}: has comments that are not UTF-8, which writing would change; repair them "
                "with a tag editor"
            )

    @staticmethod
    def _key(field: str) -> str:
        return {"key": "INITIALKEY"}.get(field, field.upper())

    def encode(self, field: str, values: Sequence[str]) -> list[str]:
        """Return the values as they are; raise `InputError` if the name is not ASCII or has "="."""
        if not field.isascii() or "=" in field or not field.isprintable():
            raise InputError(
                f"{self.path}: Vorbis comments have names of ASCII without '=', which {field!r} is "
                "not; rename the field"
            )
        return super().encode(field, values)

    def _pairs(self, field: str) -> list[tuple[int, str, str]]:
        key = self._key(field)
        return [(i, k, v) for i, (k, v) in enumerate(self.tags) if k.upper() == key]

    def texts(self, field: str) -> list[str]:
        """Return a field's values."""
        return [value for _, _, value in self._pairs(field)]

    def dump(self, field: str) -> list[Any]:
        """Return a field's comments as (position, key, value)."""
        return [list(pair) for pair in self._pairs(field)]

    def load(self, contents: Mapping[str, Sequence[Any]]) -> None:
        """Put the comments of `dump` back at their positions."""
        for field in contents:
            self.set(field, ())
        for position, key, value in sorted(chain.from_iterable(contents.values())):
            self.tags.insert(position, (key, value))

    def set(self, field: str, texts: Sequence[str]) -> None:
        """Replace a field's comments by one comment per text."""
        key = self._key(field)
        others = [(name, value) for name, value in self.tags if name.upper() != key]
        self.tags[:] = [*others, *((key, text) for text in texts)]

    def measure_padding(self) -> int:
        """Return the number of free bytes; -4 for a flac without a block of them."""
        if not isinstance(self.file, FLAC):
            return super().measure_padding()
        blocks = [block for block in self.file.metadata_blocks if block.code == FLAC_PADDING]
        return sum(block.length + 4 for block in blocks) - 4

    def remove(self, padding: int) -> None:
        """Remove the comment block of a flac; an ogg always has one."""
        if not isinstance(self.file, FLAC):
            super().remove(padding)
            return
        self.file.delete(self.path)
        FLAC(self.path).save(padding=lambda info: max(padding, 0))


class Mp4File(TaggedFile):
    """The iTunes atoms of an m4a or mp4."""

    def encode(self, field: str, values: Sequence[str]) -> list[str]:
        """Return the texts of a field: bpm as an integer."""
        texts = super().encode(field, values)
        return [_to_integer(text) for text in texts] if field == "bpm" else texts

    def _key(self, field: str) -> str:
        if field in _ATOMS:
            return _ATOMS[field]
        key = _FREEFORM + ("initialkey" if field == "key" else field.upper())
        same = (other for other in self.tags if other.casefold() == key.casefold())
        return next(same, key)

    def texts(self, field: str) -> list[str]:
        """Return a field's values."""
        values = self.tags.get(self._key(field), [])
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]

    def dump(self, field: str) -> list[Any]:
        """Return a field's key and values; freeform values as (base64, data format, version)."""
        key = self._key(field)
        if key not in self.tags:
            return []
        return [
            key,
            *(
                [base64.b64encode(v).decode(), int(v.dataformat), v.version]
                if isinstance(v, bytes)
                else v
                for v in self.tags[key]
            ),
        ]

    def load(self, contents: Mapping[str, Sequence[Any]]) -> None:
        """Replace the atoms of fields by those of `dump`."""
        for field, content in contents.items():
            self.tags.pop(self._key(field), None)
            if content:
                key, *values = content
                self.tags[key] = [
                    MP4FreeForm(base64.b64decode(v[0]), v[1], v[2]) if isinstance(v, list) else v
                    for v in values
                ]

    def set(self, field: str, texts: Sequence[str]) -> None:
        """Replace a field's atom."""
        key = self._key(field)
        if field == "bpm":
            self.tags[key] = [int(text) for text in texts]
        elif field in _ATOMS:
            self.tags[key] = list(texts)
        else:
            self.tags[key] = [MP4FreeForm(text.encode()) for text in texts]


_KINDS: dict[type, type[TaggedFile]] = {
    MP3: Id3File,
    WAVE: Id3File,
    AIFF: Id3File,
    FLAC: VorbisFile,
    OggVorbis: VorbisFile,
    OggOpus: VorbisFile,
    OggFLAC: VorbisFile,
    OggSpeex: VorbisFile,
    MP4: Mp4File,
}


def find_format(path: str | Path) -> type:
    """Return mutagen's class for a file's format, by its content and, in doubt, its suffix.

    Raises:
        InputError: the file cannot be read, or its format is none of `TAGGED_FORMATS`.
    """
    kinds = list(_KINDS)
    if not exists(path):
        raise InputError(f"{path}: no such file; check the recording's path")
    check_content(path)
    with _one_error(path):
        try:
            file = mutagen.File(path, options=kinds)
        except mutagen.MutagenError:
            # A wrong suffix outweighs the content, unless the file has no name.
            file = mutagen.File(io.BytesIO(Path(path).read_bytes()), options=kinds)
            if file is None:
                raise
    if file is None:
        raise InputError(
            f"{path}: its format holds no tags that tinymu writes; convert it to {TAGGED_FORMATS}"
        )
    return type(file)


def open_tags(path: str | Path, format: type) -> TaggedFile:
    """Open the tags of a file of a format that `find_format` returned.

    Raises:
        InputError: the file or its tags are damaged, or cannot be read.
    """
    kind = _KINDS[format]
    # Frames of ID3v2.3 stay what they are.
    options = {"translate": False, "load_v1": False} if kind is Id3File else {}
    with _one_error(path):
        return kind(Path(path), format(path, **options))


def _one_error(path: str | Path) -> Any:
    # mutagen raises many kinds of errors for damaged files.
    return translate(f"{path}: its tags cannot be read ({{reason}}); is the file damaged?")


def _id3_size(file: Any) -> int:
    """Return the size in bytes of the ID3v2 tag at the start of a file; 0 if there is none."""
    file.seek(0)
    head = file.read(10)
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    return 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:]))


def _to_integer(text: str) -> str:
    return str(round(float(text)))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Annotation readers: the clips they give, and their errors."""

import csv
import json
import struct
from collections import Counter

import av
import pytest
import soundfile
from helpers import music_tree, noise, refusal
from mutagen.id3 import TCON
from mutagen.wave import WAVE

from tinymu_jax.data.annotations.clip import UNSORTED, AnnotatedClip
from tinymu_jax.data.annotations.musiccaps import read_musiccaps
from tinymu_jax.data.annotations.registry import READERS, read_source


def write(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(name, path, **options):
    """Returns the clips of a source whose recordings can all be read."""
    source = read_source(name, path, **options)
    assert source.unusable == ()
    assert all(clip.source == source.name for clip in source.clips)
    return source.clips


CAPS = (
    "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
    "is_balanced_subset,is_audioset_eval"
)


def test_musiccaps_gives_aspects_captions_times_and_test_sets(tmp_path):
    path = write(
        tmp_path,
        "caps.csv",
        CAPS,
        """-abc,30,40,,"['Slow Tempo ', 'it\\'s sad', 'sad', 'sad']","Two, one. ",4,False,False""",
        'd,0,10,"/m/04rlf",[],A waltz.,4,True,True',
        'e,0,10,"/m/04rlf",[],A march.,4,False,True',
    )
    assert read("musiccaps", path) == [
        AnnotatedClip(
            clip="-abc",
            file="-abc.wav",
            source="MusicCaps",
            licence="CC BY-SA 4.0",
            tags={"": ("slow tempo", "it's sad", "sad", "sad")},
            captions=("Two, one.",),
            start=30.0,
            end=40.0,
        ),
        *(
            AnnotatedClip(
                clip=name,
                file=f"{name}.wav",
                source="MusicCaps",
                licence="CC BY-SA 4.0",
                captions=(caption,),
                start=0.0,
                end=10.0,
                test_sets=tests,
            )
            for name, caption, tests in (
                ("d", "A waltz.", ("AudioSet eval", "MusicCaps balanced")),
                ("e", "A march.", ("AudioSet eval",)),
            )
        ),
    ]
    files = [clip.file for clip in read_musiccaps(path, ".mp3").clips]
    assert files == ["-abc.mp3", "d.mp3", "e.mp3"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("a,0,10,,sad,A waltz.,4,False,False", "'sad' as aspect_list"),
        ("a,0,10,,\"['sad'\",A waltz.,4,False,False", "as aspect_list"),
        ("a,0,10,,\"{'sad': 1}\",A waltz.,4,False,False", "as aspect_list"),
        ("a,0,10,,[1],A waltz.,4,False,False", "as aspect_list"),
        ("a,0,10,,\"['sad', ' ']\",A waltz.,4,False,False", "empty aspect"),
        ("a,0,10,,[], ,4,False,False", "empty caption"),
        (",0,10,,[],A waltz.,4,False,False", "empty ytid"),
        ("a,zero,10,,[],A waltz.,4,False,False", "'zero' as start_s"),
        ("a,-1,10,,[],A waltz.,4,False,False", "'-1' as start_s"),
        ("a,0,inf,,[],A waltz.,4,False,False", "'inf' as end_s"),
        ("a,10,10,,[],A waltz.,4,False,False", "ends at 10 s"),
        ("a,0,10,,[],A waltz.,4,,False", "'' as is_balanced_subset"),
        ("a,0,10,,[],A waltz.,4,False", "8 fields where there are 9 columns"),
        ("b,0,10,,[],A waltz.,4,False,False", "the clip 'b' of line 2"),
        ('a,0,10,,[],"A waltz.,4,False,False', "line 3 is malformed"),
    ],
)
def test_musiccaps_errors_name_the_row(tmp_path, row, fault):
    path = write(tmp_path, "caps.csv", CAPS, "b,0,10,,[],A march.,4,False,False", row)
    message = refusal(read_source, "musiccaps", path)
    assert message.startswith(f"{path}: line 3 ")
    assert fault in message


def test_errors_name_the_first_line_of_a_multiline_row(tmp_path):
    path = write(
        tmp_path, "c.csv", CAPS, 'a,0,9,,[],"A\nB",4,True,True', "", 'b,0,9,,?,"A\nB",4,True,True'
    )
    assert "line 5 has '?'" in refusal(read_source, "musiccaps", path)


MTT = "clip_id\tno vocals\tClassical Guitar\tnot rock\tmp3_path"


def test_magnatagatune_gives_tags_unchanged_and_artists(tmp_path):
    write(
        tmp_path,
        "annotations_final.csv",
        MTT,
        '"2"\t"1"\t"1"\t"0"\t"f/a-29-58.mp3"',
        "6\t0\t0\t0\td/b-0-29.mp3",
        "7\t0\t0\t1\td/c-0-29.mp3",
    )
    without = read("magnatagatune", tmp_path)
    assert [clip.artist for clip in without] == [None, None, None]
    write(
        tmp_path,
        "clip_info_final.csv",
        "clip_id\ttrack_number\ttitle\tartist\tmp3_path",
        '2\t1\t"Song" of "Songs\tAmerican Bach Soloists\tf/a-29-58.mp3',
        "6\t1\tSecond\t\td/b-0-29.mp3",
    )
    clips = read("magnatagatune", tmp_path / "annotations_final.csv")
    assert [clip.clip for clip in clips] == ["2", "6", "7"]
    assert [clip.file for clip in clips] == ["f/a-29-58.mp3", "d/b-0-29.mp3", "d/c-0-29.mp3"]
    assert [clip.tags for clip in clips] == [
        {"": ("no vocals", "classical guitar")},
        {},
        {"": ("not rock",)},
    ]
    assert [clip.artist for clip in clips] == ["American Bach Soloists", None, None]
    assert {clip.licence for clip in clips} == {"CC BY-NC-SA 3.0"}
    assert not any(clip.denied or clip.test_sets or clip.captions for clip in clips)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([MTT.replace("\t", ",")], "no column clip_id, mp3_path"),
        (["clip_id\tmp3_path", "2\ta.mp3"], "no columns of tags"),
        ([MTT, "2\t1\t0\t2\ta.mp3"], "line 2 has '2' as 'not rock'"),
        ([MTT, "2\t1\t0\t1\t"], "line 2 has an empty mp3_path"),
        ([MTT, "2\t1\t0\t1\ta.mp3", "2\t1\t0\t1\tb.mp3"], "line 3 is about the clip '2' of line 2"),
        ([MTT, "2\t1\t0\t1\ta.mp3", "3\t1\t0\t1\ta.mp3"], "file 'a.mp3' of line 2"),
        ([MTT + "\tno vocals", "2\t1\t0\t1\ta.mp3\t1"], "two columns 'no vocals'"),
    ],
)
def test_invalid_annotations_of_magnatagatune_are_rejected(tmp_path, lines, fault):
    path = write(tmp_path, "annotations_final.csv", *lines)
    message = refusal(read_source, "magnatagatune", path)
    assert message.startswith(str(path))
    assert fault in message


FMA_HEAD = (
    ",album,artist,set,set,track,track,track,track,track",
    ",title,name,split,subset,genre_top,genres,genres_all,license,title",
    "track_id,,,,,,,,,",
)
FMA_GENRES = ("genre_id,#tracks,parent,title,top_level", "12,9,0,Rock,12", "25,5,12,Punk,12")


def write_fma(folder, *rows):
    write(folder, "genres.csv", *FMA_GENRES)
    return write(folder, "tracks.csv", *FMA_HEAD, *rows)


def test_fma_gives_genres_by_title_and_files_by_number(tmp_path):
    write_fma(
        tmp_path,
        '2,"An\nalbum",AWOL,training,small,Rock,[25],"[25, 12]",CC BY-NC 4.0,Food',
        "155320,B,,test,large,,[],[],,Untitled",
        "1234,C,Two,test,large,Rock,[],[],CC0,Third",
    )
    clips = read("fma", tmp_path)
    assert clips == read("fma", tmp_path / "tracks.csv")
    assert [(c.clip, c.file, c.tags, c.licence, c.artist) for c in clips] == [
        ("2", "000/000002.mp3", {"genre": ("punk", "rock")}, "CC BY-NC 4.0", "AWOL"),
        ("155320", "155/155320.mp3", {}, "", None),
        ("1234", "001/001234.mp3", {"genre": ("rock",)}, "CC0", "Two"),
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("two,A,B,test,large,,[],[],,C", "'two' as track_id"),
        ("2,A,B,test,large,,[99],[99],,C", "genre 99, which genres.csv does not name"),
        ("2,A,B,test,large,,Rock,[],,C", "'Rock' as track/genres"),
        ("2,A,B,test,large,,[],[],,C,D", "11 fields where there are 10 columns"),
    ],
)
def test_fma_errors_name_the_row(tmp_path, row, fault):
    path = write_fma(tmp_path, row)
    message = refusal(read_source, "fma", tmp_path)
    assert message.startswith(f"{path}: line 4 ")
    assert fault in message


def test_fma_needs_three_header_lines_and_genres(tmp_path):
    path = write_fma(tmp_path)
    write(tmp_path, "tracks.csv", "track_id,title", "2,Food")
    assert "no column track_id, track/genre_top, track/genres" in refusal(read_source, "fma", path)
    write(tmp_path, "tracks.csv", FMA_HEAD[0], FMA_HEAD[1], "2,A,B,test,large,,[],[],,C")
    assert "no column track_id;" in refusal(read_source, "fma", path)
    write(tmp_path, "genres.csv", "id,name")
    assert "no column genre_id, title" in refusal(read_source, "fma", path)
    (tmp_path / "genres.csv").unlink()
    assert "put FMA's genres.csv beside its tracks.csv" in refusal(read_source, "fma", path)


def node(mid, name, children=(), restrictions=()):
    return {
        "id": mid,
        "name": name,
        "child_ids": list(children),
        "restrictions": list(restrictions),
    }


ONTOLOGY = [
    node("/m/sounds", "Sounds of things", ["/m/bell", "/m/dog"]),
    node("/m/dog", "Dog"),
    node("/m/04rlf", "Music", ["/m/inst", "/m/genre"]),
    node("/m/inst", "Musical instrument", ["/m/bell", "/m/perc", "/m/sax"], ["abstract"]),
    node("/m/perc", "Percussion", ["/m/cow", "/m/bell"]),
    node("/m/bell", "Bell", ["/m/cow"]),
    node("/m/cow", "Cowbell"),
    node("/m/sax", "Saxophone", ["/m/alto"]),
    node("/m/alto", "Alto saxophone", restrictions=["blacklist"]),
    node("/m/genre", "Music genre", ["/m/soul"]),
    node("/m/soul", "Soul music"),
]
SEGMENTS = (
    "# Segments csv created on a day",
    "# num_ytids=5, num_segs=5",
    "# YTID, start_seconds, end_seconds, positive_labels",
)


@pytest.fixture
def ontology(tmp_path):
    return write(tmp_path, "ontology.json", json.dumps(ONTOLOGY))


def test_audioset_gives_the_leaves_under_music(tmp_path, ontology):
    path = write(
        tmp_path,
        "unbalanced_train_segments.csv",
        *SEGMENTS,
        '-a, 30.000, 40.000, "/m/04rlf,/m/soul,/m/cow"',
        'b, 0.000, 10.000, "/m/dog"',
        'c, 0.000, 9.500, "/m/dog,/m/perc"',
        'd, 0.000, 10.000, "/m/04rlf"',
        'e, 0.000, 10.000, "/m/sax"',
    )
    source = read_source("audioset", path, ontology)
    assert source.no_music == 1
    assert [(c.clip, c.file, c.tags, c.start, c.end) for c in source.clips] == [
        ("-a", "-a.wav", {"": ("soul music", "cowbell")}, 30.0, 40.0),
        ("c", "c.wav", {}, 0.0, 9.5),
        ("d", "d.wav", {}, 0.0, 10.0),
        # All classes below it are blacklisted: no segment has them.
        ("e", "e.wav", {"": ("saxophone",)}, 0.0, 10.0),
    ]
    assert not any(clip.test_sets for clip in source.clips)


def test_audioset_eval_segments_are_a_test_set(tmp_path, ontology):
    path = write(tmp_path, "eval_segments.csv", *SEGMENTS, 'a, 0.000, 10.000, "/m/soul"')
    assert [c.test_sets for c in read("audioset", path, ontology=ontology)] == [("AudioSet eval",)]


def test_the_tree_of_music_names_all_parents_under_music(ontology):
    assert music_tree(ontology) == {
        "musical instrument": (),
        "music genre": (),
        "percussion": ("musical instrument",),
        "bell": ("musical instrument", "percussion"),
        "cowbell": ("percussion", "bell"),
        "saxophone": ("musical instrument",),
        "alto saxophone": ("saxophone",),
        "soul music": ("music genre",),
    }


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('a, 0.000, 10.000, "/m/soul,/m/none"', "the label '/m/none'"),
        ("a, 0.000, 10.000", "has 3 fields where there are 4 columns"),
        ("a, 0.000, 10.000, /m/soul, /m/cow", "has 5 fields where there are 4 columns"),
        ('a, start, 10.000, "/m/soul"', "'start' as start_seconds"),
        ('b, 5.000, 10.000, "/m/soul"', "the clip 'b' of line 4"),
    ],
)
def test_audioset_errors_name_the_row(tmp_path, ontology, row, fault):
    path = write(tmp_path, "s.csv", *SEGMENTS, 'b, 0.000, 10.000, "/m/soul"', row)
    message = refusal(read_source, "audioset", path, ontology)
    assert message.startswith(f"{path}: line 5 ")
    assert fault in message


def test_audioset_needs_a_complete_ontology(tmp_path, ontology):
    path = write(tmp_path, "s.csv", *SEGMENTS, 'a, 0.000, 10.000, "/m/dog"')
    assert "give --ontology" in refusal(read_source, "audioset", path)
    assert "no recording of music" in refusal(read_source, "audioset", path, ontology)
    broken = {
        "no class /m/cow": [one for one in ONTOLOGY if one["id"] != "/m/cow"],
        "no class /m/04rlf": [one for one in ONTOLOGY if one["id"] == "/m/dog"],
        "record 1 is not a class": [ONTOLOGY[1], {"id": "/m/x", "name": "X"}],
        "record 0 is not a class": [node("/m/x", "X", [["/m/y"]])],
    }
    for fault, content in broken.items():
        write(tmp_path, "ontology.json", json.dumps(content))
        assert fault in refusal(read_source, "audioset", path, ontology)
        assert fault in refusal(music_tree, ontology)


JAMENDO = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"


def test_jamendo_gives_tags_by_their_kinds(tmp_path):
    path = write(
        tmp_path,
        "autotagging.tsv",
        JAMENDO,
        "track_0001332\tartist_000224\talbum_000204\t32/1332.mp3\t292.6\tgenre---Rock"
        "\tinstrument---electricguitar\tgenre---pop\tmood/theme---dark",
        "track_0001333\tartist_000224\talbum_000204\t33/1333.mp3\t2.6",
    )
    first, second = read("jamendo", path)
    assert first == AnnotatedClip(
        clip="track_0001332",
        file="32/1332.mp3",
        source="MTG-Jamendo",
        licence="CC BY-NC-SA 4.0",
        tags={"genre": ("rock", "pop"), "instrument": ("electricguitar",), "mood": ("dark",)},
        artist="artist_000224",
    )
    assert second.tags == {}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("t\ta\tb\tx.mp3\t9\trock", "the tag 'rock'"),
        ("t\ta\tb\tx.mp3\t9\ttempo---slow", "the tag 'tempo---slow'"),
        ("t\ta\tb\tx.mp3\t9\tgenre---", "the tag 'genre---'"),
        ("t\ta\tb", "3 fields"),
        ("t\t\tb\tx.mp3\t9\tgenre---rock", "empty ARTIST_ID"),
        ("s\ta\tb\tx.mp3\t9\tgenre---rock", "the clip 's' of line 2"),
    ],
)
def test_jamendo_errors_name_the_row(tmp_path, row, fault):
    path = write(tmp_path, "j.tsv", JAMENDO, "s\ta\tb\ts.mp3\t9\tgenre---rock", row)
    message = refusal(read_source, "jamendo", path)
    assert message.startswith(f"{path}: line 3 ")
    assert fault in message


DESCRIBER = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration"
)


def test_song_describer_joins_the_captions_of_a_track(tmp_path):
    path = write(
        tmp_path,
        "song_describer.csv",
        DESCRIBER,
        '1,1004034,"Calm, slow.",True,0,368880,118196,34/1004034.mp3,202.5',
        "2,1007274,A guitar.,True,1,429137,118548,74/1007274.mp3,140.2",
        "3,1004034,A piano.,,,368880,118196,34/1004034.mp3,202.5",
    )
    first, second = read("song_describer", path)
    assert first == AnnotatedClip(
        clip="1004034",
        file="34/1004034.mp3",
        source="Song Describer",
        licence="CC BY-SA 4.0",
        captions=("Calm, slow.", "A piano."),
        artist="368880",
        test_sets=("Song Describer",),
    )
    assert (second.clip, second.captions) == ("1007274", ("A guitar.",))


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("2,10,,True,0,5,6,a.mp3,9", "empty caption"),
        ("1,10,Slow.,True,0,5,6,a.mp3,9", "the caption_id 1 of line 2"),
        ("2,10,Slow.,True,0,7,6,a.mp3,9", "another artist_id of track 10 than line 2"),
        ("2,10,Slow.,True,0,5,6,b.mp3,9", "another path of track 10 than line 2"),
        ("2,11,Slow.,True,0,5,6,a.mp3,9", "the file 'a.mp3' of line 2"),
    ],
)
def test_song_describer_errors_name_the_row(tmp_path, row, fault):
    path = write(tmp_path, "d.csv", DESCRIBER, "1,10,Calm.,True,0,5,6,a.mp3,9", row)
    message = refusal(read_source, "song_describer", path)
    assert message.startswith(f"{path}: line 3 ")
    assert fault in message


def test_a_user_table_gives_all_annotations(tmp_path):
    path = write(
        tmp_path,
        "mine.csv",
        "file_name,clip,start,end,artist,licence,caption,instrument,mood,tags,not,exhaustive",
        "a/x.wav,x1,5,15.5,Me,CC0,A walk. | A run.|,Piano; Violin ;,,Lo-Fi,drums;Voice,"
        "instrument;voice",
        "y.wav,,,,,,,,,,,",
    )
    first, second = read("user_table", path)
    assert first == AnnotatedClip(
        clip="x1",
        file="a/x.wav",
        source="mine",
        licence="CC0",
        tags={UNSORTED: ("lo-fi",), "instrument": ("piano", "violin")},
        denied={UNSORTED: ("drums", "voice")},
        captions=("A walk.", "A run."),
        start=5.0,
        end=15.5,
        artist="Me",
        exhaustive=("instrument", "voice"),
    )
    assert second == AnnotatedClip("y.wav", "y.wav", "mine", "")


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufefffile, genre\r\na.wav, rock\r\n,\r\n".encode())
    (clip,) = read("user_table", path)
    assert (clip.file, clip.tags) == ("a.wav", {"genre": ("rock",)})


@pytest.mark.parametrize(
    ("head", "row", "fault"),
    [
        ("path,genre", "a.wav,rock", "no column file or file_name"),
        ("file,file_name", "a.wav,a.wav", "both columns file and file_name"),
        ("file,genre,colour,taste", "a.wav,rock,red,salt", "unknown column colour, taste"),
        ("file,genre,genre", "a.wav,rock,pop", "two columns 'genre'"),
        ("file,genre", ",rock", "line 2 has an empty file"),
        ("file,genre", "a.wav", "line 2 has 1 fields"),
        ("file,exhaustive", "a.wav,colour", "line 2 has 'colour' in exhaustive"),
        ("file,genre,not", "a.wav,Rock,rock", "line 2 has 'rock' both as a label and in not"),
        ("file,start,end", "a.wav,9,3", "line 2 ends at 3 s"),
        ("file,clip", "a.wav,1\nb.wav,1", "line 3 is about the clip '1' of line 2"),
        ("file,clip", "a.wav,1\na.wav,2", "line 3 is about the file 'a.wav' of line 2"),
    ],
)
def test_an_invalid_user_table_is_rejected(tmp_path, head, row, fault):
    path = write(tmp_path, "mine.csv", head, row)
    message = refusal(read_source, "user_table", path)
    assert message.startswith(f"{path}: ")
    assert fault in message


def sound(path, **tags):
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(noise(16_000))


def id3(**frames):
    """Returns a tag of ID3 2.4, by its specification: several values have a 0 between them."""
    body = b""
    for name, values in frames.items():
        text = b"\x03" + b"\0".join(value.encode() for value in values)
        body += name.encode() + struct.pack(">IH", len(text), 0) + text
    assert len(body) < 128  # so that seven bits hold each length
    return b"ID3\x04\0\0\0\0\0" + bytes([len(body)]) + body


def test_files_whose_length_is_not_in_the_header_are_usable(tmp_path):
    (tmp_path / "songs").mkdir()
    path = tmp_path / "songs" / "a.flac"
    sound(path, genre="Ska")
    content = bytearray(path.read_bytes())
    content[21:26] = content[21] & 0xF0, 0, 0, 0, 0  # as from a program that writes to a pipe
    path.write_bytes(content)
    content = path.with_name("m4a.mp3")  # an m4a file by content
    with av.open(content, "w", format="mp4") as out:
        out.metadata.update(genre="Dub", artist="Me")
        stream = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(16_000)[None, :1024].copy(), "fltp", "mono")
        frame.rate = 16_000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    source = read_source("user_folder", tmp_path / "songs")
    assert [(c.tags, c.artist) for c in source.clips] == [
        ({"genre": ("ska",)}, None),
        ({"genre": ("dub",)}, "Me"),
    ]
    assert source.unusable == ()


def test_a_folder_gives_genres_and_artists_of_its_files(tmp_path):
    folder = tmp_path / "songs"
    (folder / "below").mkdir(parents=True)
    sound(folder / "a.flac", genre="Rock; Blues/Jazz, Rock", artist="Some Body", comment="Loud")
    sound(folder / "b.ogg", genre="Ska")
    sound(folder / "below" / "c.wav", artist="Me")
    sound(folder / "e.wav")
    wave = WAVE(folder / "e.wav")
    wave.add_tags()
    wave.tags.add(TCON(encoding=3, text=["(17)", "Dub"]))
    wave.save()
    sound(folder / "plain.mp3")
    tag = id3(TCON=["Punk", "Dub"], TPE1=["One", "Two"])
    (folder / "d.mp3").write_bytes(tag + (folder / "plain.mp3").read_bytes())
    clips = read("user_folder", folder)
    assert {clip.file: (clip.tags, clip.artist) for clip in clips} == {
        "a.flac": ({"genre": ("rock", "blues", "jazz")}, "Some Body"),
        "b.ogg": ({"genre": ("ska",)}, None),
        "below/c.wav": ({}, "Me"),
        "d.mp3": ({"genre": ("punk", "dub")}, "One, Two"),
        "e.wav": ({"genre": ("rock", "dub")}, None),
        "plain.mp3": ({}, None),
    }
    assert all(clip.clip == clip.file and clip.source == "songs" for clip in clips)
    assert not any(clip.captions or clip.licence for clip in clips)


def test_files_without_audio_are_listed(tmp_path):
    sound(tmp_path / "a.flac", genre="Rock")
    (tmp_path / "cut.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:20])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("no sound at all " * 99)
    (tmp_path / "tagged.mp3").write_bytes(id3(TCON=["Punk"]))
    (tmp_path / "folder.ogg").mkdir()
    source = read_source("user_folder", tmp_path)
    assert [clip.file for clip in source.clips] == ["a.flac"]
    names = ("cut.flac", "empty.wav", "tagged.mp3", "text.mp3")
    assert source.unusable == tuple(str(tmp_path / name) for name in names)


def test_a_folder_without_recordings_is_rejected(tmp_path):
    assert "has no recordings" in refusal(read_source, "user_folder", tmp_path)
    path = write(tmp_path, "a.csv", "file")
    assert "is not a folder" in refusal(read_source, "user_folder", path)


TABLES = sorted(set(READERS) - {"user_folder"})


@pytest.mark.parametrize("name", TABLES)
def test_other_files_are_rejected(tmp_path, ontology, name):
    path = tmp_path / "table.csv"
    write(tmp_path, "genres.csv", *FMA_GENRES)
    assert "No such file" in refusal(read_source, name, path, ontology)
    path.write_bytes(b"\xff\xfe\xfa")
    message = refusal(read_source, name, path, ontology)
    assert message.startswith(f"{path}: is not text; name ")
    path.write_text("one,two\n1,2\n")
    message = refusal(read_source, name, path, ontology)
    assert message.startswith(f"{path}: ")
    assert "; name " in message
    path.write_text("")
    assert refusal(read_source, name, path, ontology).startswith(f"{path}: ")


def test_an_unknown_source_is_rejected(tmp_path):
    assert "use one of musiccaps, magnatagatune" in refusal(read_source, "mtt", tmp_path)


def test_real_musiccaps(shared_dir):
    clips = read("musiccaps", shared_dir / "data" / "musiccaps-public.csv")
    assert len(clips) == 5521
    assert Counter(clip.test_sets for clip in clips) == {
        (): 2663,
        ("AudioSet eval",): 1858,
        ("AudioSet eval", "MusicCaps balanced"): 1000,
    }
    uses = Counter(label for clip in clips for label in clip.tags[UNSORTED])
    assert (len(uses), sum(count >= 20 for count in uses.values())) == (13_219, 470)
    assert all(len(clip.captions) == 1 and clip.end - clip.start == 10 for clip in clips)


def test_real_jamendo(shared_dir):
    path = shared_dir / "data" / "mtg_jamendo_sample.tsv"
    clips = read("jamendo", path)
    assert len(clips) == 1850
    text = path.read_text()
    for category, mark in (
        ("genre", "\tgenre---"),
        ("instrument", "\tinstrument---"),
        ("mood", "\tmood/theme---"),
    ):
        assert sum(len(clip.tags.get(category, ())) for clip in clips) == text.count(mark) > 1000


def test_real_song_describer(shared_dir):
    clips = read("song_describer", shared_dir / "data" / "song_describer.csv")
    assert sum(len(clip.captions) for clip in clips) == 1106
    assert len(clips) == 706
    assert len({clip.artist for clip in clips}) == 191


def test_real_recordings(shared_dir):
    clips = {clip.file: clip for clip in read("user_folder", shared_dir / "audio")}
    assert len(clips) == 7
    folk, jazz = clips["lets_go_fishin_folk_song.ogg"], clips["vibe_ace_jazz.ogg"]
    assert (folk.tags, folk.artist) == ({"genre": ("folk",)}, "Karissa Hobbs")
    assert (jazz.tags, jazz.artist) == ({"genre": ("jazz",)}, "Kevin MacLeod")
    assert clips["robin_call.ogg"].tags == {}


def test_real_ontology(shared_dir, tmp_path):
    """Leaves are those of the 527 classes that have none of these below them."""
    path = shared_dir / "data" / "audioset_ontology.json"
    tree = music_tree(path)
    assert len(tree) == 188
    assert tree["choir"] == ("musical instrument",)  # singing is under human voice
    assert set(tree["beatboxing"]) == {"hip hop music", "vocal music"}
    assert [name for name, above in tree.items() if not above] == [
        "musical instrument",
        "music genre",
        "musical concepts",
        "music role",
        "music mood",
    ]
    children = {name for above in tree.values() for name in above}
    with (shared_dir / "data" / "audioset_class_labels_indices.csv").open() as file:
        classes = {row["mid"]: row["display_name"].lower() for row in csv.DictReader(file)}
    music = set(classes.values()) & set(tree)
    inner = {above for name in music for above in tree[name]}
    rows = [f'{number}, 0.000, 10.000, "{mid}"' for number, mid in enumerate(classes)]
    source = read_source("audioset", write(tmp_path, "s.csv", *SEGMENTS, *rows), path)
    result = {label for clip in source.clips for label in clip.tags.get(UNSORTED, ())}
    assert result == music - inner
    assert len(result) == 118
    assert result & children == {
        "ambient music",
        "saxophone",
        "electric piano",
        "reggae",
        "drum and bass",
    }
    assert source.no_music == 527 - len(music | {"music"}) == 377

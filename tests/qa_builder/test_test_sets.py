"""Reading test sets, and normalized names of recordings and artists."""

import json
import re

import pytest
from helpers import refusal

from tinymu_jax.qa_builder.contamination.test_sets import (
    TestQuestion,
    TestSet,
    artist_names,
    read_test_sets,
    recording_ids,
)

JAMENDO = "jamendo 1004034"


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("34/1004034.mp3", "", JAMENDO),
        ("music/34/1004034.mp3", "", JAMENDO),
        ("34/1004034.2min.mp3", "SDD", JAMENDO),
        ("1004034.low.mp3", "", JAMENDO),
        ("track_1004034", "", JAMENDO),
        ("1004034", "", JAMENDO),
        ("track_0001332", "", "jamendo 1332"),
        ("32/1332.mp3", "", "jamendo 1332"),
        ("07/7.mp3", "", "jamendo 7"),
        ("1332.mp3", "MTG-Jamendo", "jamendo 1332"),
        ("1332", "Song Describer", "jamendo 1332"),
        ("-0Gj8-vB1q4", "MusicCaps", "-0Gj8-vB1q4"),
        ("-0Gj8-vB1q4.wav", "", "-0Gj8-vB1q4"),
        ("Y-0Gj8-vB1q4.wav", "", "-0Gj8-vB1q4"),
        ("-0Gj8-vB1q4_30_40.wav", "", "-0Gj8-vB1q4"),
        ("[-0Gj8-vB1q4]-[30-40].wav", "", "-0Gj8-vB1q4"),
        ("clips\\-0Gj8-vB1q4\\music.flac", "", "-0Gj8-vB1q4"),
        ("blues.00000", "", "blues.00000"),
        ("genres/blues/blues.00000.au", "", "blues.00000"),
        ("Blues.00000.WAV", "", "blues.00000"),
        ("gtzan_blues_00000.wav", "", "blues.00000"),
        ("blues00000.wav", "GTZAN", "blues.00000"),
        ("folder/test_7.wav", "", "test_7"),
    ],
)
def test_recording_names_are_normalized(name, dataset, expected):
    assert expected in recording_ids(name, dataset)


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("134/134943.mp3", "FMA"),
        ("134943", "fma_large"),
        ("1332.mp3", "Mine"),
        ("33/1332.mp3", "Mine"),
        ("track_12.mp3", "Mine"),
        ("takes/1004034b.mp3", "Mine"),
        ("rock_00012.wav", "Mine"),
        ("gtzan/rock.000123.wav", "Mine"),
        ("rock.0012.wav", "Mine"),
        ("acidjazz.00012.wav", "Mine"),
    ],
)
def test_other_recording_names_have_no_id(name, dataset):
    result = recording_ids(name, dataset)
    assert not [one for one in result if re.fullmatch(r"jamendo .*|(jazz|rock)\.\d{5}", one)]


def test_youtube_ids_keep_their_case():
    assert "-0gj8-vb1q4" not in recording_ids("-0Gj8-vB1q4.wav")


@pytest.mark.parametrize(
    ("text", "dataset", "expected"),
    [
        ("The Beatles", "", {"beatles"}),
        ("Beatles, The", "", {"beatles"}),
        ("BEYONCÉ", "", {"beyonce"}),
        ("Simon & Garfunkel", "", {"simon and garfunkel"}),
        ("Queen feat. David Bowie", "", {"queen", "david bowie"}),
        ("The The", "", {"the the"}),
        ("artist_000224", "", {"jamendo artist 224"}),
        ("224", "Song Describer", {"jamendo artist 224"}),
        ("311", "FMA", {"311"}),
        ("U2", "", set()),
        ("Various Artists", "", set()),
        ("[unknown]", "", set()),
        ("", "", set()),
    ],
)
def test_artist_names_are_normalized(text, dataset, expected):
    assert artist_names(text, dataset) == expected


CAPS_HEAD = "ytid,start_s,end_s,aspect_list,caption,is_balanced_subset,is_audioset_eval"
ASKED_HEAD = (
    "question,correct_answer,distractor_1_answer,distractor_2_answer,distractor_3_answer,"
    "dataset,dataset_identifier"
)


def write(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_musiccaps_gives_two_sets_and_leaves_out_the_clean_rows(tmp_path):
    path = write(
        tmp_path,
        "caps.csv",
        CAPS_HEAD,
        "aaaaaaaaaaa,0,10,[],A waltz.,True,True",
        "bbbbbbbbbbb,0,10,[],A march.,False,True",
        "ccccccccccc,0,10,[],A hymn.,False,False",
    )
    assert read_test_sets(musiccaps=path) == [
        TestSet("MusicCaps balanced", frozenset({"aaaaaaaaaaa"}), ("A waltz.",)),
        TestSet(
            "MusicCaps/AudioSet eval",
            frozenset({"aaaaaaaaaaa", "bbbbbbbbbbb"}),
            ("A waltz.", "A march."),
        ),
    ]


def test_muchomusic_gives_questions_and_from_its_csv_the_recordings(tmp_path):
    path = write(
        tmp_path,
        "asked.csv",
        ASKED_HEAD,
        "Which?,Oboe,Horn,Loud,,musiccaps,-0Gj8-vB1q4_30.json",
        '"Why, then?",Sad,Gay,Flute,Drum,sdd,1004034',
    )
    (result,) = read_test_sets(muchomusic=path)
    assert result.ids == {"-0Gj8-vB1q4", JAMENDO}
    assert result.questions == (
        TestQuestion("Which?", "Oboe", ("Oboe", "Horn", "Loud")),
        TestQuestion("Why, then?", "Sad", ("Sad", "Gay", "Flute", "Drum")),
    )
    line = {"audio": "test_0.wav", "question": "Which?", "choices": ["Horn", "Oboe"], "answer": "B"}
    (result,) = read_test_sets(muchomusic=write(tmp_path, "asked.jsonl", json.dumps(line), ""))
    assert result == TestSet(
        "MuChoMusic", questions=(TestQuestion("Which?", "Oboe", ("Horn", "Oboe")),)
    )


def test_audiosets_eval_list_gives_ids(tmp_path):
    path = write(
        tmp_path,
        "eval_segments.csv",
        "# Segments csv created Sun Mar 5 10:54:25 2017",
        "# YTID, start_seconds, end_seconds, positive_labels",
        '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"',
    )
    assert read_test_sets(audioset_eval=path) == [
        TestSet("AudioSet eval", frozenset({"--4gqARaEJE"}))
    ]


def test_song_describer_gives_tracks_captions_and_artists(tmp_path):
    path = write(
        tmp_path,
        "song_describer.csv",
        "caption_id,track_id,caption,artist_id,path",
        "1,1004034,A waltz.,224,34/1004034.mp3",
        "2,1004034,A slow waltz.,224,34/1004034.mp3",
    )
    (result,) = read_test_sets(song_describer=path)
    assert result == TestSet(
        "Song Describer",
        frozenset({JAMENDO}),
        ("A waltz.", "A slow waltz."),
        frozenset({"jamendo artist 224"}),
    )


def test_gtzan_is_read_from_its_folder_or_from_an_index(tmp_path):
    (tmp_path / "genres" / "blues").mkdir(parents=True)
    (tmp_path / "genres" / "blues" / "blues.00007.au").touch()
    (tmp_path / "genres" / "bextract_single.mf").touch()
    assert read_test_sets(gtzan=tmp_path) == [TestSet("GTZAN", frozenset({"blues.00007"}))]
    index = write(
        tmp_path, "index.csv", "file,artist,title", "blues.00000.wav,The Clash,x", "pop.00001,,"
    )
    assert read_test_sets(gtzan=index) == [
        TestSet("GTZAN", frozenset({"blues.00000", "pop.00001"}), artists=frozenset({"clash"}))
    ]


@pytest.mark.parametrize(
    ("option", "name", "lines", "expected"),
    [
        ("musiccaps", "a.csv", ["ytid,caption", "a,b"], "has no column"),
        ("muchomusic", "a.txt", ["x"], "MuChoMusic's csv"),
        ("muchomusic", "a.csv", ["question,answer", "a,b"], "has no column correct_answer"),
        ("muchomusic", "a.csv", [ASKED_HEAD], "holds nothing"),
        ("muchomusic", "a.csv", [ASKED_HEAD, "Q?,,b,c,d,sdd,1"], "empty correct_answer"),
        ("muchomusic", "a.csv", [ASKED_HEAD, "Q?,a,b,c,d,musiccaps,7"], "begin it with a YouTube"),
        ("muchomusic", "a.jsonl", ["", "{"], "line 2: is not json"),
        ("muchomusic", "a.jsonl", ['{"question": "Q?"}'], "line 1: is not an object"),
        (
            "muchomusic",
            "a.jsonl",
            ['{"audio": "a", "question": "Q?", "choices": ["a", "b"], "answer": "C"}'],
            "line 1: is not an object",
        ),
        (
            "muchomusic",
            "a.jsonl",
            ['{"audio": "a", "question": "Q?", "choices": "ab", "answer": "A"}'],
            "line 1: is not an object",
        ),
        ("audioset_eval", "a.csv", ["# x", "short, 0, 10, /m/1"], "line 2 is not a segment"),
        ("audioset_eval", "a.csv", ["# x"], "holds nothing"),
        ("song_describer", "a.csv", ["track_id,caption", "1,b"], "has no column caption_id"),
        ("gtzan", "a.csv", ["file,artist,title", "song.wav,a,b"], "write it as blues.00000"),
        ("gtzan", "a.csv", ["name,genre", "a,b"], "has no column file"),
    ],
)
def test_other_files_are_refused(tmp_path, option, name, lines, expected):
    path = write(tmp_path, name, *lines)
    message = refusal(read_test_sets, **{option: path})
    assert str(path) in message
    assert expected in message


def test_missing_files_and_empty_folders_are_refused(tmp_path):
    for option in ("musiccaps", "audioset_eval", "song_describer", "gtzan"):
        assert "nowhere.csv" in refusal(read_test_sets, **{option: tmp_path / "nowhere.csv"})
    assert "nowhere.jsonl" in refusal(read_test_sets, muchomusic=tmp_path / "nowhere.jsonl")
    assert "holds nothing" in refusal(read_test_sets, gtzan=tmp_path)

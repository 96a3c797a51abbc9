"""Words for the values of facts, and wordings of questions and captions."""

from collections.abc import Mapping, Sequence

NAMES: Mapping[str, Mapping[str, str]] = {
    "timbre": {
        "pluck": "string",
        "organ": "organ",
        "flute": "flute",
        "brass": "trumpet",
        "bell": "bell",
        "bass": "bass",
        "square": "square",
        "voice": "singer",
        "accordion": "accordion",
    },
    "drums": {"drums": "drums", "none": "drumless"},
    "tempo": {"slow": "slow", "medium": "moderate", "fast": "fast"},
    "metre": {"three": "triple", "four": "quadruple"},
    "mode": {"major": "major", "minor": "minor"},
    "contour": {"rising": "rising", "falling": "falling", "arched": "arched"},
    "register": {"low": "low", "high": "high"},
    "dynamics": {"loud": "loud", "soft": "quiet", "swelling": "swelling"},
    "voices": {"one": "solo", "several": "chords"},
    "room": {"dry": "dry", "room": "echoing"},
}
"""Name of each fact -> value -> word for the value in texts; all words differ."""
OPEN: Mapping[str, Sequence[str]] = {
    "timbre": ("What instrument is playing?", "Which instrument do you hear?", "What plays?"),
    "drums": ("Drums or drumless?", "Drumless or drums?", "With drums or drumless?"),
    "tempo": ("What is the tempo?", "How fast is the music?", "Slow, moderate or fast?"),
    "metre": ("What is the metre?", "Triple or quadruple?", "How are the beats counted?"),
    "mode": ("Major or minor?", "What is the mode?", "Which kind of key is it?"),
    "contour": (
        "How does the melody move?",
        "What shape has the melody?",
        "Where does the melody go?",
    ),
    "register": ("High or low?", "How high is the melody?", "What is the register?"),
    "dynamics": ("How loud is it?", "What are the dynamics?", "Loud, quiet or swelling?"),
    "voices": ("Solo or chords?", "How many voices sound?", "What is the texture?"),
    "room": ("Dry or echoing?", "How does the room sound?", "How are the acoustics?"),
}
"""Name of each fact -> wordings of open questions, whose answer is the word for a value."""
BINARY: Mapping[str, Sequence[str]] = {
    "timbre": ("Is it {}?", "Do you hear {}?", "Is the instrument {}?"),
    "drums": ("Is it {}?", "Is the music {}?"),
    "tempo": ("Is it {}?", "Is the tempo {}?"),
    "metre": ("Is it {}?", "Is the metre {}?"),
    "mode": ("Is it {}?", "Is the mode {}?"),
    "contour": ("Is it {}?", "Is the melody {}?"),
    "register": ("Is it {}?", "Is the register {}?"),
    "dynamics": ("Is it {}?", "Is the music {}?"),
    "voices": ("Is it {}?", "Do you hear {}?"),
    "room": ("Is it {}?", "Is the room {}?"),
}
"""Name of each fact -> wordings of yes/no questions; {} stands for the word for a value."""
CHOICE: Sequence[str] = ("Which is right?", "Which fits?", "What do you hear?")
"""Wordings of multiple-choice questions; the options follow."""
CAPTION: Mapping[str, Sequence[str]] = {
    "Caption the music": ("timbre", "drums", "tempo", "dynamics", "room"),
    "Describe the melody.": ("timbre", "contour", "register", "mode", "metre", "voices"),
    "Describe the music in full.": tuple(NAMES),
}
"""Prompt that asks for a caption -> names of the facts whose values the caption gives."""

"""Facts in words: how values are called, asked for, and told in captions.

Every value has one word, so that a few minutes are enough to learn the language.
"""

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
"""What each value is called: one word, no two alike."""

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
"""Questions for a fact, whose answer is its value's name."""

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
"""Questions for yes or no, about a value's name."""

CHOICE: Sequence[str] = ("Which is right?", "Which fits?", "What do you hear?")
"""What multiple choice begins with."""

CAPTION: Mapping[str, Sequence[str]] = {
    "Caption the music": ("timbre", "drums", "tempo", "dynamics", "room"),
    "Describe the melody.": ("timbre", "contour", "register", "mode", "metre", "voices"),
    "Describe the music in full.": tuple(NAMES),
}
"""What asks for a caption, and the facts that it names."""

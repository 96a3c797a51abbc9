"""Question-answering sets in MusicSkills' format, built from tags and captions."""

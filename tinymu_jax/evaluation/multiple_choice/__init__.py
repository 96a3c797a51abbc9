"""Multiple-choice benchmarks: MuChoMusic and lists in its format."""

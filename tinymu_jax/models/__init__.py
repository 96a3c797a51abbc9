"""The parts of the paper's figure, one file each: MATPAC++, projector, SmolLM2, TinyMU."""

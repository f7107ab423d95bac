"""Readers (and writers) of other programs' checkpoint formats, one module each."""

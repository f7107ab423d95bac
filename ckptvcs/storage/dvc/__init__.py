"""The only door to DVC: its configuration, pointer files, directory objects, outputs and lock. No import of `dvc` itself.

What DVC writes is small and stable (the layout of 3.0 to 3.67), and importing it costs more than most of our commands; so
we write the same bytes ourselves, and interop tests hold them against the real program.
"""

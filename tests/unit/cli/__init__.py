"""Tests of `ckptvcs.cli`."""

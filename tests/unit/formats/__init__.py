"""Tests of `ckptvcs.formats`."""

"""Tests of `ckptvcs.domain`."""

"""Bytes under names. Has never heard of a checkpoint."""

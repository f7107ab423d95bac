"""A nested state as a JSON tree, exactly: the `tree` of `tree.json`."""

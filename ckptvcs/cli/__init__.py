"""The command line: reads options, calls porcelain, words what comes back. It decides nothing."""

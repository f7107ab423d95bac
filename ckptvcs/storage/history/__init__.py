"""The only door to pygit2: trees, commits, branches, tags, compare-and-swap, worktree."""

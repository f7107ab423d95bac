"""What a state is, in memory and in files."""

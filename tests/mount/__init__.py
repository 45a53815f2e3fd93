"""Applications on real mounts of real servers."""

"""The benchmark: netfs beside its peers on the same tree in the same run."""

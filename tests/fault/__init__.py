"""Broken links, killed processes, dead servers."""

"""The tests of netfs."""

"""Tests of tests/fakes."""

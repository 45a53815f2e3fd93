"""Tests of tests/unit."""

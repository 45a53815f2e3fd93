"""Tests of tests/unit/operations."""

"""Tests of tests/unit/client."""

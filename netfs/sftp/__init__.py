"""TODO-owner: essay."""

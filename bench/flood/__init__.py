"""A live broker under a flood of malformed messages, beside honest traffic."""

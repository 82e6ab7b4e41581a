"""Stage 2: what the message is, and whether to trust it."""

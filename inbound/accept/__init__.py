"""Stage 1: SMTP in, until the message is durably ours."""

"""Stage 4: carry out the actions, retry, give up visibly."""

"""The judge: what plans are worth, over a recorded timeline, in a world of memory and waiting."""

"""The embedded base model as it was before it read who is in memory."""

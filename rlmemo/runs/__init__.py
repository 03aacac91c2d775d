"""What lies in a run folder, read and written; knows nothing of torch."""

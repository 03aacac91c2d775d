"""The language model: how it reads a moment, how it is loaded, and how it is asked."""

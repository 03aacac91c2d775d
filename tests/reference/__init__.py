"""The judge and the oracle once more, written to be read: what the compiled ones are held against."""

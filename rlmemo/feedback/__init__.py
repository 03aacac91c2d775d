"""Ratings as something to learn from: who agrees, what would be approved, pairs for the trainers, and what
another policy's approval would be. `python -m rlmemo.feedback`; docs/feedback.md."""

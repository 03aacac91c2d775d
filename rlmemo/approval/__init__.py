"""What people approve of, learned from their ratings."""

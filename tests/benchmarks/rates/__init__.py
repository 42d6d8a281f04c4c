"""The range test against fixed rates."""

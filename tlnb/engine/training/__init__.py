"""Stages and plans, and the loop that trains them, which can be stopped and gone on with at any batch."""

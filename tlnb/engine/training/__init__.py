"""Stages, plans and rates, and the loop that trains, which can be stopped and gone on with at any batch."""

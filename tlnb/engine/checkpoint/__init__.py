"""Checkpoints and autosaves: files that are whole or not there, and hold all that training goes on from."""

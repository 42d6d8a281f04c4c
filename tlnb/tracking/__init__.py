"""What happens in a session, told to a tracker of experiments: one file a tracker, and a thread that posts."""

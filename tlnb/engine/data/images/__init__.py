"""Pictures on disk: what kind they are, whether they are whole, and how they become pixels."""

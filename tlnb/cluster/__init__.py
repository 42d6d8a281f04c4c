"""Work on other machines: Ray is imported here and nowhere else, and only once a cluster is named."""

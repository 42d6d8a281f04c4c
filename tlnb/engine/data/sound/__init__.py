"""Sound files as samples: checked, cut into pieces, drawn as log-mel pictures or given as raw frames."""

"""Where networks come from: published ones by name, files of weights, modules of the user's own."""

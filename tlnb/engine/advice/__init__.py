"""How much to transfer: measures of data and features, the advice, trials and sweeps."""

"""How much to transfer and what is forgotten: measures of data and features, the advice, sweeps and guards."""

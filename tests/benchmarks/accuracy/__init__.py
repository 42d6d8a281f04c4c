"""The accuracy board: recipes over photo sets, amounts, networks and seeds."""

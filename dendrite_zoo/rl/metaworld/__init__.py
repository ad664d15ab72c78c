"""Meta-World's tasks: names, goals, episodes, and the same environments made faster."""

"""How far methods prune in the explorer, those of a kind alike; the first is offered at the start."""

SHARES = ("0.5", "0.3", "0.4", "0.6", "0.7", "0.8", "0.9")
RATIOS = ("2:4", "1:4", "3:4", "4:8", "2:8")

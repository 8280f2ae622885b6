"""What is seen: plain data in, figure or widget out; no torch, no algorithm."""

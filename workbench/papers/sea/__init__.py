"""The paper SEA: entry, claims, experiments and exercises."""

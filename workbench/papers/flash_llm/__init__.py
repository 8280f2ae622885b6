"""The paper Flash-LLM: entry, claims, experiments and exercises."""

"""Steps of optimisers that touch only chosen entries."""

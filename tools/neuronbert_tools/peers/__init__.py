"""What tools/compare_peers is made of: environments, contenders, the children they run in, and the summary."""

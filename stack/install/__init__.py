"""Installing what the stack runs: the checks before, environments, toolchains and servers."""

"""Results in the words of other tools: out as their reports, and in as what can be set beside ours."""

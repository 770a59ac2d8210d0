"""Many runs of one plan: what to try next, who runs it, and what came of it."""

"""A recorded run again, and what to say of it: replays, verdicts, what differs and why."""

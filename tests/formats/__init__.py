"""What once went wrong, by theme: each test states the rule that was broken."""

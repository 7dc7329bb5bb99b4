"""What every consumer process is made of: its start and end, its consumer loop, its report."""

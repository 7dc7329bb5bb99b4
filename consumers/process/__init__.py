"""What all consumer processes share: start and shutdown, the consumer loop, the lag report."""

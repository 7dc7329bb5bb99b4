"""What tests share: fakes, generators and processes."""

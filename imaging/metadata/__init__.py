"""What an image says of itself: time, place and camera."""

"""The event lake: its files, the views over them, and what is made of them."""

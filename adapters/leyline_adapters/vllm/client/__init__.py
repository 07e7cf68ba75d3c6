"""What the adapter keeps and reckons on its side of the wire."""

"""What a compiled program costs: FLOPs, bytes and collectives, on which chips."""

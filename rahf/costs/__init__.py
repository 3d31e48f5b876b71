"""What a compiled program costs: FLOPs, bytes, collectives, and what chips offer."""

"""Cost analysis of compiled programs: FLOPs, bytes and collectives, by chip."""

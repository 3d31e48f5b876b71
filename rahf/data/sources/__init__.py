"""Images with their prompts, streamed from what people keep them in."""

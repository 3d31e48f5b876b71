"""Learning from feedback: rewards for trainers of image generators."""

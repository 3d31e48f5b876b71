"""Feedback improves image generators: rewards for training them, best of N."""

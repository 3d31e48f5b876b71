"""Rewards for training image generators."""

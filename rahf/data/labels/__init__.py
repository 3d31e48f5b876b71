"""Answers of annotators, and the labels made of them."""

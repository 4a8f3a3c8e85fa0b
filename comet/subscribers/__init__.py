"""Subscribed connections: channels of keys, what they are given, and what they have missed."""

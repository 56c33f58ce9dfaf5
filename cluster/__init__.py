"""Replicated truth and placement: the state machine, Raft under it, members, TLS, and the scheduler.

Knows neither HTTP nor containers: nouns are registered as tables and commands. Imports nothing of lxdpy.
"""
